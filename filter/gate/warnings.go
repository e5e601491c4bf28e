package gate

import (
	"fmt"
	"strings"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
)

// settled is how long a cluster may take to show its first host and to have its first check.
const settled = 30 * time.Second

// Warning is something to be looked at once, when there has been time for what it would miss.
type Warning struct {
	After time.Duration // from when the gate was made
	Check func()        // writes to the host's log what it finds
}

// warn writes a line, once for a process.
func (g *Gate) warn(format string, args ...any) {
	if line := g.logName() + ": " + fmt.Sprintf(format, args...); g.process.warnings.isFirst(line) {
		g.envoy.Warn(line)
	}
}

// Warnings are what a gate can warn of.
func (g *Gate) Warnings() []Warning {
	now := g.envoy.Now()
	all := []Warning{{g.process.warnings.remaining(envoystats.ServerLive, now, settled), g.warnOfDrain}}
	for i, cluster := range g.config.Clusters {
		all = append(all, Warning{g.process.warnings.remaining(hostsOf(cluster.StatName), now, settled), func() { g.warnOfNoHost(i) }})
		switch {
		case g.stats == nil: // nothing shows the checks
		case g.stats.StaleAfter() > 0:
			after := g.process.warnings.remaining(checksOf(cluster.StatName), now, max(settled, g.stats.StaleAfter()))
			all = append(all, Warning{after, func() { g.warnOfAge(i) }})
		default:
			all = append(all, Warning{g.process.warnings.remaining(checksOf(cluster.StatName), now, settled), func() { g.warnOfNoCheck(i) }})
		}
	}
	return all
}

// warnOfNoHost writes a line where the i-th cluster has shown no host so far. A gauge that is not there, or is not kept, reads
// 0 like that of a cluster without hosts, and nothing but time tells them apart.
func (g *Gate) warnOfNoHost(i int) {
	name, sample := g.config.Clusters[i].Name, g.source.Sample(g.envoy.Now(), i)
	switch {
	case sample.Stale: // of which nothing is known, and which is told otherwise
	case sample.Unknown:
		g.warn("Envoy has no cluster %q, so it fails: /clusters on Envoy's admin port has the names of all; or a stats matcher leaves out %s (%s)",
			name, envoystats.TotalOf(g.config.Clusters[i].StatName), matchers)
	case sample.Total == 0 && !g.clusters[i].hasHadHosts.Load():
		g.warn("cluster %q has shown no host yet. Likely: %s", name, g.likely(i))
	}
}

// warnOfNoCheck writes a line where the i-th cluster has hosts, and nobody has ever checked one.
func (g *Gate) warnOfNoCheck(i int) {
	if !g.stats.HasHosts(i) || g.stats.HasChecks(i) {
		return
	}
	g.warn("cluster %q has hosts, and Envoy has checked none of them: each counts as healthy, even if it is not. "+
		"Set health_checks on the cluster, unless discovery (EDS) or outlier_detection sets its hosts' health; "+
		"or a stats matcher leaves out %s%s (%s)", g.config.Clusters[i].Name, envoystats.ClusterScope(g.config.Clusters[i].StatName), g.stats.CheckStat(i), matchers)
}

// likely is why the i-th cluster may have shown no host.
func (g *Gate) likely(i int) string {
	const none, unknown = "it has none (see /clusters on Envoy's admin port)", "Envoy has no cluster of this name"
	if g.stats == nil {
		return none + "; or " + unknown
	}
	hidden := fmt.Sprintf("%s, or one with an alt_stat_name (set clusters[%d].stat_name to it); or a stats matcher leaves out %s%s (%s)",
		unknown, i, envoystats.ClusterScope(g.config.Clusters[i].StatName), envoystats.MembershipTotal, matchers)
	switch found, known := g.stats.TotalFound(i); {
	case !known:
		return none + "; or " + hidden
	case found:
		return none
	}
	return strings.Replace(hidden, unknown, unknown+" (see /clusters on Envoy's admin port)", 1)
}

// warnOfAge writes a line where the age of the i-th cluster can't be told, since nobody has been seen to check it.
func (g *Gate) warnOfAge(i int) {
	if g.stats.Sample(g.envoy.Now(), i).Unknown || g.stats.ChecksContinue(i) || !g.stats.HasHosts(i) {
		return
	}
	g.warn("cluster %q fails by stale_after (%s): its checks have not been seen to go on. "+
		"Likely: it has no health_checks; or no_traffic_interval, 60s where it is not set, is longer than stale_after; "+
		"or a stats matcher leaves out %s%s (%s); or Envoy has the cluster no longer",
		g.config.Clusters[i].Name, config.ShowSeconds(g.config.StaleAfter), envoystats.ClusterScope(g.config.Clusters[i].StatName), envoystats.HealthCheckAttempt, matchers)
}

// warnOfDrain writes a line where Envoy's draining can't be seen.
func (g *Gate) warnOfDrain() {
	if g.config.IgnoreDrain || g.drains != nil || g.server.Seen() || g.server.Draining() {
		return
	}
	g.warn("%s reads 0 and never was 1: a stats matcher leaves it out, and /healthcheck/fail goes unnoticed; or it leaves out %s, "+
		"and Envoy was started in drain mode. Keep both (%s), take source: admin, or set drain: ignore", envoystats.ServerLive, envoystats.ServerState, serverMatchers)
}

// serverMatchers are what may leave out a stat of the server's, and matchers one of a cluster's.
const (
	serverMatchers = "see the bootstrap's stats_config.stats_matcher and the listener's metadata envoy.stats_matcher, which takes its place"
	matchers       = "see the bootstrap's stats_config.stats_matcher, the listener's metadata envoy.stats_matcher and the cluster's own"
)
