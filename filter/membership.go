package filter

import (
	"strings"
	"sync/atomic"
)

// Counts is one cluster's membership at one moment, as Envoy counts it.
type Counts struct {
	Healthy  uint64 // hosts that are healthy, not counting the degraded
	Degraded uint64 // hosts that can serve, but said that they would rather not
	Total    uint64 // all hosts, with those that are unhealthy or excluded; 0 for a cluster that Envoy does not know
}

// Gauge is a number of Envoy's, read where Envoy keeps it.
type Gauge interface{ Get() uint64 }

// Gauges are one cluster's membership, live.
type Gauges struct{ Healthy, Degraded, Total Gauge }

// Counts reads the cluster's membership now. The three reads are not one: a host that changes between them is counted
// before, after, or for an instant on both sides, as it is for Envoy's own health_check filter.
func (g Gauges) Counts() Counts {
	return Counts{Healthy: g.Healthy.Get(), Degraded: g.Degraded.Get(), Total: g.Total.Get()}
}

// The names of the gauges of a cluster and of the server, as Envoy v1.39.1 makes them: in
// source/common/upstream/upstream_impl.cc, envoy/upstream/upstream.h and envoy/server/instance.h.
const (
	membershipHealthy  = "membership_healthy"
	membershipDegraded = "membership_degraded"
	membershipTotal    = "membership_total"

	// LiveStat is 1 while Envoy wants traffic and 0 after it was told to fail its health checks.
	LiveStat = "server.live"
)

// DefineGauges finds the gauges of the cluster whose stats have the given name. define must return the gauge of exactly
// the name it is given, from Envoy's root scope.
func DefineGauges(statName string, define func(name string) Gauge) Gauges {
	scope := statScope(statName)
	return Gauges{
		Healthy:  define(scope + membershipHealthy),
		Degraded: define(scope + membershipDegraded),
		Total:    define(scope + membershipTotal),
	}
}

// statScope is what the names of a cluster's stats begin with, its last dot included: what generateStatsScope in
// source/common/upstream/upstream_impl.cc makes. Characters are replaced as by Stats::Utility::sanitizeStatsName, and
// every dot at the end is dropped, as seen in Envoy v1.39.1; a dot at the beginning of the name stays.
func statScope(statName string) string {
	return strings.TrimRight("cluster."+sanitizer.Replace(statName), ".") + "."
}

var sanitizer = strings.NewReplacer("://", "_", ":/", "_", ":", "_", "\x00", "_")

// Liveness tells draining from a gauge that can't be read. Envoy's LiveStat is 0 while draining, and also for ever where
// the stats are configured to leave it out; in a process that has seen it at 1, 0 means draining. One Liveness serves a
// process: a gate made during a drain has not seen the 1 itself.
type Liveness struct{ seen atomic.Bool }

// Draining takes the value of LiveStat and says whether Envoy is draining.
func (l *Liveness) Draining(live uint64) bool {
	if live == 0 {
		return l.seen.Load()
	}
	if !l.seen.Load() { // a store a probe would bounce the cache line between workers
		l.seen.Store(true)
	}
	return false
}
