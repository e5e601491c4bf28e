package gate

import (
	"slices"
	"strings"
	"testing"
	"time"

	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

// warned are the warnings of a gate, after some time that a test fills.
func warned(t *testing.T, text string, meanwhile func(*fakeHost, *Gate)) []string {
	t.Helper()
	h := newFakeHost()
	g := newGate(t, h, text)
	meanwhile(h, g)
	h.lines = nil
	h.now = epoch.Add(time.Minute)
	for _, warning := range g.Warnings() {
		warning.Check()
	}
	return h.lines
}

// unseen has a gate read server.live at 0, which it has never read at 1.
func unseen(h *fakeHost, g *Gate) {
	h.set(envoystats.ServerLive, 0)
	g.process.draining = envoystats.Draining{}
	g.server = g.process.draining.NewReader(h)
}

// checked has Envoy check the cluster a once.
func checked(h *fakeHost) { h.Counter("cluster.a.health_check.attempt").(*number).Increment(1) }

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		name, text string
		meanwhile  func(*fakeHost, *Gate)
		want       []string // parts of the one line that is wanted; none for no line
	}{
		{"all is well", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)); checked(h) }, nil},
		{"no host", `{"clusters": ["a"]}`, func(*fakeHost, *Gate) {},
			[]string{`warn: healthgate: gate default: cluster "a" has shown no host yet`, "clusters[0].stat_name", "cluster.a.membership_total", "envoy.stats_matcher"}},
		{"no host, and a probe of it", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) { g.Answer() }, []string{`cluster "a" has shown no host yet`}},
		{"no host now, but there was one", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			g.Answer()
			h.setCluster("a", policy.Counts{})
		}, nil},
		{"never checked", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)) },
			[]string{`cluster "a" has hosts, and Envoy has checked none of them: each counts as healthy`, "health_checks", "cluster.a.health_check.attempt"}},
		{"an age that can't be told", `{"clusters": ["a"], "stale_after": "5s"}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)) },
			[]string{`cluster "a" fails by stale_after (5s)`, "health_checks", "no_traffic_interval, 60s", "cluster.a.health_check.attempt"}},
		{"an age that can be told", `{"clusters": ["a"], "stale_after": "5s"}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)); checked(h) }, nil},
		{"an age of no host", `{"clusters": ["a"], "stale_after": "5s"}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			g.Answer()
			h.setCluster("a", policy.Counts{})
		}, nil},
		{"a drain that can't be seen", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			checked(h)
			unseen(h, g)
		}, []string{"server.live reads 0 and never was 1", "server.state", "stats_config.stats_matcher", "envoy.stats_matcher", "drain: ignore"}},
		{"a drain that need not be seen", `{"clusters": ["a"], "drain": "ignore"}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			checked(h)
			unseen(h, g)
		}, nil},
		{"a drain that Envoy was started with", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			checked(h)
			unseen(h, g)
			h.set(envoystats.ServerState, 1)
		}, nil},
		{"a drain", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			checked(h)
			h.set(envoystats.ServerLive, 0)
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines := warned(t, test.text, test.meanwhile)
			if len(lines) != min(len(test.want), 1) {
				t.Fatalf("got %q, want parts %q", lines, test.want)
			}
			for _, part := range test.want {
				if !strings.Contains(lines[0], part) {
					t.Errorf("%q lacks %q", lines[0], part)
				}
			}
		})
	}
}

// unknownSource knows that no cluster is there.
type unknownSource struct{}

func (unknownSource) Sample(time.Time, int) policy.Sample { return policy.Sample{Unknown: true} }

func TestClusterThatIsNotThereIsWarnedOf(t *testing.T) {
	h := newFakeHost()
	New(decode(t, `{"clusters": ["a"]}`), 0, unknownSource{}, h, &Process{}).warnOfNoHost(0)
	if len(h.lines) != 1 || !strings.Contains(h.lines[0], `Envoy has no cluster "a", so it fails`) {
		t.Errorf("got %q", h.lines)
	}
}

// staleSource is a source that could not look.
type staleSource struct{}

func (staleSource) Sample(time.Time, int) policy.Sample { return policy.Sample{Stale: true} }

func TestSourceThatCouldNotLookIsNotTakenForAnEmptyCluster(t *testing.T) {
	h := newFakeHost()
	New(decode(t, `{"clusters": ["a"]}`), 0, staleSource{}, h, &Process{}).warnOfNoHost(0)
	if len(h.lines) != 0 {
		t.Errorf("got %q", h.lines)
	}
}

func TestWarningIsSaidOnceInAProcess(t *testing.T) {
	h := newFakeHost()
	h.set(envoystats.ServerLive, 0)
	var process Process
	for range 3 {
		g := newGateIn(decode(t, `{"clusters": ["a"]}`), h, &process)
		g.warnOfDrain()
		g.warnOfNoHost(0)
	}
	newGateIn(decode(t, `{"clusters": ["a"], "stat_prefix": "another"}`), h, &process).warnOfNoHost(0)
	if len(h.lines) != 3 {
		t.Errorf("got %q, want a line of the drain, and one of each gate's cluster", h.lines)
	}
}

// Configurations that come more often than a warning takes must not put it off for ever.
func TestWarningIsNotPutOffByConfigurationsThatCome(t *testing.T) {
	h := newFakeHost()
	var process Process
	after := func(text string) (all []time.Duration) {
		for _, warning := range newGateIn(decode(t, text), h, &process).Warnings() {
			all = append(all, warning.After)
		}
		return all
	}
	const second = time.Second
	for _, step := range []struct {
		at         time.Duration
		staleAfter string
		want       []time.Duration // of the drain, of hosts, of checks
	}{
		{0, "0s", []time.Duration{30 * second, 30 * second, 30 * second}},
		{20 * second, "0s", []time.Duration{10 * second, 10 * second, 10 * second}},
		{29 * second, "90s", []time.Duration{1 * second, 1 * second, 61 * second}}, // an age is judged after stale_after
		{40 * second, "5s", []time.Duration{1 * second, 1 * second, 1 * second}},
	} {
		h.now = epoch.Add(step.at)
		if got := after(`{"clusters": ["a"], "stale_after": "` + step.staleAfter + `"}`); !slices.Equal(got, step.want) {
			t.Errorf("after %v: got %v, want %v", step.at, got, step.want)
		}
	}
	// A host that has shown itself is waited for anew.
	h.setCluster("a", of(1, 0, 1))
	newGateIn(decode(t, `{"clusters": ["a"]}`), h, &process).Answer()
	if got := after(`{"clusters": ["a"]}`); got[1] != 30*second {
		t.Errorf("with a host seen between: got %v, want 30s for hosts", got)
	}
}
