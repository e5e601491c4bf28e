package filter

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"healthgate/filter/envoystats"
)

// settled is how long a cluster may take to show its first host and to have its first check.
const settled = 30 * time.Second

// Warning is something to be looked at once, when there has been time for what it would miss.
type Warning struct {
	After time.Duration // from when the gate was made
	Check func()        // writes to the host's log what it finds
}

// warnings keep, for a process, since when something has been missing, and what has been said. Configurations that come often
// put no warning off, and say nothing again.
type warnings struct {
	mutex sync.Mutex
	since map[string]time.Time
	said  map[string]struct{}
}

// most bounds what is kept of either; beyond it warnings may come late, or again.
const most = 10_000

// left is how much is left of the time that something may be missing. A configuration that comes has a second at least.
func (w *warnings) left(what string, now time.Time, allowed time.Duration) time.Duration {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	since, ok := w.since[what]
	if !ok {
		if since = now; len(w.since) < most {
			if w.since == nil {
				w.since = make(map[string]time.Time)
			}
			w.since[what] = now
		}
	}
	return max(allowed-now.Sub(since), time.Second)
}

// over says that something is no longer missing.
func (w *warnings) over(what string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.since, what)
}

// first says whether a line was not said yet.
func (w *warnings) first(line string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if _, said := w.said[line]; said {
		return false
	}
	if len(w.said) < most {
		if w.said == nil {
			w.said = make(map[string]struct{})
		}
		w.said[line] = struct{}{}
	}
	return true
}

// warn writes a line, once for a process.
func (g *Gate) warn(format string, args ...any) {
	if line := g.config.name() + ": " + fmt.Sprintf(format, args...); g.process.warnings.first(line) {
		g.host.Warn(line)
	}
}

// What may be missing, by what the process keeps it under.
func (g *Gate) hostless(i int) string  { return "hosts of " + g.config.Clusters[i].StatName }
func (g *Gate) unchecked(i int) string { return "checks of " + g.config.Clusters[i].StatName }

// Warnings are what a gate can warn of.
func (g *Gate) Warnings() []Warning {
	now := g.host.Now()
	all := []Warning{{g.process.warnings.left(serverLive, now, settled), g.warnOfDrain}}
	for i := range g.config.Clusters {
		all = append(all, Warning{g.process.warnings.left(g.hostless(i), now, settled), func() { g.warnOfNoHost(i) }})
		if _, byStats := g.source.(*StatsSource); !byStats {
			continue // nothing tells of checks
		}
		if staleAfter := g.source.(*StatsSource).staleAfter; staleAfter > 0 {
			all = append(all, Warning{g.process.warnings.left(g.unchecked(i), now, max(settled, staleAfter)), func() { g.warnOfAge(i) }})
		} else {
			all = append(all, Warning{g.process.warnings.left(g.unchecked(i), now, settled), func() { g.warnOfNoCheck(i) }})
		}
	}
	return all
}

// warnOfNoHost writes a line where the i-th cluster has shown no host so far. A gauge that is not there, or is not kept, reads
// 0 like that of a cluster without hosts, and nothing but time tells them apart.
func (g *Gate) warnOfNoHost(i int) {
	name, sample := g.config.Clusters[i].Name, g.source.Sample(g.host.Now(), i)
	switch {
	case sample.Stale: // of which nothing is known, and which is told otherwise
	case sample.Unknown:
		g.warn("Envoy has no cluster %q, so it fails: /clusters on Envoy's admin port has the names of all; or a stats matcher leaves out %s (%s)",
			name, TotalOf(g.config.Clusters[i].StatName), matchers)
	case sample.Total == 0 && !g.clusters[i].known.Load():
		g.warn("cluster %q has shown no host yet. Likely: %s", name, g.likely(i))
	}
}

// warnOfNoCheck writes a line where the i-th cluster has hosts, and nobody has ever checked one.
func (g *Gate) warnOfNoCheck(i int) {
	stats := &g.source.(*StatsSource).clusters[i]
	if stats.total.Get() == 0 || g.source.(*StatsSource).hasChecks(i) {
		return
	}
	stat := healthCheckHealthy
	if stats.attempts != nil {
		stat = healthCheckAttempt
	}
	g.warn("cluster %q has hosts, and Envoy has checked none of them: each counts as healthy, even if it is not. "+
		"Set health_checks on the cluster, unless discovery (EDS) or outlier_detection sets its hosts' health; "+
		"or a stats matcher leaves out %s%s (%s)", g.config.Clusters[i].Name, envoystats.ClusterScope(g.config.Clusters[i].StatName), stat, matchers)
}

// likely is why the i-th cluster may have shown no host.
func (g *Gate) likely(i int) string {
	const none, unknown = "it has none (see /clusters on Envoy's admin port)", "Envoy has no cluster of this name"
	stats, byStats := g.source.(*StatsSource)
	if !byStats {
		return none + "; or " + unknown
	}
	hidden := fmt.Sprintf("%s, or one with an alt_stat_name (set clusters[%d].stat_name to it); or a stats matcher leaves out %s%s (%s)",
		unknown, i, envoystats.ClusterScope(g.config.Clusters[i].StatName), membershipTotal, matchers)
	switch total, knows := stats.clusters[i].total.(Found); {
	case !knows:
		return none + "; or " + hidden
	case total.Found():
		return none
	}
	return strings.Replace(hidden, unknown, unknown+" (see /clusters on Envoy's admin port)", 1)
}

// warnOfAge writes a line where the age of the i-th cluster can't be told, since nobody has been seen to check it.
func (g *Gate) warnOfAge(i int) {
	stats := &g.source.(*StatsSource).clusters[i]
	if g.source.Sample(g.host.Now(), i).Unknown || stats.movement.moved.Load() || stats.total.Get() == 0 {
		return
	}
	g.warn("cluster %q fails by stale_after (%s): its checks have not been seen to go on. "+
		"Likely: it has no health_checks; or no_traffic_interval, 60s where it is not set, is longer than stale_after; "+
		"or a stats matcher leaves out %s%s (%s); or Envoy has the cluster no longer",
		g.config.Clusters[i].Name, showSeconds(g.config.StaleAfter), envoystats.ClusterScope(g.config.Clusters[i].StatName), healthCheckAttempt, matchers)
}

// warnOfDrain writes a line where Envoy's draining can't be seen.
func (g *Gate) warnOfDrain() {
	if g.config.IgnoreDrain || g.drains != nil || g.server.live.Get() > 0 || g.server.seen.Load() || g.draining() {
		return
	}
	g.warn("%s reads 0 and never was 1: a stats matcher leaves it out, and /healthcheck/fail goes unnoticed; or it leaves out %s, "+
		"and Envoy was started in drain mode. Keep both (%s), take source: admin, or set drain: ignore", serverLive, serverState, serverMatchers)
}

// serverMatchers are what may leave out a stat of the server's, and matchers one of a cluster's.
const (
	serverMatchers = "see the bootstrap's stats_config.stats_matcher and the listener's metadata envoy.stats_matcher, which takes its place"
	matchers       = "see the bootstrap's stats_config.stats_matcher, the listener's metadata envoy.stats_matcher and the cluster's own"
)
