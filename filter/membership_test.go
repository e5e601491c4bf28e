package filter

import (
	"testing"
	"time"
)

// The gauges that are wanted here were read off a real Envoy; e2e's tests read them there.
func TestGaugesAreNamedAsEnvoyNamesThem(t *testing.T) {
	for name, want := range map[string]string{
		"service":                  "cluster.service.membership_healthy",
		"a.b":                      "cluster.a.b.membership_healthy",
		"outbound|80||a:v1":        "cluster.outbound|80||a_v1.membership_healthy",
		"http://service.local:80":  "cluster.http_service.local_80.membership_healthy",
		"a:/b":                     "cluster.a_b.membership_healthy",
		"a::b":                     "cluster.a__b.membership_healthy",
		"a\x00b":                   "cluster.a_b.membership_healthy",
		".a":                       "cluster..a.membership_healthy",
		"a.":                       "cluster.a.membership_healthy",
		"a..":                      "cluster.a.membership_healthy",
		"a.:":                      "cluster.a._.membership_healthy",
		"xds:///eds.authority/a:b": "cluster.xds_/eds.authority/a_b.membership_healthy",
	} {
		stats := &namedStats{}
		NewStatsSource(&Config{Clusters: []Cluster{{StatName: name}}}, stats, time.Time{})
		if stats.names[0] != want {
			t.Errorf("%q: got %s, want %s", name, stats.names[0], want)
		}
	}
}

// namedStats remembers which stats were asked for.
type namedStats struct{ names []string }

func (s *namedStats) Gauge(name string) Value {
	s.names = append(s.names, name)
	return &number{}
}
func (s *namedStats) Counter(name string) Value { return s.Gauge(name) }

func TestSourceIsStaleOnceNobodyChecksAnyMore(t *testing.T) {
	h := newFakeHost()
	start := time.Now()
	source := NewStatsSource(&Config{StaleAfter: 3 * time.Second, Clusters: []Cluster{{StatName: "a"}}}, h, start)
	h.setCluster("a", of(1, 0, 1))
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
		sample := source.Sample(start.Add(time.Duration(step.at*float64(time.Second))), 0)
		if sample.Stale != step.want {
			t.Errorf("at %vs: got stale %v, want %v", step.at, sample.Stale, step.want)
		}
	}
}

func TestDrainingIsNoticedOnlyWhereLiveWasSeen(t *testing.T) {
	var l Liveness
	for i, step := range []struct {
		live uint64
		want bool
	}{
		{0, false}, // the gauge is not kept, for all that is known
		{1, false},
		{0, true},
		{1, false},
		{0, true},
	} {
		if got := l.Draining(step.live); got != step.want {
			t.Errorf("step %d, live %d: got %v, want %v", i, step.live, got, step.want)
		}
	}
}

// of is a cluster's counts.
func of(healthy, degraded, total uint64) Counts {
	return Counts{Healthy: healthy, Degraded: degraded, Total: total}
}
