package explain

import (
	"fmt"
	"slices"
	"strings"

	"healthgate/filter"
)

// uncertain says what the numbers can't tell, which a probe may.
func (s *seen) uncertain(c *filter.Config, g *Gate, v filter.Verdict) {
	healthy, kept := s.stats["healthgate."+c.StatPrefix+".healthy"]
	held := c.Hold != filter.Hold{} && v.Reason != filter.Draining
	if held && kept && (healthy == 1) != v.Passing { // with hold the gauge is kept up between probes
		g.answer(c, filter.Verdict{Reason: filter.Held, Passing: healthy == 1})
	} else if held {
		g.Unknown = append(g.Unknown, "hold: whether an answer that stands is about to change")
	}
	if c.StaleAfter > 0 {
		g.Unknown = append(g.Unknown, "stale_after: how long ago the clusters were last checked")
	}
	if _, kept := s.stats["server.live"]; !kept && c.Admin == nil && !c.IgnoreDrain {
		g.Unknown = append(g.Unknown, "drain: the stat server.live is not kept, so the gate may not see a drain (stats, in docs/lint.md)")
	}
	if c.Admin == nil && slices.ContainsFunc(g.Clusters, func(cluster Cluster) bool { return cluster.Total == 0 }) {
		g.Unknown = append(g.Unknown, "a listener's own stats matcher: what the gate reads may be left out though admin has it, and the other way round")
	}
}

// next is the step that the README's table "When it says 503" has for a reason.
func (s *seen) next(c *filter.Config, g *Gate, reason filter.Reason) string {
	if g.Answer.Details == filter.Held.Details() {
		return fmt.Sprintf("hold has it wait (unhealthy_after %v, healthy_after %v): Envoy's log has the last change, and what it waits for",
			c.Hold.UnhealthyAfter, c.Hold.HealthyAfter)
	}
	switch reason {
	case filter.OK:
		return ""
	case filter.Draining:
		return "Envoy was told to fail its health checks, by a rollout or by hand: wait, or POST /healthcheck/ok on admin takes it back"
	case filter.ClusterUnknown:
		return "Envoy has no such cluster: a wrong name, or CDS has removed it" + s.similar(g)
	case filter.ClusterEmpty:
		return s.nextOfEmpty(c, g)
	case filter.ClusterUnhealthy:
		return "the backends fail Envoy's health checks: look into the log of a host above, and whether it can be reached from here"
	case filter.Stale:
		return "nobody has checked the clusters for longer than stale_after: CDS has removed one, no_traffic_interval is longer than that, or Envoy's main thread hangs"
	}
	return "look into Envoy's log, \"healthgate:\": a panic, or the configuration of a route is bad"
}

// nextOfEmpty tells the three causes of an empty cluster apart.
func (s *seen) nextOfEmpty(c *filter.Config, g *Gate) string {
	for i, cluster := range c.Clusters {
		if g.Clusters[i].Reason != filter.ClusterEmpty.String() {
			continue
		}
		status := s.clusters[cluster.Name]
		switch {
		case status == nil:
			return fmt.Sprintf("Envoy has no cluster %q: a wrong name, or CDS has removed it%s", cluster.Name, s.similar(g))
		case len(status.GetHostStatuses()) > 0:
			return fmt.Sprintf("cluster %q has %d hosts, and its gauges don't say so: a stats matcher leaves them out, or it has an alt_stat_name (stats and stat-name, in docs/lint.md)",
				cluster.Name, len(status.GetHostStatuses()))
		}
		return fmt.Sprintf("cluster %q has no hosts: its name does not resolve, or EDS is empty; cluster.%s.update_failure on admin's /stats grows where it can't be asked", cluster.Name, cluster.StatName)
	}
	return "a cluster has no hosts: /clusters on admin"
}

// similar names a cluster that may have been meant.
func (s *seen) similar(g *Gate) string {
	names := make([]string, 0, len(s.clusters))
	for name := range s.clusters {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, cluster := range g.Clusters {
		if near := filter.Nearest(cluster.Name, names); near != "" && s.clusters[cluster.Name] == nil {
			return "; did you mean " + near + "?"
		}
	}
	if len(names) == 0 || len(names) > 10 {
		return ""
	}
	return "; it has " + strings.Join(names, ", ")
}
