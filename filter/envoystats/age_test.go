package envoystats

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

func TestSourceIsStaleOnceHealthChecksStop(t *testing.T) {
	h := newFakeStats()
	h.setHosts(1)
	source := h.newSource(3*time.Second, &Ages{}, epoch)
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
			h.number("cluster.a.health_check.attempt").value++
		}
		h.setHosts(step.hosts)
		if got := source.Sample(after(step.at), 0).Stale; got != step.want {
			t.Errorf("at %vs: got stale %v, want %v", step.at, got, step.want)
		}
	}
}

// Updates more frequent than stale_after must not keep a cluster fresh.
func TestAgeOutlivesConfigurations(t *testing.T) {
	for _, closes := range []bool{true, false} {
		t.Run(fmt.Sprint("closed ", closes), func(t *testing.T) {
			h := newFakeStats()
			h.setHosts(1)
			h.setAttempts(7)
			var ages Ages
			for at := range 10 {
				source := h.newSource(5*time.Second, &ages, after(float64(at)))
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

// A counter is reset with its cluster, when that is removed and added again, and by /reset_counters.
func TestResetOfACounterIsAChange(t *testing.T) {
	h := newFakeStats()
	h.setHosts(1)
	h.setAttempts(1000)
	source := h.newSource(3*time.Second, &Ages{}, epoch)
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
		h.setAttempts(step.attempts)
		if got := source.Sample(after(step.at), 0).Stale; got != step.stale {
			t.Errorf("at %vs: got stale %v, want %v", step.at, got, step.stale)
		}
	}
}

// A reader whose own stats matcher leaves out the counter always sees 0: it must not make the cluster fresh for others.
func TestZeroIsNoChange(t *testing.T) {
	h, filtered := newFakeStats(), newFakeStats()
	for _, host := range []*fakeStats{h, filtered} {
		host.setHosts(1)
	}
	h.setAttempts(1000)
	var ages Ages
	first := h.newSource(3*time.Second, &ages, epoch)
	other := filtered.newSource(3*time.Second, &ages, after(2))
	for at := 0.0; at < 4; at += 0.5 {
		first.Sample(after(at), 0)
		other.Sample(after(at), 0)
	}
	if !other.Sample(after(4), 0).Stale || !first.Sample(after(4), 0).Stale {
		t.Error("a reader that sees 0 has made the cluster fresh")
	}
}

// While a process is stopped (SIGSTOP, the cgroup freezer, a migration) Envoy checks nothing, and nothing reads the counter.
func TestTimeWhileTheProcessIsStoppedDoesNotCount(t *testing.T) {
	h := newFakeStats()
	h.setHosts(1)
	h.setAttempts(7)
	source := h.newSource(5*time.Second, &Ages{}, epoch)
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

// A control plane may use new names for ever. The ages without readers are bounded: the ones unregistered last are kept.
func TestUnusedAgesAreBounded(t *testing.T) {
	var a Ages
	held := a.register("held", after(0), 1)
	first := a.register("first", after(0), 1)
	first.unregister()
	for i := range 2 * maxUnusedAges {
		a.register(strconv.Itoa(i), after(1), 1).unregister()
		if i < maxUnusedAges-1 { // used again and again, it is not the oldest
			a.register("again", after(1), 1).unregister()
		}
	}
	if len(a.byName) != maxUnusedAges+1 || a.unused.Len() != maxUnusedAges {
		t.Errorf("after %d names %d are kept, %d of them idle, want %d", 2*maxUnusedAges, len(a.byName), a.unused.Len(), maxUnusedAges)
	}
	for at := range 9 {
		held.Read(after(float64(at)), 1)
	}
	if got := a.register("held", after(9), 1); got != held || got.Read(after(9), 1) != 9*time.Second {
		t.Error("an age with a reader is forgotten")
	}
	for _, test := range []struct {
		name string
		want time.Duration
	}{ // the ones that are kept first: each new one makes another one forgotten
		{strconv.Itoa(maxUnusedAges), 8 * time.Second}, {strconv.Itoa(2*maxUnusedAges - 1), 8 * time.Second}, {strconv.Itoa(maxUnusedAges - 1),
			0}, {"first", 0}, {"again", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := a.register(test.name, after(9), 1)
			defer m.unregister()
			if got := m.Read(after(9), 1); got != test.want {
				t.Errorf("its age is %v, want %v", got, test.want)
			}
		})
	}
}
