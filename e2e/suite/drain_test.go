package suite

import (
	"testing"
	"time"
)

func TestDrainingFailsTheProbe(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withRoute("/fail", `{"path": "/fail", "drain": "fail"}`),
		withRoute("/ignore", `{"path": "/ignore", "drain": "ignore"}`))
	// The drain begins before the first probe.
	s.post("/healthcheck/fail")
	for _, path := range []string{"/", "/fail"} { // fail is the default
		expect(t, path+" while draining", s.path(path), 503, "unavailable\n",
			map[string]string{"x-envoy-immediate-health-check-fail": "true", "cache-control": "no-store"})
	}
	expect(t, "drain: ignore", s.path("/ignore"), 200, "ok\n", notDraining)
	s.post("/healthcheck/ok")
	for _, path := range []string{"/", "/fail", "/ignore"} {
		expect(t, path+" afterwards", s.path(path), 200, "ok\n", notDraining)
	}
}

func TestConfigurationAddedDuringADrainFailsTheProbe(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withLDS())
	s.post("/healthcheck/fail")
	s.mustReload(`{"clusters": ["service"], "stat_prefix": "second"}`)
	expect(t, "the new one", s.awaitProbe(s.client("h2"), 503, settle), 503, "unavailable\n", draining)
	s.awaitStat("healthgate.second.failed_draining", 1)
}

// Envoy fails its health checks before it reads any configuration of the gate.
func TestEnvoyStartedInDrainModeFailsTheProbe(t *testing.T) {
	subtests(t, map[string][]option{
		"reference configuration": nil,
		"rare stats flushes":      {withBootstrap(`stats_flush_interval: 290s`)},
		"few stats": {withStatsMatcher(`inclusion_list: {patterns: [
			{prefix: cluster}, {prefix: listener_manager}, {exact: server.live}, {exact: server.state}]}`)},
	}, func(t *testing.T, options []option) {
		s := newServingSite(t, append(options, startedDraining(t))...)
		client := s.client("h2")
		expect(t, "after the start", s.probe(client), 503, "unavailable\n", draining)
		s.post("/healthcheck/ok")
		expect(t, "after /healthcheck/ok", s.probe(client), 200, "ok\n", nil)
		s.post("/healthcheck/fail")
		expect(t, "after /healthcheck/fail", s.probe(client), 503, "unavailable\n", draining)
	})
}

// If a stats matcher leaves out the stats that show a drain, the log has a warning.
func TestInvisibleDrainIsLogged(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withStatsMatcher(
		`inclusion_list: {patterns: [{prefix: cluster.}, {prefix: healthgate.}, {prefix: listener_manager}]}`))
	client := s.client("h2")
	s.post("/healthcheck/fail")
	expect(t, "an invisible drain", s.probe(client), 200, "ok\n", nil)
	s.awaitLines("healthgate: gate default: server.live reads 0 and never was 1", 1, 45*time.Second)
	s.awaitLog("stats_config.stats_matcher", settle)
	s.awaitLog("the listener's metadata envoy.stats_matcher, which replaces it", settle)
	s.awaitLog("server.state", settle)
}

// A listener whose own matcher excludes the server's stats sees a drain by the other listener's.
func TestListenerWithoutServerStatsSeesADrain(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withSecondListener(`{"clusters": ["service"], "stat_prefix": "second"}`),
		func(p *plan) { p.matcher = excludeStats("server.") })
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
