package filter

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// aged is a configuration that asks for an age.
func aged(t *testing.T, staleAfter string) *Config {
	t.Helper()
	return decoded(t, `{"clusters": ["a"], "stale_after": "`+staleAfter+`"}`)
}

func after(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

func TestSourceIsStaleOnceNobodyChecksAnyMore(t *testing.T) {
	h := newFakeHost()
	h.setCluster("a", of(1, 0, 1))
	source := NewStatsSource(aged(t, "3s"), h, &Process{}, epoch)
	attempts := h.Counter("cluster.a.health_check.attempt").(*number)
	for _, step := range []struct {
		at      float64 // seconds
		attempt bool
		hosts   uint64
		want    bool
	}{
		{0, false, 1, false},
		{3, false, 1, false}, // exactly as old as allowed
		{3.1, false, 1, true},
		{3.2, false, 0, false}, // no host, nothing to check
		{3.3, false, 1, true},
		{5, true, 1, false},
		{8, false, 1, false},
		{8.1, false, 1, true},
		{20, true, 1, false},
	} {
		if step.attempt {
			attempts.Increment(1)
		}
		h.setCluster("a", of(step.hosts, 0, step.hosts))
		if got := source.Sample(after(step.at), 0).Stale; got != step.want {
			t.Errorf("at %vs: got stale %v, want %v", step.at, got, step.want)
		}
	}
}

// Configurations that come more often than stale_after must not keep a cluster fresh for ever.
func TestAgeOutlivesTheConfigurationThatSawIt(t *testing.T) {
	for _, closes := range []bool{true, false} {
		t.Run(fmt.Sprint("closed ", closes), func(t *testing.T) {
			h := newFakeHost()
			h.setCluster("a", of(1, 0, 1))
			h.Counter("cluster.a.health_check.attempt").(*number).Increment(7)
			var process Process
			for at := range 10 {
				source := NewStatsSource(aged(t, "5s"), h, &process, after(float64(at)))
				if stale := source.Sample(after(float64(at)), 0).Stale; stale != (at > 5) {
					t.Errorf("at %ds: got stale %v", at, stale)
				}
				if closes {
					source.Close()
				}
			}
		})
	}
}

func TestCounterThatBeginsAnewHasMoved(t *testing.T) {
	h := newFakeHost()
	h.setCluster("a", of(1, 0, 1))
	attempts := h.Counter("cluster.a.health_check.attempt").(*number)
	attempts.Increment(1000)
	var process Process
	first := NewStatsSource(aged(t, "3s"), h, &process, epoch)

	// While somebody holds the counter, a lower value is that of a reader whose stats are filtered.
	filtered := newFakeHost()
	filtered.setCluster("a", of(1, 0, 1))
	other := NewStatsSource(aged(t, "3s"), filtered, &process, after(2))
	if !other.Sample(after(4), 0).Stale || !first.Sample(after(4), 0).Stale {
		t.Error("a reader that sees nothing has made the cluster fresh")
	}
	other.Close()
	first.Close()

	// Nobody does: Envoy has dropped it with the cluster, and made it anew.
	attempts.Record(3)
	again := NewStatsSource(aged(t, "3s"), h, &process, after(10))
	if again.Sample(after(13), 0).Stale || !again.Sample(after(13.1), 0).Stale {
		t.Error("the age does not begin with the new counter")
	}
	attempts.Increment(1)
	if again.Sample(after(14), 0).Stale {
		t.Error("the new counter has moved, and is not seen to")
	}
}

// A control plane may come with new names for ever. What nobody reads is kept for a bounded number of names, those that were
// left last; what somebody reads is always kept.
func TestAgesOfNamesThatNobodyReadsAreBounded(t *testing.T) {
	var a ages
	held := a.join("held", after(0), 1)
	first := a.join("first", after(0), 1)
	first.leave()
	for i := range 2 * most {
		a.join(strconv.Itoa(i), after(1), 1).leave()
		if i < most-1 { // read again and again, it is not the one that was left first
			a.join("again", after(1), 1).leave()
		}
	}
	if len(a.byName) != most+1 || a.idle.Len() != most {
		t.Errorf("after %d names %d are kept, %d of them idle, want %d", 2*most, len(a.byName), a.idle.Len(), most)
	}
	if got := a.join("held", after(9), 1); got != held || got.age(after(9), 1) != 9*time.Second {
		t.Error("a name that somebody reads is forgotten")
	}
	for name, want := range map[string]time.Duration{"first": 0, "again": 0, strconv.Itoa(most - 1): 0, strconv.Itoa(most): 8 * time.Second, strconv.Itoa(2*most - 1): 8 * time.Second} {
		t.Run(name, func(t *testing.T) {
			m := a.join(name, after(9), 1)
			defer m.leave()
			if got := m.age(after(9), 1); got != want {
				t.Errorf("its age is %v, want %v", got, want)
			}
		})
	}
}
