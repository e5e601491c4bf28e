package suite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// withFlagsPath has Envoy look for a file "drain" when it starts, and puts it there.
func withFlagsPath(t *testing.T) option {
	return withConfig(func(c *testbed.Config) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "drain"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c.Set("flags_path", dir)
	})
}

// Envoy has failed its health checks before it reads any configuration of the plugin's.
func TestEnvoyStartedInDrainModeFailsTheProbe(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs an Envoy of its own")
	matcher := func(text string) option {
		return withConfig(func(c *testbed.Config) { c.Set("stats_config", parse(text)) })
	}
	for name, options := range map[string][]option{
		"as it is":             nil,
		"stats flushed seldom": {withConfig(func(c *testbed.Config) { c.Set("stats_flush_interval", "290s") })},
		"few stats": {matcher(`{"stats_matcher": {"inclusion_list": {"patterns": [
			{"prefix": "cluster"}, {"prefix": "listener_manager"}, {"exact": "server.live"}, {"exact": "server.state"}]}}}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(options, withFlagsPath(t))...)
			client := s.client("h2")
			s.setServing(1)
			draining := map[string]string{"x-envoy-immediate-health-check-fail": "true"}
			expect(t, "as it has started", s.probe(client), 503, "unavailable\n", draining)
			s.post("/healthcheck/ok")
			expect(t, "called back", s.probe(client), 200, "ok\n", nil)
			s.post("/healthcheck/fail")
			expect(t, "told to fail", s.probe(client), 503, "unavailable\n", draining)
		})
	}
}

// What the stats leave out can't be seen in them; that is said.
func TestDrainThatCantBeSeenIsSaid(t *testing.T) {
	t.Parallel()
	s := newSite(t, withConfig(func(c *testbed.Config) {
		c.Set("stats_config", parse(`{"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster."}, {"prefix": "healthgate."}, {"prefix": "listener_manager"}]}}}`))
	}))
	client := s.client("h2")
	s.setServing(1)
	s.post("/healthcheck/fail")
	expect(t, "unseen", s.probe(client), 200, "ok\n", nil)
	const warning = "healthgate: gate default: server.live reads 0 and never was 1"
	s.awaitLines(warning, 1, 45*time.Second)
	for _, matcher := range []string{"stats_config.stats_matcher", "the listener's metadata envoy.stats_matcher, which replaces it", "server.state"} {
		if !strings.Contains(s.envoy.Log(), matcher) {
			t.Errorf("the warning lacks %q", matcher)
		}
	}
}

// A listener whose own matcher leaves the server's stats out learns of a drain by the other, and says nothing untrue.
func TestListenerThatCantSeeADrainAsksTheOther(t *testing.T) {
	t.Parallel()
	s := newSite(t, withSecondListener(`{"clusters": ["service"], "stat_prefix": "second"}`), func(p *plan) {
		p.hidden = leavesOut("server.")
		p.hidden["@type"] = "type.googleapis.com/envoy.config.metrics.v3.StatsMatcher"
	})
	s.setServing(1)
	second := s.at("second")
	one, other := s.client("h2"), second.client("h2")
	for _, step := range []struct {
		tell   string
		status int
	}{{"ok", 200}, {"fail", 503}, {"ok", 200}, {"fail", 503}} {
		s.post("/healthcheck/" + step.tell)
		if a, b := s.probe(one).status, second.probe(other).status; a != step.status || b != step.status {
			t.Errorf("after %s: %d and %d, want %d", step.tell, a, b, step.status)
		}
	}
}
