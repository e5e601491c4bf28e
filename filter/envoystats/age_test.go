package envoystats

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

func TestSourceIsStaleOnceHealthChecksStop(t *testing.T) {
	type step struct {
		at              float64 // seconds
		attempts, hosts uint64
		want            bool
	}
	for name, steps := range map[string][]step{
		"checks stop for more than 3s": {
			{0, 0, 1, false}, {3, 0, 1, false}, {3.1, 0, 1, true}, {3.2, 0, 0, false}, // no host, nothing to check
			{3.3, 0, 1, true}, {5, 1, 1, false}, {8, 1, 1, false}, {8.1, 1, 1, true}, {20, 2, 1, false},
		},
		// With its cluster, when that is removed and added again, and by /reset_counters.
		"a reset of the counter is a change": {
			{0, 1000, 1, false}, {2, 1000, 1, false}, {3.1, 1000, 1, true}, {4, 0, 1, true}, // no check yet
			{5, 1, 1, false}, {7, 1, 1, false}, {8, 1, 1, false}, {8.1, 1, 1, true}, {9, 2, 1, false},
		},
		"after a reset the same number of checks is a change": {
			{0, 0, 1, false}, {1, 1, 1, false}, {2, 0, 1, false}, {3, 1, 1, false}, {6, 1, 1, false}, {6.1, 1, 1, true},
			{7, 0, 1, true}, {8, 0, 1, true}, {9, 1, 1, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeStats()
			h.setAttempts(steps[0].attempts)
			source := h.newSource(3*time.Second, &Ages{}, epoch)
			for _, step := range steps {
				h.setAttempts(step.attempts)
				h.setHosts(step.hosts)
				if got := source.Sample(after(step.at), 0).Stale; got != step.want {
					t.Errorf("at %vs: got stale %v, want %v", step.at, got, step.want)
				}
			}
		})
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

// A control plane may use new names for ever.
func TestUnusedAgesAreBounded(t *testing.T) {
	var a Ages
	held := a.register("held", after(0), 1)
	const names = 3*maxUnusedAges + maxUnusedAges/2
	for i := range names {
		a.register(strconv.Itoa(i), after(1), 1).unregister()
		a.register("again", after(1), 1).unregister() // used again and again, it is one age
		if len(a.byName) > maxUnusedAges+1 {
			t.Fatalf("after %d names %d are kept", i, len(a.byName))
		}
	}
	for at := range 9 {
		held.read(after(float64(at)), 1)
	}
	if got := a.register("held", after(9), 1); got != held || got.read(after(9), 1) != 9*time.Second {
		t.Error("an age with a reader is forgotten")
	}
	last := a.register(strconv.Itoa(names-1), after(9), 1)
	if got := last.read(after(9), 1); got != 8*time.Second {
		t.Errorf("the age without a reader is %v", got)
	}
}
