package filter

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

// Value is a stat of Envoy's, read where Envoy keeps it.
type Value interface{ Get() uint64 }

// Found is a Value that knows whether Envoy has the stat: one that it does not have, or does not keep, reads 0 too.
type Found interface{ Found() bool }

// Stats finds Envoy's own stats by exactly their names, in the root scope. They are only ever read.
type Stats interface {
	Gauge(name string) Value
	Counter(name string) Value
}

// ClusterLife is a Stats that knows which clusters Envoy has removed.
type ClusterLife interface {
	// Removed finds what is 1 while Envoy has no cluster of a name any more, nil where that can't be told.
	Removed(cluster string) Value
}

// StatsSource reads Envoy's own gauges: the source stats.
type StatsSource struct {
	clusters   []clusterStats
	staleAfter time.Duration
}

// clusterStats are one cluster's.
type clusterStats struct {
	healthy, degraded, total Value
	excluded                 Value // nil where excluded hosts count
	attempts                 Value // health checks begun since Envoy started
	movement                 *movement
	removed                  Value // nil where it can't be told
}

// NewStatsSource finds the stats of a configuration's clusters. now is when that is.
func NewStatsSource(c *Config, stats Stats, process *Process, now time.Time) *StatsSource {
	s := &StatsSource{clusters: make([]clusterStats, len(c.Clusters)), staleAfter: c.StaleAfter}
	life, _ := stats.(ClusterLife)
	for i, cluster := range c.Clusters {
		scope := statScope(cluster.StatName)
		of := &s.clusters[i]
		of.healthy = stats.Gauge(scope + membershipHealthy)
		of.degraded = stats.Gauge(scope + membershipDegraded)
		of.total = stats.Gauge(scope + membershipTotal)
		if cluster.Rule.IgnoreExcluded {
			of.excluded = stats.Gauge(scope + membershipExcluded)
		}
		of.attempts = stats.Counter(scope + healthCheckAttempt)
		of.movement = process.ages.join(scope, now, of.attempts.Get())
		if life != nil {
			of.removed = life.Removed(cluster.Name)
		}
	}
	return s
}

// Close ends the source's part in what the process knows of its clusters' ages. It may be called once.
func (s *StatsSource) Close() {
	for i := range s.clusters {
		s.clusters[i].movement.leave()
	}
}

// Sample reads each gauge. The gauges of a cluster are not read at once: a host that changes between them is counted
// before, after, or for an instant on both sides, as it is for Envoy's own health_check filter.
func (s *StatsSource) Sample(now time.Time, i int) Sample {
	c := &s.clusters[i]
	sample := Sample{Counts: Counts{Healthy: c.healthy.Get(), Degraded: c.degraded.Get(), Total: c.total.Get()}}
	if c.excluded != nil {
		sample.Excluded = c.excluded.Get()
	}
	if s.staleAfter > 0 {
		age := c.movement.age(now, c.attempts.Get())
		// Nothing is checked where there are no hosts, and nothing about their health can be stale.
		sample.Stale = age > s.staleAfter && sample.Total > 0
	}
	if c.removed != nil && c.removed.Get() > 0 {
		// Its gauges stay while one of its streams lasts, and nobody checks it any more: that is known, and not stale.
		sample = Sample{Unknown: true}
	}
	return sample
}

// Reads are the stats that a configuration's source reads, for a host that has to know them beforehand.
type Reads struct {
	Gauges, Counters []string
	// Aging says that the counters are asked for the clusters' age, and not for a warning alone.
	Aging bool
}

// ReadsOf are the reads of a configuration, or of one that overrides another in part; whatever is wrong with it.
func ReadsOf(raw *structpb.Struct) Reads {
	c, _ := decode(raw, Stock, false)
	reads := Reads{Aging: c.StaleAfter > 0}
	for _, cluster := range c.Clusters {
		scope := statScope(cluster.StatName)
		reads.Gauges = append(reads.Gauges, scope+membershipHealthy, scope+membershipDegraded, scope+membershipTotal, scope+membershipExcluded)
		reads.Counters = append(reads.Counters, scope+healthCheckAttempt)
	}
	return reads
}

// The names of a cluster's stats, as Envoy v1.39.1 makes them: in envoy/upstream/upstream.h and
// source/extensions/health_checkers/common.
const (
	membershipHealthy  = "membership_healthy"
	membershipDegraded = "membership_degraded"
	membershipTotal    = "membership_total"
	membershipExcluded = "membership_excluded"
	healthCheckAttempt = "health_check.attempt"
)

// statScope is what the names of a cluster's stats begin with, its last dot included: what generateStatsScope in
// source/common/upstream/upstream_impl.cc makes. Characters are replaced as by Stats::Utility::sanitizeStatsName, and
// every dot at the end is dropped, as seen in Envoy v1.39.1; a dot at the beginning of the name stays.
func statScope(statName string) string {
	return strings.TrimRight("cluster."+sanitizer.Replace(statName), ".") + "."
}

var sanitizer = strings.NewReplacer("://", "_", ":/", "_", ":", "_", "\x00", "_")
