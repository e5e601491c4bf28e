package filter

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestGateIsWatchedOnlyWhereItHasToBe(t *testing.T) {
	for more, want := range map[string]time.Duration{
		``:                                    0,
		`, "response": {"details": true}`:     0,
		`, "hold": {"unhealthy_after": "2s"}`: 500 * time.Millisecond,
		`, "hold": {"healthy_after": "2s"}`:   500 * time.Millisecond,
		`, "hold": {"unhealthy_after": "60s", "healthy_after": "0.01s"}`:      50 * time.Millisecond,
		`, "hold": {"unhealthy_after": "0.01s", "healthy_after": "60s"}`:      50 * time.Millisecond,
		`, "hold": {"unhealthy_after": "0.000000001s"}`:                       50 * time.Millisecond,
		`, "stale_after": "60s"`:                                              time.Second,
		`, "stale_after": "1s", "hold": {"healthy_after": "3s"}`:              250 * time.Millisecond,
		`, "stale_after": "3s", "hold": {"healthy_after": "1s"}`:              250 * time.Millisecond,
		`, "source": "admin", "admin": {"address": "unix:///run/admin.sock"}`: time.Second,
	} {
		t.Run(more, func(t *testing.T) {
			g := newGate(t, newFakeHost(), `{"clusters": ["a"]`+more+`}`)
			if got := g.WatchEvery(); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestWatchedGateMovesWithoutAProbe(t *testing.T) {
	h := newFakeHost()
	g := newGate(t, h, `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`)
	h.setCluster("a", of(1, 0, 1))
	g.Watch()
	h.setCluster("a", of(0, 0, 1))
	for at := range 5 {
		h.now = epoch.Add(time.Duration(at) * time.Second)
		g.Watch()
	}
	if r := g.Answer(); r.Details != "healthgate_cluster_unhealthy" {
		t.Errorf("got %s, want healthgate_cluster_unhealthy", r.Details)
	}
	if got := fmt.Sprint(h.counted()); got != "[failed=1 failed_cluster_unhealthy=1 transitions=1]" {
		t.Errorf("got counters %s; a look is no answer", got)
	}
}

// warned are the warnings of a gate, after some time that a test fills.
func warned(t *testing.T, text string, meanwhile func(*fakeHost, *Gate)) []string {
	t.Helper()
	h := newFakeHost()
	g := newGate(t, h, text)
	meanwhile(h, g)
	h.lines = nil
	h.now = after(60)
	for _, warning := range g.Warnings() {
		warning.Check()
	}
	return h.lines
}

func TestWarnings(t *testing.T) {
	checked := func(h *fakeHost) { h.Counter("cluster.a.health_check.attempt").(*number).Increment(1) }
	for _, test := range []struct {
		name, text string
		meanwhile  func(*fakeHost, *Gate)
		want       []string // parts of the one line that is wanted; none for no line
	}{
		{"all is well", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)); checked(h) }, nil},
		{"no host", `{"clusters": ["a"]}`, func(*fakeHost, *Gate) {},
			[]string{`warn: healthgate: gate default: cluster "a" has shown no host yet`, "clusters[0].stat_name", "cluster.a.membership_total", "envoy.stats_matcher"}},
		{"no host now, but there was one", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			g.Answer()
			h.setCluster("a", Counts{})
		}, nil},
		{"never checked", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)) },
			[]string{`cluster "a" has hosts, and Envoy has checked none of them: each counts as healthy`, "health_checks", "cluster.a.health_check.attempt"}},
		{"an age that can't be told", `{"clusters": ["a"], "stale_after": "5s"}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)) },
			[]string{`cluster "a" fails by stale_after (5s)`, "health_checks", "no_traffic_interval, 60s", "cluster.a.health_check.attempt"}},
		{"an age that can be told", `{"clusters": ["a"], "stale_after": "5s"}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)); checked(h) }, nil},
		{"an age of no host", `{"clusters": ["a"], "stale_after": "5s"}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			g.Answer()
			h.setCluster("a", Counts{})
		}, nil},
		{"a drain that can't be seen", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			checked(h)
			h.set(serverLive, 0)
			g.liveness.seen.Store(false)
		}, []string{"server.live reads 0 and never was 1", "stats_config.stats_matcher", "envoy.stats_matcher", "drain: ignore"}},
		{"a drain that need not be seen", `{"clusters": ["a"], "drain": "ignore"}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			checked(h)
			h.set(serverLive, 0)
			g.liveness.seen.Store(false)
		}, nil},
		{"a drain that Envoy was started with", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) {
			h.setCluster("a", of(1, 0, 1))
			checked(h)
			h.set(serverLive, 0)
			h.set(serverState, serverDraining)
			g.liveness.seen.Store(false)
		}, nil},
		{"a drain", `{"clusters": ["a"]}`, func(h *fakeHost, g *Gate) { h.setCluster("a", of(1, 0, 1)); checked(h); h.set(serverLive, 0) }, nil},
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

func (unknownSource) Sample(time.Time, int) Sample { return Sample{Unknown: true} }

func TestClusterThatIsNotThereIsWarnedOf(t *testing.T) {
	h := newFakeHost()
	NewGate(decoded(t, `{"clusters": ["a"]}`), unknownSource{}, h, &Process{}).warnOfClusters()
	if len(h.lines) != 1 || !strings.Contains(h.lines[0], `cluster "a" is not there, so it fails`) {
		t.Errorf("got %q", h.lines)
	}
}

func TestDrainThatCantBeSeenIsWarnedOfOnceInAProcess(t *testing.T) {
	h := newFakeHost()
	h.set(serverLive, 0)
	var process Process
	for range 3 {
		newGateIn(decoded(t, `{"clusters": ["a"]}`), h, &process).warnOfDrain()
	}
	if len(h.lines) != 1 {
		t.Errorf("got %q, want one line", h.lines)
	}
}

// An age is judged only when as much time has gone by as the configuration allows it.
func TestAgeIsWarnedOfAfterStaleAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{"5s": 30 * time.Second, "90s": 90 * time.Second} {
		g := newGate(t, newFakeHost(), `{"clusters": ["a"], "stale_after": "`+text+`"}`)
		all := g.Warnings()
		if got := all[len(all)-1].After; len(all) != 3 || got != want {
			t.Errorf("%s: got %d warnings, the last after %v, want 3 and %v", text, len(all), got, want)
		}
	}
}
