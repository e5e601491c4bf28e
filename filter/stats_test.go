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
		t.Run(name, func(t *testing.T) {
			stats := &namedStats{}
			NewStatsSource(&Config{Policy: Policy{Clusters: []Cluster{{StatName: name}}}}, stats, &Process{}, time.Time{})
			if stats.names[0] != want {
				t.Errorf("got %s, want %s", stats.names[0], want)
			}
		})
	}
}

// namedStats remembers which stats were asked for.
type namedStats struct{ names []string }

func (s *namedStats) Gauge(name string) Value {
	s.names = append(s.names, name)
	return &number{}
}
func (s *namedStats) Counter(name string) Value { return s.Gauge(name) }

// of is a cluster's counts.
func of(healthy, degraded, total uint64) Counts {
	return Counts{Healthy: healthy, Degraded: degraded, Total: total}
}
