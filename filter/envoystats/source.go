package envoystats

import (
	"sync/atomic"
	"time"

	"healthgate/filter/policy"
)

// Value is one of Envoy's stats.
type Value interface{ Get() uint64 }

// Found is a Value that knows whether Envoy has the stat. Other values read 0 for a stat that Envoy lacks or that a stats matcher rejects.
type Found interface{ Found() bool }

// Stats finds Envoy's own stats by their full names, in the root scope. They are only read.
type Stats interface {
	Gauge(name string) Value
	Counter(name string) Value
}

// Clusters is a Stats that knows which clusters Envoy has.
type Clusters interface {
	// Cluster returns a value that is 1 while Envoy has a cluster of this name and stat name.
	Cluster(name, statName string) Value
}

// Source samples clusters from Envoy's own gauges, for source: stats.
type Source struct {
	clusters   []clusterStats
	staleAfter time.Duration // 0 if Stats is a Clusters: then the age of the stats is measured elsewhere
}

// clusterStats are the stats of one cluster. Exactly one of exists and attempts is set.
type clusterStats struct {
	healthy, degraded, total Value
	excluded                 Value       // nil if the rule counts excluded hosts
	exists                   Value       // 0 for an unknown cluster
	checked                  Found       // a gauge that only a health checker creates; set if exists is set
	attempts                 Value       // health checks since Envoy started
	age                      *counterAge // how long attempts has been unchanged; only with stale_after
	attempted                atomic.Bool // attempts was above 0, so no stats matcher rejects it
}

// NewSource finds the stats of clusters. With staleAfter above 0 a cluster is stale if its health checks stop for longer, unless stats
// is a Clusters.
func NewSource(clusters []policy.Cluster, staleAfter time.Duration, stats Stats, ages *Ages, now time.Time) *Source {
	s := &Source{clusters: make([]clusterStats, len(clusters)), staleAfter: staleAfter}
	known, _ := stats.(Clusters)
	if known != nil {
		s.staleAfter = 0
	}
	for i, cluster := range clusters {
		scope := ClusterScope(cluster.StatName)
		c := &s.clusters[i]
		c.healthy = stats.Gauge(scope + MembershipHealthy)
		c.degraded = stats.Gauge(scope + MembershipDegraded)
		c.total = stats.Gauge(scope + MembershipTotal)
		if cluster.Rule.IgnoreExcluded {
			c.excluded = stats.Gauge(scope + MembershipExcluded)
		}
		if known != nil {
			c.exists = known.Cluster(cluster.Name, cluster.StatName)
			c.checked, _ = stats.Gauge(scope + HealthCheckHealthy).(Found)
			continue
		}
		c.attempts = stats.Counter(scope + HealthCheckAttempt)
		if staleAfter > 0 {
			c.age = ages.register(scope, now, c.attempts.Get())
		}
	}
	return s
}

// Close unregisters the source's counters. It may be called once.
func (s *Source) Close() {
	for i := range s.clusters {
		if age := s.clusters[i].age; age != nil {
			age.unregister()
		}
	}
}

// Sample returns the host counts of the i-th cluster. It neither blocks nor allocates and is safe for concurrent use.
// The gauges are read one after the other, so a host that changes in between may be counted twice or not at all,
// as in Envoy's own health_check filter.
func (s *Source) Sample(now time.Time, i int) policy.Sample {
	c := &s.clusters[i]
	if c.exists != nil && c.exists.Get() == 0 {
		// Its gauges may remain while one of its streams lasts.
		return policy.Sample{Unknown: true}
	}
	sample := policy.Sample{Counts: policy.Counts{Healthy: c.healthy.Get(), Degraded: c.degraded.Get(), Total: c.total.Get()}}
	if c.excluded != nil {
		sample.Excluded = c.excluded.Get()
	}
	if s.staleAfter > 0 {
		age := c.age.read(now, c.readAttempts())
		// Without hosts Envoy checks nothing, and nothing about their health can be stale.
		sample.Stale = age > s.staleAfter && sample.Total > 0
	}
	return sample
}

// readAttempts returns the health checks since Envoy started, or since the counter was reset.
func (c *clusterStats) readAttempts() uint64 {
	attempts := c.attempts.Get()
	switch {
	case attempts == 0 && c.attempted.Load():
		c.age.restart()
	case attempts > 0 && !c.attempted.Load(): // a store per probe would move the cache line between workers
		c.attempted.Store(true)
	}
	return attempts
}

// StaleAfter returns how long the health checks of a cluster may stop, 0 for ever.
func (s *Source) StaleAfter() time.Duration { return s.staleAfter }

// HasHosts reports whether the i-th cluster has hosts.
func (s *Source) HasHosts(i int) bool { return s.clusters[i].total.Get() > 0 }

// TotalFound reports whether Envoy has the gauge of all hosts of the i-th cluster, and whether that can be known.
func (s *Source) TotalFound(i int) (found, known bool) {
	total, known := s.clusters[i].total.(Found)
	return known && total.Found(), known
}

// HasChecks reports whether Envoy has ever checked a host of the i-th cluster, by the stat that CheckStat names.
func (s *Source) HasChecks(i int) bool {
	c := &s.clusters[i]
	if c.attempts != nil {
		return c.attempts.Get() > 0
	}
	return c.checked == nil || c.checked.Found()
}

// CheckStat returns the name of the stat that shows the health checks of the i-th cluster, without the cluster's scope.
func (s *Source) CheckStat(i int) string {
	if s.clusters[i].attempts != nil {
		return HealthCheckAttempt
	}
	return HealthCheckHealthy
}

// ChecksContinue reports whether a health check of the i-th cluster has been seen since its counter was registered, with StaleAfter.
func (s *Source) ChecksContinue(i int) bool { return s.clusters[i].age.changed.Load() }
