package suite

import (
	"fmt"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"healthgate/e2e/testbed"
)

// One Envoy has both variants, and route updates switch the probe between them without a failed probe.
func TestRouteUpdateSwitchesBetweenVariants(t *testing.T) {
	t.Parallel()
	if variant.Name() != "plugin" {
		t.Skip("it runs with the Go plugin, and has both variants")
	}
	module, err := testbed.VariantNamed("module")
	if err != nil {
		t.Fatal(err)
	}
	s, p := prepare(t, withRDS())
	other := s.config.Clone()
	other.SetGate(`{"clusters": ["service"], "stat_prefix": "module"}`)
	other = other.For(module)
	filter := other.GateFilter()
	filter.Name = "healthgate-module"
	p.config.AddFilter(filter)
	p.config.BootstrapExtensions = append(p.config.BootstrapExtensions, other.BootstrapExtensions...)
	s.start(p) // the routes enable the Go plugin's gate
	s.awaitProbe(s.client("h2"), 200, settle)
	load := s.probeUntilStopped(4)
	answered := func(prefix string) uint64 { return s.stat("healthgate." + prefix + ".ok") }
	for _, to := range []struct{ filter, prefix, other string }{
		{"healthgate-module", "module", "default"}, {"healthgate", "default", "module"}, {"healthgate-module", "module", "default"},
	} {
		s.changeRoutes(func(host *routev3.VirtualHost) {
			probe := host.Routes[0]
			probe.TypedPerFilterConfig = map[string]*anypb.Any{to.filter: probe.TypedPerFilterConfig["healthgate"]}
		})
		s.await(settle, func() error { // until the other variant gives none of a hundred answers
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
	load.mustAllPass(300)
}
