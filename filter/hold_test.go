package filter

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func TestHoldTurnsOnlyAfterItsTimeWithoutABreak(t *testing.T) {
	hold := Hold{UnhealthyAfter: 3 * time.Second, HealthyAfter: 10 * time.Second}
	for name, steps := range map[string][]struct {
		at            float64 // seconds
		truth, answer bool
	}{
		"starts with the truth, passing": {{0, true, true}, {1, true, true}},
		"starts with the truth, failing": {{0, false, false}, {1, false, false}},
		"fails after its time":           {{0, true, true}, {1, false, true}, {3.9, false, true}, {4, false, false}, {5, false, false}},
		"a break starts it anew": {
			{0, true, true}, {1, false, true}, {3, true, true}, {3.5, false, true}, {6.4, false, true}, {6.5, false, false},
		},
		"passes after its own time":         {{0, false, false}, {1, true, false}, {10.9, true, false}, {11, true, true}},
		"a break on the way back":           {{0, false, false}, {1, true, false}, {10, false, false}, {11, true, false}, {20.9, true, false}, {21, true, true}},
		"after a turn the other time holds": {{0, true, true}, {1, false, true}, {4, false, false}, {5, true, false}, {14.9, true, false}, {15, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			var held Standing
			for _, step := range steps {
				held = hold.Observe(held, epoch.Add(time.Duration(step.at*float64(time.Second))), step.truth)
				if held.passing != step.answer {
					t.Errorf("at %vs with %v got %v, want %v", step.at, step.truth, held.passing, step.answer)
				}
			}
		})
	}
}

func TestHoldOfZeroIsTheTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var held Standing
	for i := range rounds {
		truth := r.IntN(2) == 0
		held = Hold{}.Observe(held, epoch.Add(time.Duration(i)), truth)
		if held.passing != truth {
			t.Fatalf("step %d: got %v, want %v", i, held.passing, truth)
		}
	}
}

// However the truth flaps, an answer changes only if the truth was the other one for all of the hold's time.
func TestHoldNeverTurnsEarly(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	hold := Hold{UnhealthyAfter: 5 * time.Second, HealthyAfter: 8 * time.Second}
	var held Standing
	now, truthSince, truth := epoch, epoch, true
	for i := range rounds {
		now = now.Add(time.Duration(r.Int64N(int64(4 * time.Second))))
		if next := r.IntN(4) > 0; next != truth {
			truth, truthSince = next, now
		}
		before := held
		held = hold.Observe(held, now, truth)
		if i == 0 || before.passing == held.passing {
			continue
		}
		wait := hold.UnhealthyAfter
		if held.passing {
			wait = hold.HealthyAfter
		}
		if held.passing != truth || now.Sub(truthSince) < wait {
			t.Fatalf("step %d: turned to %v, %v after the truth", i, held.passing, now.Sub(truthSince))
		}
	}
}

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
		h.set(serverLive, step.live)
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
		g.Watch()
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
		{"long after", text, 0, debounceKept + time.Second, "healthgate_cluster_unhealthy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, process := newFakeHost(), &Process{}
			h.setCluster("a", of(1, 0, 1))
			first := newGateIn(decoded(t, text), h, process)
			first.Answer()
			h.setCluster("a", of(0, 0, 1))
			first.Answer()
			h.now = h.now.Add(2 * time.Second)
			first.Answer()
			if test.closedFor >= 0 {
				first.Close()
			}
			h.now = h.now.Add(test.pause)
			if got := newGateIn(decoded(t, test.text), h, process).Answer().Details; got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// losableHost is a host whose gauges can't be written once Envoy has dropped the configuration.
type losableHost struct {
	*fakeHost
	lost *bool
}

type losableGauge struct {
	SettableGauge
	lost *bool
}

func (h losableHost) NewGauge(name string) SettableGauge {
	return losableGauge{h.fakeHost.NewGauge(name), h.lost}
}

func (g losableGauge) Record(value uint64) {
	if *g.lost {
		panic("the configuration is gone")
	}
	g.SettableGauge.Record(value)
}

// Envoy drops a filter's configuration with the gates of several routes, which share a stat prefix. A state that stayed behind
// would be the first one of every later gate, however old it is: the gate would pass again after each change of the routes.
func TestGatesOfADroppedConfigurationLeaveNoStateOfAHold(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`
	h, process, lost := newFakeHost(), &Process{}, false
	h.setCluster("a", of(1, 0, 1))
	older := newGateIn(decoded(t, text), h, process)
	host := losableHost{h, &lost}
	first, second := newGateIn(decoded(t, text), host, process), newGateIn(decoded(t, text), host, process)
	for _, g := range []*Gate{older, first, second} {
		g.Answer()
	}
	named(h.own, "healthgate.default.healthy").Record(0)
	lost = true
	first.Close()
	if named(h.own, "healthgate.default.healthy").Get() != 1 {
		t.Error("the gate that Envoy still has does not write the gauge")
	}
	second.Close()

	h.setCluster("a", of(0, 0, 1))
	older.Answer()
	h.now = h.now.Add(2 * time.Second)
	older.Answer()
	older.Close()
	if got := newGateIn(decoded(t, text), h, process).Answer().Details; got != "healthgate_cluster_unhealthy" {
		t.Errorf("got %s, want healthgate_cluster_unhealthy", got)
	}
}

func TestStatesOfHoldsAreForgotten(t *testing.T) {
	h, process := newFakeHost(), &Process{}
	for range 100 {
		for i := range 10 {
			newGateIn(decoded(t, fmt.Sprintf(`{"clusters": ["a"], "hold": {"unhealthy_after": "%ds"}}`, i+1)), h, process).Close()
		}
	}
	if n := len(process.holds.byDigest); n != 10 {
		t.Errorf("%d configurations have left a state, want 10", n)
	}
	h.now = h.now.Add(2 * debounceKept)
	newGateIn(decoded(t, `{"clusters": ["a"], "hold": {"unhealthy_after": "60s"}}`), h, process)
	if n := len(process.holds.byDigest); n != 1 {
		t.Errorf("%d states are kept, want that of the gate that lives", n)
	}
}
