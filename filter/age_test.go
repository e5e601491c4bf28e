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

// A counter begins anew when its cluster is removed and added again, and when an operator resets Envoy's counters.
func TestCounterThatBeginsAnewHasChanged(t *testing.T) {
	h := newFakeHost()
	h.setCluster("a", of(1, 0, 1))
	attempts := h.Counter("cluster.a.health_check.attempt").(*number)
	attempts.Record(1000)
	source := NewStatsSource(aged(t, "3s"), h, &Process{}, epoch)
	for _, step := range []struct {
		at       float64
		attempts uint64
		stale    bool
	}{
		{2, 1000, false},
		{3.1, 1000, true},
		{4, 0, true}, // no check yet
		{5, 1, false},
		{7, 1, false},
		{8, 1, false},
		{8.1, 1, true},
		{9, 2, false},
	} {
		attempts.Record(step.attempts)
		if got := source.Sample(after(step.at), 0).Stale; got != step.stale {
			t.Errorf("at %vs: got stale %v, want %v", step.at, got, step.stale)
		}
	}
}

// A reader whose own stats matcher leaves the counter out sees 0 for ever: it must not make the cluster fresh for others.
func TestReaderThatSeesNothingChangesNoAge(t *testing.T) {
	h, filtered := newFakeHost(), newFakeHost()
	for _, host := range []*fakeHost{h, filtered} {
		host.setCluster("a", of(1, 0, 1))
	}
	h.Counter("cluster.a.health_check.attempt").(*number).Record(1000)
	var process Process
	first := NewStatsSource(aged(t, "3s"), h, &process, epoch)
	other := NewStatsSource(aged(t, "3s"), filtered, &process, after(2))
	for at := 0.0; at < 4; at += 0.5 {
		first.Sample(after(at), 0)
		other.Sample(after(at), 0)
	}
	if !other.Sample(after(4), 0).Stale || !first.Sample(after(4), 0).Stale {
		t.Error("a reader that sees nothing has made the cluster fresh")
	}
}

// While a process is stopped (SIGSTOP, the cgroup freezer, a migration) nothing is checked, and nothing reads the counter.
func TestTimeForWhichTheProcessWasStoppedDoesNotCount(t *testing.T) {
	h := newFakeHost()
	h.setCluster("a", of(1, 0, 1))
	h.Counter("cluster.a.health_check.attempt").(*number).Record(7)
	source := NewStatsSource(aged(t, "5s"), h, &Process{}, epoch)
	at := 0.0
	read := func(until float64) (stale bool) {
		for ; at <= until; at += 0.5 {
			stale = source.Sample(after(at), 0).Stale
		}
		return stale
	}
	if read(2) {
		t.Error("stale after 2s")
	}
	at += 60 // stopped
	if read(65) {
		t.Error("stale though it was read for 4.5s only")
	}
	if !read(66) {
		t.Error("not stale, though it was read for 5.5s without a change")
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
	for at := range 9 {
		held.age(after(float64(at)), 1)
	}
	if got := a.join("held", after(9), 1); got != held || got.age(after(9), 1) != 9*time.Second {
		t.Error("a name that somebody reads is forgotten")
	}
	for _, test := range []struct {
		name string
		want time.Duration
	}{ // those that are kept first: each that is made anew has another forgotten
		{strconv.Itoa(most), 8 * time.Second}, {strconv.Itoa(2*most - 1), 8 * time.Second}, {strconv.Itoa(most - 1), 0}, {"first", 0}, {"again", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := a.join(test.name, after(9), 1)
			defer m.leave()
			if got := m.age(after(9), 1); got != test.want {
				t.Errorf("its age is %v, want %v", got, test.want)
			}
		})
	}
}
