package gate

import (
	"slices"
	"strings"
	"testing"
	"time"

	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

func TestWarnings(t *testing.T) {
	hide := func(envoy *fakeEnvoy, g *Gate) { // as if the gate had never read 1
		envoy.set(envoystats.ServerLive, 0)
		g.process.draining = envoystats.Draining{}
		g.server = g.process.draining.NewReader(envoy)
	}
	steps := map[string]func(*fakeEnvoy, *Gate){
		"host":       func(envoy *fakeEnvoy, _ *Gate) { envoy.setCluster("a", of(1, 0, 1)) },
		"no host":    func(envoy *fakeEnvoy, _ *Gate) { envoy.setCluster("a", policy.Counts{}) },
		"check":      func(envoy *fakeEnvoy, _ *Gate) { envoy.stat("cluster.a.health_check.attempt").Increment(1) },
		"probe":      func(_ *fakeEnvoy, g *Gate) { g.Answer() },
		"drain":      func(envoy *fakeEnvoy, _ *Gate) { envoy.set(envoystats.ServerLive, 0) },
		"hide":       hide,
		"drain mode": func(envoy *fakeEnvoy, _ *Gate) { envoy.set(envoystats.ServerState, 1) },
	}
	for _, test := range []struct {
		name, more, meanwhile string
		want                  []string // parts of the only line; none for no line
	}{
		{"healthy and checked", ``, "host, check", nil},
		{"no host", ``, "", []string{`warn: healthgate: gate default: cluster "a" has shown no host yet`, "clusters[0].stat_name",
			"cluster.a.membership_total", "envoy.stats_matcher"}},
		{"no host, after a probe", ``, "probe", []string{`cluster "a" has shown no host yet`}},
		{"no host now, but there was one", ``, "host, probe, no host", nil},
		{"never checked", ``, "host", []string{`cluster "a" has hosts, and Envoy has checked none of them: each counts as healthy`,
			"health_checks", "cluster.a.health_check.attempt"}},
		{"checks do not continue", `, "stale_after": "5s"`, "host", []string{`cluster "a" fails because of stale_after (5s)`, "health_checks",
			"no_traffic_interval (60s by default)", "cluster.a.health_check.attempt"}},
		{"checks continue", `, "stale_after": "5s"`, "host, check", nil},
		{"checks of no host", `, "stale_after": "5s"`, "host, probe, no host", nil},
		{"a drain that can't be seen", ``, "host, check, hide", []string{"server.live reads 0 and never was 1", "server.state",
			"stats_config.stats_matcher", "envoy.stats_matcher", "drain: ignore"}},
		{"a drain that is ignored", `, "drain": "ignore"`, "host, check, hide", nil},
		{"Envoy was started in drain mode", ``, "host, check, hide, drain mode", nil},
		{"a drain", ``, "host, check, drain", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			envoy := newFakeEnvoy()
			g := newGate(t, envoy, `{"clusters": ["a"]`+test.more+`}`)
			for step := range strings.SplitSeq(test.meanwhile, ", ") {
				if step != "" {
					steps[step](envoy, g)
				}
			}
			envoy.lines = nil
			envoy.now = epoch.Add(time.Minute)
			for _, warning := range g.Warnings() {
				warning.Check()
			}
			if len(envoy.lines) != min(len(test.want), 1) {
				t.Fatalf("got %q, want parts %q", envoy.lines, test.want)
			}
			for _, part := range test.want {
				if !strings.Contains(envoy.lines[0], part) {
					t.Errorf("%q lacks %q", envoy.lines[0], part)
				}
			}
		})
	}
}

// fixedSource always has the same sample.
type fixedSource policy.Sample

func (s fixedSource) Sample(time.Time, int) policy.Sample { return policy.Sample(s) }

func TestSourceThatKnowsClustersIsWarnedOf(t *testing.T) {
	for want, source := range map[string]fixedSource{
		`Envoy has no cluster "a", so it fails`: {Unknown: true},
		"":                                      {Stale: true}, // it has never sampled
	} {
		envoy := newFakeEnvoy()
		New(decode(t, `{"clusters": ["a"]}`), 0, source, envoy, &Process{}).warnOfNoHost(0)
		if got := strings.Join(envoy.lines, ""); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%+v: got %q", source, got)
		}
	}
}

func TestWarningIsLoggedOncePerProcess(t *testing.T) {
	envoy := newFakeEnvoy()
	envoy.set(envoystats.ServerLive, 0)
	var process Process
	for range 3 {
		g := newGateIn(decode(t, `{"clusters": ["a"]}`), envoy, &process)
		g.warnOfDrain()
		g.warnOfNoHost(0)
	}
	newGateIn(decode(t, `{"clusters": ["a"], "stat_prefix": "another"}`), envoy, &process).warnOfNoHost(0)
	if len(envoy.lines) != 3 {
		t.Errorf("got %q, want one line for the drain, and one for each gate's cluster", envoy.lines)
	}
}

// Updates more frequent than a warning's time must not delay it for ever.
func TestWarningIsNotDelayedByUpdates(t *testing.T) {
	envoy := newFakeEnvoy()
	var process Process
	after := func(text string) (all []time.Duration) {
		for _, warning := range newGateIn(decode(t, text), envoy, &process).Warnings() {
			all = append(all, warning.After)
		}
		return all
	}
	const second = time.Second
	for _, step := range []struct {
		at         time.Duration
		staleAfter string
		want       []time.Duration // for the drain, hosts, checks
	}{
		{0, "0s", []time.Duration{30 * second, 30 * second, 30 * second}},
		{20 * second, "0s", []time.Duration{10 * second, 10 * second, 10 * second}},
		{29 * second, "90s", []time.Duration{1 * second, 1 * second, 61 * second}}, // checks may be as far apart as stale_after
		{40 * second, "5s", []time.Duration{1 * second, 1 * second, 1 * second}},
	} {
		envoy.now = epoch.Add(step.at)
		if got := after(`{"clusters": ["a"], "stale_after": "` + step.staleAfter + `"}`); !slices.Equal(got, step.want) {
			t.Errorf("after %v: got %v, want %v", step.at, got, step.want)
		}
	}
	// After a host was seen, its absence counts from the start.
	envoy.setCluster("a", of(1, 0, 1))
	newGateIn(decode(t, `{"clusters": ["a"]}`), envoy, &process).Answer()
	if got := after(`{"clusters": ["a"]}`); got[1] != 30*second {
		t.Errorf("after a host was seen: got %v, want 30s for hosts", got)
	}
}
