package envoystats

import (
	"time"

	"healthgate/filter/policy"
)

// epoch is when a test starts.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func after(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// number is a stat whose value a test sets.
type number struct {
	value uint64
	gone  bool // Envoy has destroyed its configuration
}

func (n *number) Get() uint64 {
	if n.gone {
		panic("gone")
	}
	return n.value
}

// fakeStats are the stats of an Envoy. It records the names that were asked for.
type fakeStats struct {
	stats map[string]*number
	names []string
}

func newFakeStats() *fakeStats {
	s := &fakeStats{stats: map[string]*number{}}
	s.set(ServerLive, 1)
	return s
}

func (s *fakeStats) number(name string) *number {
	if s.stats[name] == nil {
		s.stats[name] = &number{}
	}
	return s.stats[name]
}

func (s *fakeStats) Gauge(name string) Value {
	s.names = append(s.names, name)
	return s.number(name)
}

func (s *fakeStats) Counter(name string) Value { return s.Gauge(name) }

func (s *fakeStats) set(name string, value uint64) { s.number(name).value = value }

// setHosts makes all hosts of the cluster a healthy.
func (s *fakeStats) setHosts(hosts uint64) {
	s.set("cluster.a.membership_healthy", hosts)
	s.set("cluster.a.membership_total", hosts)
}

func (s *fakeStats) setAttempts(attempts uint64) { s.set("cluster.a.health_check.attempt", attempts) }

// newSource returns a source of the cluster a.
func (s *fakeStats) newSource(staleAfter time.Duration, ages *Ages, now time.Time) *Source {
	return NewSource([]policy.Cluster{{Name: "a", StatName: "a"}}, staleAfter, s, ages, now)
}
