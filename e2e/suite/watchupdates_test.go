package suite

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/testbed"
)

// A Watch ends when its filter's configuration is replaced, by ECDS on a connection that stays or by LDS on one that drains. Its client
// reconnects to the new one, and Check and Watch agree.
func TestWatchEndsWithItsFiltersConfiguration(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	states := []struct {
		cluster string
		want    grpc_health_v1.HealthCheckResponse_ServingStatus
	}{{"missing", notServing}, {"service", serving}, {"missing", notServing}, {"service", serving}}
	t.Run("ECDS", func(t *testing.T) {
		t.Parallel()
		s, p := prepare(t, withHealthService())
		// update makes ECDS give the filter another cluster.
		update := func(cluster string) {
			next := s.config.Clone()
			next.SetGateKey("clusters", []any{cluster})
			s.write("ecds", &corev3.TypedExtensionConfig{Name: "healthgate", TypedConfig: next.For(variant).GateFilter().GetTypedConfig()})
		}
		update("service")
		p.config.GateFilter().ConfigType = &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource: s.fromFile("ecds"),
			TypeUrls:     []string{"type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"},
		}}
		p.config.Node = node()
		s.start(p)
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
			if !s.reload(`{"clusters": ["`+state.cluster+`"], "grpc_services": ["router.Router"]}`, func(c *testbed.Bootstrap) {
				testbed.PrependRoute(c.VirtualHost(), healthRoute())
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
