package suite

import (
	"fmt"
	"testing"

	"healthgate/e2e/testbed"
)

// bothVariants is a site whose Envoy has a gate by each variant. The routes enable that of the Go plugin.
func bothVariants(t *testing.T) *site {
	t.Helper()
	module := map[string]any{"name": "healthgate", "metrics_namespace": "healthgate"}
	filter := map[string]any{
		"name": "healthgate-module", "disabled": true,
		"typed_config": map[string]any{
			"@type":                 "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
			"dynamic_module_config": module,
			"filter_name":           "healthgate",
			"filter_config": map[string]any{"@type": "type.googleapis.com/google.protobuf.Struct",
				"value": parse(`{"clusters": ["service"], "stat_prefix": "module"}`)},
		},
	}
	s, p := prepare(t, withRDS(), withConfig(func(c *testbed.Config) { addFilter(c, filter) }))
	stock, err := testbed.Named("module")
	if err != nil {
		t.Fatal(err)
	}
	stock.Prepare(p.config) // its bootstrap extension, beside what the Go plugin has there
	envoy, err := testbed.StartEnvoy(t.Context(), s.dir, p.config, variant.Options(p.options))
	if err != nil {
		t.Fatal(err)
	}
	s.use(envoy)
	return s
}

// enable has the probe's route enable a filter, and no other of Healthgate's.
func (s *site) enable(filter string) {
	s.t.Helper()
	routes := s.routes.Clone()
	const probe = "virtual_hosts.0.routes.0.typed_per_filter_config"
	enabled := routes.Get(probe + ".healthgate")
	routes.Set(probe, map[string]any{filter: enabled})
	s.writeRoutes(routes)
}

// One Envoy has both variants, and an update of the routes takes the probe from one to the other and back.
func TestProbeGoesFromOneVariantToTheOtherWithoutLosingOne(t *testing.T) {
	t.Parallel()
	if variant.Name() != "plugin" {
		t.Skip("it has both variants, whichever the suite takes")
	}
	s := bothVariants(t)
	s.awaitProbe(s.client("h2"), 200, settle)
	load := s.probeUntilStopped(4)
	answered := func(prefix string) uint64 {
		name := "healthgate." + prefix + ".ok"
		return s.stats(name)[name]
	}
	for _, to := range []struct{ filter, prefix, other string }{
		{"healthgate-module", "module", "default"}, {"healthgate", "default", "module"}, {"healthgate-module", "module", "default"},
	} {
		s.enable(to.filter)
		s.await(settle, func() error { // of a hundred answers none is the other's
			before, others := answered(to.prefix), answered(to.other)
			s.await(settle, func() error {
				if n := answered(to.prefix); n < before+100 {
					return fmt.Errorf("%s has answered %d probes", to.filter, n-before)
				}
				return nil
			})
			if n := answered(to.other); n > others {
				return fmt.Errorf("the other variant has answered %d probes meanwhile", n-others)
			}
			return nil
		})
	}
	load.mustAllBe(200, 300)
}
