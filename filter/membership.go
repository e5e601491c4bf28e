package filter

import (
	"strings"
	"sync/atomic"
	"time"
)

// Counts is one cluster's membership at one moment, as Envoy counts it.
type Counts struct {
	Healthy  uint64 // hosts that are healthy, not counting the degraded
	Degraded uint64 // hosts that can serve, but said that they would rather not
	Total    uint64 // all hosts, with those that are unhealthy or excluded; 0 for a cluster that Envoy does not know
	// Excluded are the hosts that Envoy leaves out of its panic threshold, such as new ones before their first check with
	// ignore_new_hosts_until_first_hc; they are in Total. A source may leave it 0 where the configuration counts them.
	Excluded uint64
}

// Sample is what a source says of one cluster at one moment.
type Sample struct {
	Counts
	// Stale says that the counts may no longer be true: nobody has looked for longer than the configuration allows.
	Stale bool
	// Unknown says that Envoy has no cluster of this name. Only a source that can tell sets it: Envoy's gauges can't.
	Unknown bool
}

// Source is where the health of a configuration's clusters comes from.
type Source interface {
	// Sample says how the i-th cluster of the configuration is. It neither waits nor allocates, and is safe for use from
	// any thread.
	Sample(now time.Time, i int) Sample
}

// HostSource is a Source that knows the hosts too.
type HostSource interface {
	// Hosts returns the hosts of the i-th cluster, as they were last seen. The result is shared: read it only.
	Hosts(i int) []HostState
}

// DrainSource is a Source that knows by itself whether Envoy is to fail its health checks.
type DrainSource interface {
	// Draining says whether Envoy was draining when the source last looked. It neither waits nor allocates, and is safe
	// for use from any thread.
	Draining() bool
}

// HostState is one host of a cluster, for a report.
type HostState struct {
	Address string `json:"address"` // ip:port, or a path
	Status  string `json:"status"`  // healthy, degraded, or why it is unhealthy
}

// Value is a stat of Envoy's, read where Envoy keeps it.
type Value interface{ Get() uint64 }

// Stats finds Envoy's own stats by exactly their names, in the root scope. They are only ever read.
type Stats interface {
	Gauge(name string) Value
	Counter(name string) Value
}

// statsSource reads Envoy's own gauges: the source stats.
type statsSource struct {
	clusters   []clusterStats
	staleAfter time.Duration
}

type clusterStats struct {
	healthy, degraded, total Value
	attempts                 Value // nil where no age is asked
	movement                 movement
}

// NewStatsSource finds the stats of a configuration's clusters. now is when that is.
func NewStatsSource(c *Config, stats Stats, now time.Time) Source {
	s := &statsSource{clusters: make([]clusterStats, len(c.Clusters)), staleAfter: c.StaleAfter}
	for i, cluster := range c.Clusters {
		scope := statScope(cluster.StatName)
		s.clusters[i].healthy = stats.Gauge(scope + membershipHealthy)
		s.clusters[i].degraded = stats.Gauge(scope + membershipDegraded)
		s.clusters[i].total = stats.Gauge(scope + membershipTotal)
		if s.staleAfter > 0 {
			s.clusters[i].attempts = stats.Counter(scope + healthCheckAttempt)
			s.clusters[i].movement.start(now, s.clusters[i].attempts.Get())
		}
	}
	return s
}

// Sample reads each gauge. The three of a cluster are not read at once: a host that changes between them is counted
// before, after, or for an instant on both sides, as it is for Envoy's own health_check filter.
func (s *statsSource) Sample(now time.Time, i int) Sample {
	c := &s.clusters[i]
	sample := Sample{Counts: Counts{Healthy: c.healthy.Get(), Degraded: c.degraded.Get(), Total: c.total.Get()}}
	if c.attempts != nil {
		age := c.movement.age(now, c.attempts.Get())
		// Nothing is checked where there are no hosts, and nothing about their health can be stale.
		sample.Stale = age > s.staleAfter && sample.Total > 0
	}
	return sample
}

// movement notices when a counter stops. Its methods are safe for use from any thread.
type movement struct {
	last    atomic.Uint64
	movedAt atomic.Int64 // nanoseconds since began
	began   time.Time
}

func (m *movement) start(now time.Time, value uint64) {
	m.began = now
	m.last.Store(value)
}

// age returns for how long the counter has stood still.
func (m *movement) age(now time.Time, value uint64) time.Duration {
	at := int64(now.Sub(m.began))
	if m.last.Swap(value) != value {
		m.movedAt.Store(at)
		return 0
	}
	return time.Duration(at - m.movedAt.Load())
}

// The names of the stats of a cluster and of the server, as Envoy v1.39.1 makes them: in envoy/upstream/upstream.h,
// source/extensions/health_checkers/common and envoy/server/instance.h.
const (
	membershipHealthy  = "membership_healthy"
	membershipDegraded = "membership_degraded"
	membershipTotal    = "membership_total"
	healthCheckAttempt = "health_check.attempt"

	// LiveStat is 1 while Envoy wants traffic and 0 after it was told to fail its health checks.
	LiveStat = "server.live"
)

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
