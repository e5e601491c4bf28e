package explain

import (
	"fmt"
	"slices"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

// next returns the next step for a reason, as in README's table.
func (s *seen) next(c *config.Config, g *Gate, reason policy.Reason) string {
	if g.Answer.Details == policy.Held.Details() {
		return fmt.Sprintf("hold delays the change (unhealthy_after %v, healthy_after %v): Envoy's log has the last and the pending change",
			c.Hold.UnhealthyAfter, c.Hold.HealthyAfter)
	}
	switch reason {
	case policy.OK:
		return ""
	case policy.Draining:
		return "Envoy fails its health checks (it drains): after `healthgate drain` only a restart ends it; after a POST " +
			"/healthcheck/fail alone, POST /healthcheck/ok on admin does"
	case policy.ClusterUnknown:
		return s.nextOfUnknown(g)
	case policy.ClusterEmpty:
		return s.nextOfEmpty(c, g)
	case policy.ClusterUnhealthy:
		return s.nextOfUnhealthy(g)
	case policy.Stale:
		return "the data is older than stale_after: CDS has removed a cluster, no_traffic_interval is longer than stale_after, or Envoy's main " +
			"thread hangs"
	}
	return "see Envoy's log after \"healthgate:\": a panic, or a wrong configuration of a route"
}

// nextOfUnhealthy explains a cluster with too few healthy hosts.
func (s *seen) nextOfUnhealthy(g *Gate) string {
	const next = "the backends fail Envoy's health checks: see the log of a host above, and whether this machine reaches it"
	for _, cluster := range g.Clusters {
		switch {
		case cluster.Reason != policy.ClusterUnhealthy.String():
		case cluster.Healthy+cluster.Degraded == cluster.Total && cluster.Degraded > 0:
			return fmt.Sprintf("%d hosts of cluster %q are degraded, which this gate does not count: see why, or remove degraded: ignore",
				cluster.Degraded, cluster.Name)
		case cluster.Healthy == cluster.Total:
			return fmt.Sprintf("all %d hosts of cluster %q are healthy, and the gate needs %s: add hosts, or lower min_healthy", cluster.Total,
				cluster.Name, cluster.Needs)
		default:
			return next + s.dump.clusters[cluster.Name].recovery()
		}
	}
	return next
}

// nextOfUnknown explains an unknown cluster.
func (s *seen) nextOfUnknown(g *Gate) string {
	for _, cluster := range g.Clusters {
		if s.clusters[cluster.Name] != nil {
			continue
		}
		if slices.Contains(s.dump.warming, warming{"cluster", cluster.Name, false}) {
			return fmt.Sprintf("cluster %q is warming: it waits for its endpoints (EDS), DNS or its first health checks", cluster.Name)
		}
		return fmt.Sprintf("Envoy has no cluster %q: the name is wrong, or CDS has removed it, as Envoy Gateway does while a service has "+
			"no ready endpoint (scaled to 0)%s", cluster.Name, s.similar(g))
	}
	return "Envoy had no such cluster at the time of the probe, and has it now: CDS has added it"
}

// nextOfEmpty distinguishes the causes of an empty cluster.
func (s *seen) nextOfEmpty(c *config.Config, g *Gate) string {
	for i, cluster := range c.Clusters {
		if g.Clusters[i].Reason != policy.ClusterEmpty.String() {
			continue
		}
		status, config := s.clusters[cluster.Name], s.dump.clusters[cluster.Name]
		switch {
		case status == nil:
			return s.nextOfUnknown(g)
		case config.ClusterType.Name == "envoy.clusters.aggregate":
			return fmt.Sprintf("cluster %q is an aggregate, which has no hosts itself: name its parts in the gate's clusters, with require: any",
				cluster.Name)
		case len(status.GetHostStatuses()) > 0:
			return fmt.Sprintf("cluster %q has %d hosts, and its gauges do not: a stats matcher excludes them, "+
				"or it has an alt_stat_name (stats and stat-name, in docs/lint.md)",
				cluster.Name, len(status.GetHostStatuses()))
		}
		failures := fmt.Sprintf("; if the query fails, cluster.%s.update_failure grows on admin's /stats", cluster.StatName)
		switch config.Type {
		case "EDS":
			return fmt.Sprintf("cluster %q has no hosts: EDS has none, which is normal for a service scaled to 0%s", cluster.Name, failures)
		case "STRICT_DNS", "LOGICAL_DNS":
			return fmt.Sprintf("cluster %q has no hosts: its name does not resolve%s", cluster.Name, failures)
		case "STATIC":
			return fmt.Sprintf("cluster %q has no hosts: its load_assignment has no endpoints", cluster.Name)
		}
		return fmt.Sprintf("cluster %q has no hosts: its name does not resolve, or EDS is empty%s", cluster.Name, failures)
	}
	return "a cluster has no hosts: see /clusters on admin"
}

// nextOf returns the next step for the details that the counters show.
func (s *seen) nextOf(c *config.Config, g *Gate, details string) string {
	if c == nil {
		return g.Next
	}
	for reason := policy.OK; reason <= policy.Error; reason++ {
		if reason.Details() == details {
			return s.next(c, g, reason)
		}
	}
	return ""
}

// similar returns the likely name of an unknown cluster, or all names, for the end of a sentence.
func (s *seen) similar(g *Gate) string {
	names := make([]string, 0, len(s.clusters))
	for name := range s.clusters {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, cluster := range g.Clusters {
		if near := config.Nearest(cluster.Name, names); near != "" && s.clusters[cluster.Name] == nil {
			return "; did you mean " + near + "?"
		}
	}
	if len(names) == 0 || len(names) > 10 {
		return ""
	}
	return "; it has " + strings.Join(names, ", ")
}
