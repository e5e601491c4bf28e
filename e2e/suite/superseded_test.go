package suite

import (
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/testbed"
)

// A Watch ends when its filter's configuration is replaced, by ECDS on a connection that stays, or by LDS on one that drains. Its client
// comes back to the new one, and Check and Watch agree.
func TestWatchEndsWithItsFiltersConfiguration(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	needs(t, testbed.GRPC)
	states := []struct {
		cluster string
		want    grpc_health_v1.HealthCheckResponse_ServingStatus
	}{{"nobody", notServing}, {"service", serving}, {"nobody", notServing}, {"service", serving}}
	t.Run("ECDS", func(t *testing.T) {
		t.Parallel()
		var filter *testbed.Config
		var s *site
		var p *plan
		// update has ECDS give the filter another cluster.
		update := func(cluster string) {
			next := filter.Clone()
			next.Set("typed_config.plugin_config.value.clusters", []any{cluster})
			next.Delete("disabled")
			variant.Rewrite(next)
			s.write("ecds", "envoy.config.core.v3.TypedExtensionConfig", next.Get(""))
		}
		s, p = prepare(t, withHealthService(), withConfig(func(c *testbed.Config) { filter = c.Part(testbed.Healthgate) }))
		update("service")
		p.config.Set(testbed.Healthgate, map[string]any{"name": "healthgate", "disabled": true, "config_discovery": map[string]any{
			"config_source": s.fromFile("ecds"),
			"type_urls":     []any{"type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"},
		}})
		p.config.Set("node", node)
		envoy, err := testbed.StartEnvoy(t.Context(), s.dir, p.config, variant.Options(p.options))
		if err != nil {
			t.Fatal(err)
		}
		s.use(envoy)
		s.setServing(1)
		crowd := s.newCrowd(3, s.conns(2)...)
		crowd.await(serving, 1)
		for _, state := range states {
			update(state.cluster)
			crowd.mustEnd() // no call is needed
			s.awaitCheck(state.want)
			crowd = s.newCrowd(3, s.conns(2)...)
			crowd.await(state.want, 1)
			crowd.mustStay()
		}
	})
	t.Run("LDS", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, withHealthService(), withLDS())
		s.setServing(1)
		crowd := s.newCrowd(3, s.conns(2)...)
		crowd.await(serving, 1)
		for _, state := range states {
			if !s.reload(`{"clusters": ["`+state.cluster+`"], "grpc_services": ["router.Router"]}`, func(c *testbed.Config) {
				c.Set(testbed.Routes, append([]any{testbed.Tree(healthRoute).Clone().Get("")}, c.Get(testbed.Routes).([]any)...))
			}) {
				t.Fatal("envoy refused a good listener")
			}
			crowd.mustEnd()
			crowd = s.newCrowd(3, s.conns(2)...)
			crowd.await(state.want, 1)
			s.awaitCheck(state.want)
			crowd.mustStay()
		}
	})
}
