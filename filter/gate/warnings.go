package gate

import (
	"fmt"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
)

// settleTime is how long a cluster may take to have its first host and its first health check.
const settleTime = 30 * time.Second

// Warning is a check for something that is still missing after some time.
type Warning struct {
	After time.Duration // since the gate was made
	Check func()        // writes a line to Envoy's log if it is missing
}

// Warnings returns the checks of a gate.
func (g *Gate) Warnings() []Warning {
	now, missing := g.envoy.Now(), &g.process.warnings
	all := []Warning{{missing.remaining(envoystats.ServerLive, now, settleTime), g.warnOfDrain}}
	for i, cluster := range g.config.Clusters {
		all = append(all, Warning{missing.remaining(hostsOf(cluster.StatName), now, settleTime), func() { g.warnOfNoHost(i) }})
		switch {
		case g.stats == nil: // nothing shows health checks
		case g.stats.StaleAfter() > 0:
			after := missing.remaining(checksOf(cluster.StatName), now, max(settleTime, g.stats.StaleAfter()))
			all = append(all, Warning{after, func() { g.warnOfAge(i) }})
		default:
			all = append(all, Warning{missing.remaining(checksOf(cluster.StatName), now, settleTime), func() { g.warnOfNoCheck(i) }})
		}
	}
	return all
}

// warn writes a line, once per process.
func (g *Gate) warn(format string, args ...any) {
	line := g.logName() + ": " + fmt.Sprintf(format, args...)
	if _, isFirst := g.process.warnings.sinceWhen(line, g.envoy.Now()); isFirst {
		g.envoy.Warn(line)
	}
}

// warnOfNoHost warns if the i-th cluster has had no host so far. A gauge that Envoy lacks reads 0, as for an empty cluster: only
// time distinguishes them.
func (g *Gate) warnOfNoHost(i int) {
	cluster, sample := g.config.Clusters[i], g.source.Sample(g.envoy.Now(), i)
	switch {
	case sample.Stale: // nothing is known, and the source warns
	case sample.Unknown:
		g.warn("Envoy has no cluster %q, so it fails: /clusters on Envoy's admin port lists all names; or a stats matcher leaves out %s (%s)",
			cluster.Name, envoystats.TotalOf(cluster.StatName), matchers)
	case sample.Total == 0 && !g.clusters[i].hasHadHosts.Load():
		g.warn("cluster %q has shown no host yet. Likely: %s", cluster.Name, g.likelyReason(i))
	}
}

// likelyReason returns why the i-th cluster may have had no host.
func (g *Gate) likelyReason(i int) string {
	const none, unknown, list = "it has none", "Envoy has no cluster of this name", " (see /clusters on Envoy's admin port)"
	if g.stats == nil {
		return none + list + "; or " + unknown
	}
	hidden := fmt.Sprintf(", or one with an alt_stat_name (set clusters[%d].stat_name to it); or a stats matcher leaves out %s (%s)",
		i, envoystats.TotalOf(g.config.Clusters[i].StatName), matchers)
	switch found, known := g.stats.TotalFound(i); {
	case !known:
		return none + list + "; or " + unknown + hidden
	case found:
		return none + list
	}
	return unknown + list + hidden
}

// warnOfNoCheck warns if the i-th cluster has hosts, and Envoy has never checked one.
func (g *Gate) warnOfNoCheck(i int) {
	if !g.stats.HasHosts(i) || g.stats.HasChecks(i) {
		return
	}
	cluster := g.config.Clusters[i]
	g.warn("cluster %q has hosts, and Envoy has checked none of them: each counts as healthy, even if it is not. "+
		"Set health_checks on the cluster, unless discovery (EDS) or outlier_detection sets its hosts' health; "+
		"or a stats matcher leaves out %s%s (%s)", cluster.Name, envoystats.ClusterScope(cluster.StatName), g.stats.CheckStat(i), matchers)
}

// warnOfAge warns if the i-th cluster is always stale, because its health checks do not continue.
func (g *Gate) warnOfAge(i int) {
	if g.stats.Sample(g.envoy.Now(), i).Unknown || g.stats.ChecksContinue(i) || !g.stats.HasHosts(i) {
		return
	}
	cluster := g.config.Clusters[i]
	g.warn("cluster %q fails because of stale_after (%s): its health checks do not continue. "+
		"Likely: it has no health_checks; or no_traffic_interval (60s by default) is longer than stale_after; "+
		"or a stats matcher leaves out %s%s (%s); or Envoy has removed the cluster", cluster.Name, config.ShowSeconds(g.config.StaleAfter),
		envoystats.ClusterScope(cluster.StatName), g.stats.CheckStat(i), matchers)
}

// warnOfDrain warns if the gate can't see that Envoy drains.
func (g *Gate) warnOfDrain() {
	if g.config.IgnoreDrain || g.drains != nil || g.server.SeenLive() || g.server.Draining() {
		return
	}
	g.warn("%s reads 0 and never was 1: a stats matcher leaves it out, so /healthcheck/fail goes unnoticed; or it leaves out %s, "+
		"and Envoy was started in drain mode. Keep both (%s), use source: admin, or set drain: ignore",
		envoystats.ServerLive, envoystats.ServerState, serverMatchers)
}

// serverMatchers names the settings that may leave out a server's stat, matchers the settings that may leave out a cluster's stat.
const (
	serverMatchers = "see the bootstrap's stats_config.stats_matcher, and the listener's metadata envoy.stats_matcher, which replaces it"
	matchers       = serverMatchers + ", and the cluster's own"
)
