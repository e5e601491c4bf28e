package filter

import (
	"time"

	"healthgate/filter/envoystats"
)

// Value is one of Envoy's stats, read where Envoy keeps it.
type Value interface{ Get() uint64 }

// Found is a Value that knows whether Envoy has the stat. Others read 0 for a stat that Envoy does not have or does not keep.
type Found interface{ Found() bool }

// Stats finds Envoy's own stats by exactly their names, in the root scope. They are only ever read.
type Stats interface {
	Gauge(name string) Value
	Counter(name string) Value
}

// Clusters is a Stats that knows which clusters Envoy has.
type Clusters interface {
	// Cluster returns a value that is 1 while Envoy has a cluster of the name, whose stats have the stat name.
	Cluster(name, statName string) Value
}

// StatsSource reads Envoy's own gauges: the source stats.
type StatsSource struct {
	clusters   []clusterStats
	staleAfter time.Duration // 0 where the host knows by itself how old its stats are
}

// clusterStats are the stats of one cluster. Of exists and attempts one is nil.
type clusterStats struct {
	healthy, degraded, total Value
	excluded                 Value     // nil where excluded hosts count
	exists                   Value     // 0 for a cluster that Envoy does not have
	checked                  Found     // a gauge that only a health checker makes; with exists
	attempts                 Value     // health checks begun since Envoy started
	movement                 *movement // of attempts, with stale_after
}

// NewStatsSource finds the stats of a configuration's clusters. now is the time.
func NewStatsSource(c *Config, stats Stats, process *Process, now time.Time) *StatsSource {
	s := &StatsSource{clusters: make([]clusterStats, len(c.Clusters))}
	known, _ := stats.(Clusters)
	if known == nil {
		s.staleAfter = c.StaleAfter
	}
	for i, cluster := range c.Clusters {
		scope := envoystats.ClusterScope(cluster.StatName)
		of := &s.clusters[i]
		of.healthy = stats.Gauge(scope + membershipHealthy)
		of.degraded = stats.Gauge(scope + membershipDegraded)
		of.total = stats.Gauge(scope + membershipTotal)
		if cluster.Rule.IgnoreExcluded {
			of.excluded = stats.Gauge(scope + membershipExcluded)
		}
		if known != nil {
			of.exists = known.Cluster(cluster.Name, cluster.StatName)
			of.checked, _ = stats.Gauge(scope + healthCheckHealthy).(Found)
			continue
		}
		of.attempts = stats.Counter(scope + healthCheckAttempt)
		if c.StaleAfter > 0 {
			of.movement = process.ages.join(scope, now, of.attempts.Get())
		}
	}
	return s
}

// Close ends the source's part in what the process knows of its clusters' ages. It may be called once.
func (s *StatsSource) Close() {
	for i := range s.clusters {
		if m := s.clusters[i].movement; m != nil {
			m.leave()
		}
	}
}

// Sample reads each gauge. The gauges of a cluster are read one after the other, so a host that changes in between may be
// counted twice or not at all, as in Envoy's own health_check filter.
func (s *StatsSource) Sample(now time.Time, i int) Sample {
	c := &s.clusters[i]
	if c.exists != nil && c.exists.Get() == 0 {
		// Its gauges may stay while one of its streams lasts.
		return Sample{Unknown: true}
	}
	sample := Sample{Counts: Counts{Healthy: c.healthy.Get(), Degraded: c.degraded.Get(), Total: c.total.Get()}}
	if c.excluded != nil {
		sample.Excluded = c.excluded.Get()
	}
	if s.staleAfter > 0 {
		age := c.movement.age(now, c.attempts.Get())
		// Without hosts Envoy checks nothing, and nothing about their health can be stale.
		sample.Stale = age > s.staleAfter && sample.Total > 0
	}
	return sample
}

// hasChecks reports whether Envoy has ever checked a host of the i-th cluster.
func (s *StatsSource) hasChecks(i int) bool {
	c := &s.clusters[i]
	if c.attempts != nil {
		return c.attempts.Get() > 0
	}
	return c.checked == nil || c.checked.Found()
}

// GaugeNames returns the names of the gauges that the source stats reads of the configuration's clusters on a host that is
// a Clusters.
func (c *Config) GaugeNames() []string {
	var names []string
	for _, cluster := range c.Clusters {
		scope := envoystats.ClusterScope(cluster.StatName)
		names = append(names, scope+membershipHealthy, scope+membershipDegraded, scope+membershipTotal, scope+healthCheckHealthy)
		if cluster.Rule.IgnoreExcluded {
			names = append(names, scope+membershipExcluded)
		}
	}
	return names
}

// The names of a cluster's stats, as Envoy v1.39.1 makes them: in envoy/upstream/upstream.h and
// source/extensions/health_checkers/common.
const (
	membershipHealthy  = "membership_healthy"
	membershipDegraded = "membership_degraded"
	membershipTotal    = "membership_total"
	membershipExcluded = "membership_excluded"
	healthCheckAttempt = "health_check.attempt"
	healthCheckHealthy = "health_check.healthy"
)

// TotalOf returns the name of the gauge with all hosts of a cluster, by the name of the cluster's stats.
func TotalOf(statName string) string { return envoystats.ClusterScope(statName) + membershipTotal }
