package suite

import (
	"strings"
	"testing"
	"time"
)

// Envoy fails its health checks before it reads any configuration of the gate.
func TestEnvoyStartedInDrainModeFailsTheProbe(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it starts an Envoy")
	for name, options := range map[string][]option{
		"reference configuration": nil,
		"rare stats flushes":      {withBootstrap(`stats_flush_interval: 290s`)},
		"few stats": {withStatsMatcher(`inclusion_list: {patterns: [
			{prefix: cluster}, {prefix: listener_manager}, {exact: server.live}, {exact: server.state}]}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(options, startedDraining(t))...)
			client := s.client("h2")
			s.setServing(1)
			draining := map[string]string{"x-envoy-immediate-health-check-fail": "true"}
			expect(t, "after the start", s.probe(client), 503, "unavailable\n", draining)
			s.post("/healthcheck/ok")
			expect(t, "after /healthcheck/ok", s.probe(client), 200, "ok\n", nil)
			s.post("/healthcheck/fail")
			expect(t, "after /healthcheck/fail", s.probe(client), 503, "unavailable\n", draining)
		})
	}
}

// If a stats matcher leaves out the stats that show a drain, the log has a warning.
func TestInvisibleDrainIsLogged(t *testing.T) {
	t.Parallel()
	s := newSite(t, withStatsMatcher(`inclusion_list: {patterns: [{prefix: cluster.}, {prefix: healthgate.}, {prefix: listener_manager}]}`))
	client := s.client("h2")
	s.setServing(1)
	s.post("/healthcheck/fail")
	expect(t, "an invisible drain", s.probe(client), 200, "ok\n", nil)
	const warning = "healthgate: gate default: server.live reads 0 and never was 1"
	s.awaitLines(warning, 1, 45*time.Second)
	for _, matcher := range []string{
		"stats_config.stats_matcher", "the listener's metadata envoy.stats_matcher, which replaces it", "server.state",
	} {
		if !strings.Contains(s.envoy.Log(), matcher) {
			t.Errorf("the warning lacks %q", matcher)
		}
	}
}

// A listener whose own matcher excludes the server's stats sees a drain by the other listener's, and logs no warning.
func TestListenerWithoutServerStatsSeesADrain(t *testing.T) {
	t.Parallel()
	s := newSite(t, withSecondListener(`{"clusters": ["service"], "stat_prefix": "second"}`),
		func(p *plan) { p.matcher = excludeStats("server.") })
	s.setServing(1)
	second := s.at("second")
	one, other := s.client("h2"), second.client("h2")
	for _, step := range []struct {
		drain  string
		status int
	}{{"ok", 200}, {"fail", 503}, {"ok", 200}, {"fail", 503}} {
		s.post("/healthcheck/" + step.drain)
		if a, b := s.probe(one).status, second.probe(other).status; a != step.status || b != step.status {
			t.Errorf("after %s: %d and %d, want %d", step.drain, a, b, step.status)
		}
	}
}
