package filter

import (
	"fmt"
	"strings"
	"time"
)

// WatchEvery is how often Watch wants to be called, or 0 for never: only what has to be seen between probes is watched.
func (g *Gate) WatchEvery() time.Duration {
	const atLeast, atMost, looks = 50 * time.Millisecond, time.Second, 4
	shortest := time.Duration(0)
	for _, d := range []time.Duration{g.config.Hold.UnhealthyAfter, g.config.Hold.HealthyAfter, g.config.StaleAfter} {
		if d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	if shortest == 0 {
		return 0
	}
	return min(max(shortest/looks, atLeast), atMost)
}

// Watch looks at the clusters without answering a probe.
func (g *Gate) Watch() { g.Look() }

// settled is how long a cluster may take to show its first host and to have its first check.
const settled = 30 * time.Second

// Warning is something to be looked at once, when there has been time for what it would miss.
type Warning struct {
	After time.Duration // from when the gate was made
	Check func()        // writes to the host's log what it finds
}

// Warnings are what a gate can warn of.
func (g *Gate) Warnings() []Warning {
	warnings := []Warning{{settled, g.warnOfClusters}, {settled, g.warnOfDrain}}
	if g.config.Admin == nil && g.config.StaleAfter > 0 {
		warnings = append(warnings, Warning{max(settled, g.config.StaleAfter), g.warnOfAge})
	}
	return warnings
}

// warnOfClusters writes a line for each cluster that has shown no host so far, or whose hosts nobody has ever checked. A
// gauge that is not there, or is not kept, reads 0 like that of a cluster without hosts, and nothing but time tells them
// apart.
func (g *Gate) warnOfClusters() {
	stats, byStats := g.source.(*StatsSource)
	for i, cluster := range g.config.Clusters {
		sample := g.source.Sample(g.host.Now(), i)
		switch scope := statScope(cluster.StatName); {
		case sample.Unknown && !sample.Stale:
			g.host.Warn(fmt.Sprintf("%s: cluster %q is not there, so it fails: see /clusters on Envoy's admin port for the names that are",
				g.config.name(), cluster.Name))
		case sample.Total == 0 && !g.clusters[i].known.Load():
			g.host.Warn(fmt.Sprintf("%s: cluster %q has shown no host yet. Likely: %s", g.config.name(), cluster.Name, g.likely(i)))
		case byStats && g.config.StaleAfter == 0 && sample.Total > 0 && stats.clusters[i].attempts.Get() == 0:
			g.host.Warn(fmt.Sprintf("%s: cluster %q has hosts, and Envoy has checked none of them: each counts as healthy, whatever is true. "+
				"Set health_checks on the cluster, unless discovery (EDS) or outlier_detection tells its health; "+
				"or a stats matcher leaves out %s%s (%s)", g.config.name(), cluster.Name, scope, healthCheckAttempt, matchers))
		}
	}
}

// likely is why the i-th cluster may have shown no host.
func (g *Gate) likely(i int) string {
	const none, unknown = "it has none (see /clusters on Envoy's admin port)", "Envoy has no cluster of this name"
	stats, byStats := g.source.(*StatsSource)
	if !byStats {
		return none + "; or " + unknown
	}
	hidden := fmt.Sprintf("%s, or one with an alt_stat_name (set clusters[%d].stat_name to it); or a stats matcher leaves out %s%s (%s)",
		unknown, i, statScope(g.config.Clusters[i].StatName), membershipTotal, matchers)
	switch total, knows := stats.clusters[i].total.(Found); {
	case !knows:
		return none + "; or " + hidden
	case total.Found():
		return none
	}
	return strings.Replace(hidden, unknown, unknown+" (see /clusters on Envoy's admin port)", 1)
}

// warnOfAge writes a line for each cluster whose age can't be told, since nobody has been seen to check it.
func (g *Gate) warnOfAge() {
	stats := g.source.(*StatsSource)
	for i, cluster := range g.config.Clusters {
		if g.source.Sample(g.host.Now(), i).Unknown {
			continue
		}
		if stats.clusters[i].movement.moved.Load() || stats.clusters[i].total.Get() == 0 {
			continue
		}
		g.host.Warn(fmt.Sprintf("%s: cluster %q fails by stale_after (%s): its checks have not been seen to go on. "+
			"Likely: it has no health_checks; or no_traffic_interval, 60s where it is not set, is longer than stale_after; "+
			"or a stats matcher leaves out %s%s (%s); or Envoy has the cluster no longer",
			g.config.name(), cluster.Name, showSeconds(g.config.StaleAfter), statScope(cluster.StatName), healthCheckAttempt, matchers))
	}
}

// warnOfDrain writes a line where Envoy's draining can't be seen; once for a process.
func (g *Gate) warnOfDrain() {
	if g.config.IgnoreDrain || g.drains != nil || g.server.live.Get() > 0 || g.draining() || !g.liveness.warned.CompareAndSwap(false, true) {
		return
	}
	g.host.Warn(fmt.Sprintf("%s: %s reads 0 and never was 1: a stats matcher leaves it out, and /healthcheck/fail goes unnoticed. "+
		"Keep it (%s), take source: admin, or set drain: ignore", g.config.name(), serverLive, matchers))
}

// matchers are what may leave a stat out.
const matchers = "see the bootstrap's stats_config.stats_matcher, the listener's metadata envoy.stats_matcher and the cluster's own"
