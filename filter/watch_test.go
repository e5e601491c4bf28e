package filter

import (
	"fmt"
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
	g.Answer()
	h.setCluster("a", of(0, 0, 1))
	for at := range 5 {
		h.now = epoch.Add(time.Duration(at) * time.Second)
		g.Watch()
	}
	if r := g.Answer(); r.Details != "healthgate_cluster_unhealthy" {
		t.Errorf("got %s, want healthgate_cluster_unhealthy", r.Details)
	}
	if got := fmt.Sprint(h.counted()); got != "[failed=1 failed_cluster_unhealthy=1 ok=1 transitions=1]" {
		t.Errorf("got counters %s", got)
	}
}

// A gate that no probe has come to may be of a listener that is still warming, beside one that serves.
func TestGateWithoutAProbeWritesNothing(t *testing.T) {
	h := newFakeHost()
	g := newGate(t, h, `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`)
	for at := range 5 {
		h.now = epoch.Add(time.Duration(at) * time.Second)
		h.setCluster("a", of(uint64(at%2), 0, 1))
		g.Watch()
	}
	if len(h.lines) != 0 || len(h.counted()) != 0 {
		t.Errorf("it logged %q and counted %v", h.lines, h.counted())
	}
	g.Answer()
	if len(h.lines) != 1 {
		t.Errorf("its first probe logged %q", h.lines)
	}
}
