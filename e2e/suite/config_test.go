package suite

import (
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// A cluster that has had no traffic is checked as often as any other: without that, Envoy notices after a minute.
func TestIdleClusterIsCheckedAtItsInterval(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	s.setServing(0) // waits no longer than settle, far less than a minute
	s.awaitProbe(s.client("h2"), 503, time.Second)
}

// The old way, to compare with: it does what it did.
func TestLuaConfigurationDoesWhatTheOldOneDid(t *testing.T) {
	t.Parallel()
	config, err := testbed.LoadConfig("envoy/lua.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(p *plan) {
		p.config, p.gated = config, false
		p.configured = append(p.configured, func(p *plan, _ []string) {
			// The script reaches admin by its port, so that has to be known beforehand.
			port := unusedAddress(t).Port
			config.Listen(0, port)
			config.Set("static_resources.clusters.1.load_assignment.endpoints.0.lb_endpoints.0.endpoint.address.socket_address.port_value", port)
		})
	})
	for _, protocol := range protocols {
		client := s.client(protocol)
		s.setServing(1)
		expect(t, protocol, s.awaitProbe(client, 200, time.Second), 200, "ok\n", nil)
		s.setServing(0)
		expect(t, protocol, s.awaitProbe(client, 503, time.Second), 503, "unavailable\n", nil)
	}
	s.setServing(1)
	callRouter(t, s)
}
