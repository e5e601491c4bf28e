package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"healthgate/e2e/testbed"
)

// option changes a plan before the site is started.
type option func(*plan)

// backends starts n backends.
func backends(n int) option {
	return func(p *plan) { p.addresses = slices.Repeat([]string{"127.0.0.1:0"}, n) }
}

// withConfig changes the configuration.
func withConfig(change func(*testbed.Bootstrap)) option {
	return func(p *plan) { p.changes = append(p.changes, change) }
}

// withGate replaces the gate's configuration.
func withGate(text string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.SetGate(text) })
}

// withHCM patches the first listener's HTTP connection manager.
func withHCM(patch string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.Patch(c.HCM(), patch) })
}

// withCluster patches the first cluster.
func withCluster(patch string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.Patch(c.Cluster(), patch) })
}

// withBootstrap patches the bootstrap itself.
func withBootstrap(patch string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.Patch(c.Bootstrap, patch) })
}

// onEveryRoute enables the filter for all traffic, unlike the reference configuration.
func onEveryRoute() option {
	return withConfig(func(c *testbed.Bootstrap) { c.GateFilter().Disabled = false })
}

func withEnv(variables ...string) option { return func(p *plan) { p.options.Env = variables } }

// alone marks a site that the test changes so that no other test could use it.
func alone(why string) option { return func(p *plan) { p.alone = why } }

// withLDS and withRDS make Envoy read its listener or its routes from a file that a test can change.
func withLDS() option { return func(p *plan) { p.lds = true } }
func withRDS() option { return func(p *plan) { p.rds = true } }

// withSecondListener adds a listener like the first, with another configuration of the gate.
func withSecondListener(gate string) option { return func(p *plan) { p.second = gate } }

// withRoute adds the route of another probe, with an override of the gate.
func withRoute(path, gate string) option {
	return withConfig(func(c *testbed.Bootstrap) { addRoute(c.VirtualHost(), path, gate) })
}

// addRoute puts the route of a probe before the others of a virtual host, with an override of the gate.
func addRoute(host *routev3.VirtualHost, path, gate string) {
	route := testbed.Parse[*routev3.Route](fmt.Sprintf(`{match: {path: %q}, direct_response: {status: 503}}`, path))
	route.TypedPerFilterConfig = gateOverride(gate)
	testbed.PrependRoute(host, route)
}

// gateOverride returns the typed_per_filter_config with which a level of the routes overrides the gate.
func gateOverride(gate string) map[string]*anypb.Any {
	return map[string]*anypb.Any{"healthgate": testbed.GateOverride(gate)}
}

// withStatsMatcher sets the bootstrap's stats matcher.
func withStatsMatcher(matcher string) option {
	return withConfig(func(c *testbed.Bootstrap) {
		c.StatsConfig = &metricsv3.StatsConfig{StatsMatcher: testbed.Parse[*metricsv3.StatsMatcher](matcher)}
	})
}

// withClusterStatsMatcher sets the first cluster's own stats matcher.
func withClusterStatsMatcher(matcher string) option {
	return withConfig(func(c *testbed.Bootstrap) {
		c.Cluster().Metadata = testbed.StatsMatcherMetadata(testbed.Parse[*metricsv3.StatsMatcher](matcher))
	})
}

// withoutStats excludes every stat.
func withoutStats() option { return withStatsMatcher(`reject_all: true`) }

// excludeStats returns a stats matcher that excludes the stats with a prefix.
func excludeStats(prefix string) *metricsv3.StatsMatcher {
	return testbed.Parse[*metricsv3.StatsMatcher](fmt.Sprintf(`exclusion_list: {patterns: [{prefix: %q}]}`, prefix))
}

// withFilter adds an HTTP filter before the gate or after it.
func withFilter(before bool, filter string) option {
	return withConfig(func(c *testbed.Bootstrap) {
		add := c.AddFilter
		if before {
			add = c.PrependFilter
		}
		add(testbed.Parse[*hcmv3.HttpFilter](filter))
	})
}

// addGate adds another filter of Healthgate after the first, enabled on all routes.
func addGate(c *testbed.Bootstrap, name, gate string) { c.AddFilter(otherGate(c, name, gate)) }

// otherGate returns a filter of Healthgate under another name, enabled on all routes.
func otherGate(c *testbed.Bootstrap, name, gate string) *hcmv3.HttpFilter {
	other := c.Clone()
	other.SetGate(gate)
	filter := other.Clone().GateFilter()
	filter.Name, filter.Disabled = name, false
	return filter
}

// withoutTLS removes TLS from the listener. HTTP/2 is then h2c with prior knowledge.
func withoutTLS() option {
	return withConfig((*testbed.Bootstrap).WithoutTLS)
}

// startedDraining makes Envoy find a file "drain" when it starts, which starts it in drain mode.
func startedDraining(t *testing.T) option {
	return withConfig(func(c *testbed.Bootstrap) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "drain"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c.FlagsPath = dir
	})
}

// adminAt makes admin listen on a free port, and replaces ADMIN in the gate's configuration by its address.
func adminAt(t *testing.T, gate string) option {
	t.Helper()
	port := unusedAddress(t).Port
	return withConfig(func(c *testbed.Bootstrap) {
		c.Listen(0, port)
		c.SetGate(strings.ReplaceAll(gate, "ADMIN", fmt.Sprint("127.0.0.1:", port)))
	})
}

// adminPort returns the port of admin in a configuration.
func adminPort(c *testbed.Bootstrap) uint32 {
	return c.GetAdmin().GetAddress().GetSocketAddress().GetPortValue()
}

// adminOnASocket puts admin on a unix socket, as in envoy/examples/admin.yaml.
func adminOnASocket(t *testing.T) option {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e") // a short path, because a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return withConfig(func(c *testbed.Bootstrap) {
		c.Admin.Address = testbed.AddressOf("unix:" + filepath.Join(dir, "admin.sock"))
		c.Admin.Address.GetPipe().Mode = 0o600
	})
}
