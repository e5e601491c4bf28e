package gate

import (
	"fmt"
	"testing"
	"time"

	"healthgate/filter/envoystats"
)

func TestHeldAnswerSaysSoAndDrainingIsNeverHeldBack(t *testing.T) {
	h := newFakeHost()
	h.setCluster("a", of(1, 0, 1))
	g := newGate(t, h, `{"clusters": ["a"], "hold": {"unhealthy_after": "3s", "healthy_after": "10s"}}`)
	for i, step := range []struct {
		at      float64
		healthy uint64
		live    uint64
		status  int
		details string
	}{
		{0, 1, 1, 200, "healthgate_ok"},
		{1, 0, 1, 200, "healthgate_held"},
		{2, 0, 0, 503, "healthgate_draining"},
		{3, 0, 1, 200, "healthgate_held"},
		{4, 0, 1, 503, "healthgate_cluster_unhealthy"},
		{5, 1, 1, 503, "healthgate_held"},
		{15, 1, 1, 200, "healthgate_ok"},
	} {
		h.now = epoch.Add(time.Duration(step.at * float64(time.Second)))
		h.setCluster("a", of(step.healthy, 0, 1))
		h.set(envoystats.ServerLive, step.live)
		if r := g.Answer(); r.Status != step.status || r.Details != step.details {
			t.Errorf("step %d: got %d %s, want %d %s", i, r.Status, r.Details, step.status, step.details)
		}
	}
	want := "[failed=3 failed_cluster_unhealthy=1 failed_draining=1 ok=4 transitions=4]"
	if got := fmt.Sprint(h.counted()); got != want {
		t.Errorf("got counters %s, want %s", got, want)
	}
}

func TestStaleIsNotHeld(t *testing.T) {
	h := newFakeHost()
	h.setCluster("a", of(1, 0, 1))
	g := newGate(t, h, `{"clusters": ["a"], "hold": {"unhealthy_after": "60s"}, "stale_after": "5s"}`)
	for at := range 7 {
		h.now = epoch.Add(time.Duration(at) * time.Second)
		g.Evaluate()
	}
	if r := g.Answer(); r.Status != 503 || r.Details != "healthgate_stale" {
		t.Errorf("got %d %s, want 503 healthgate_stale", r.Status, r.Details)
	}
}

// Envoy builds every override anew when anything in its route configuration changes.
func TestHoldGoesOnInTheNextGateWithTheSameConfiguration(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "10s"}}`
	for _, test := range []struct {
		name             string
		text             string
		closedFor, pause time.Duration // before the next gate is made; -1: the first one lives
		want             string
	}{
		{"at once", text, 0, 0, "healthgate_held"},
		{"beside the one before", text, -1, 0, "healthgate_held"},
		{"with the next probe", text, 0, 5 * time.Second, "healthgate_held"},
		{"when its time is over", text, 0, 8 * time.Second, "healthgate_cluster_unhealthy"},
		{"another configuration", `{"clusters": ["a"], "hold": {"unhealthy_after": "11s"}}`, 0, 0, "healthgate_cluster_unhealthy"},
		{"long after", text, 0, expireAfter + time.Second, "healthgate_cluster_unhealthy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, process := newFakeHost(), &Process{}
			h.setCluster("a", of(1, 0, 1))
			first := newGateIn(decode(t, text), h, process)
			first.Answer()
			h.setCluster("a", of(0, 0, 1))
			first.Answer()
			h.now = h.now.Add(2 * time.Second)
			first.Answer()
			if test.closedFor >= 0 {
				first.Close()
			}
			h.now = h.now.Add(test.pause)
			if got := newGateIn(decode(t, test.text), h, process).Answer().Details; got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// droppableHost is a host whose gauges cannot be written once Envoy has dropped the configuration.
type droppableHost struct {
	*fakeHost
	dropped *bool
}

type droppableGauge struct {
	SettableGauge
	dropped *bool
}

func (h droppableHost) NewGauge(name string) SettableGauge {
	return droppableGauge{h.fakeHost.NewGauge(name), h.dropped}
}

func (g droppableGauge) Record(value uint64) {
	if *g.dropped {
		panic("the configuration is dropped")
	}
	g.SettableGauge.Record(value)
}

// Envoy drops all gates of a filter's configuration at once, and they may share a stat prefix. Every later gate would begin with a hold
// state that stays registered, however old: the gate would pass again after each update of the routes.
func TestGatesOfADroppedConfigurationLeaveNoHoldState(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`
	h, process, dropped := newFakeHost(), &Process{}, false
	h.setCluster("a", of(1, 0, 1))
	older := newGateIn(decode(t, text), h, process)
	host := droppableHost{h, &dropped}
	first, second := newGateIn(decode(t, text), host, process), newGateIn(decode(t, text), host, process)
	for _, g := range []*Gate{older, first, second} {
		g.Answer()
	}
	named(h.own, "healthgate.default.healthy").Record(0)
	dropped = true
	first.Close()
	if named(h.own, "healthgate.default.healthy").Get() != 1 {
		t.Error("the gate that is not dropped does not write the gauge")
	}
	second.Close()

	h.setCluster("a", of(0, 0, 1))
	older.Answer()
	h.now = h.now.Add(2 * time.Second)
	older.Answer()
	older.Close()
	if got := newGateIn(decode(t, text), h, process).Answer().Details; got != "healthgate_cluster_unhealthy" {
		t.Errorf("got %s, want healthgate_cluster_unhealthy", got)
	}
}

func TestStatesOfHoldsAreForgotten(t *testing.T) {
	h, process := newFakeHost(), &Process{}
	for range 100 {
		for i := range 10 {
			newGateIn(decode(t, fmt.Sprintf(`{"clusters": ["a"], "hold": {"unhealthy_after": "%ds"}}`, i+1)), h, process).Close()
		}
	}
	if n := len(process.holds.byDigest); n != 10 {
		t.Errorf("%d configurations have left a state, want 10", n)
	}
	h.now = h.now.Add(2 * expireAfter)
	newGateIn(decode(t, `{"clusters": ["a"], "hold": {"unhealthy_after": "60s"}}`), h, process)
	if n := len(process.holds.byDigest); n != 1 {
		t.Errorf("%d states are kept, want that of the gate that lives", n)
	}
}

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
			if got := g.EvaluationInterval(); got != want {
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
		g.Evaluate()
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
		g.Evaluate()
	}
	if len(h.lines) != 0 || len(h.counted()) != 0 {
		t.Errorf("it logged %q and counted %v", h.lines, h.counted())
	}
	g.Answer()
	if len(h.lines) != 1 {
		t.Errorf("its first probe logged %q", h.lines)
	}
}
