package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

// nextStep returns the next step for a reason, as in README's table.
func (s *seen) nextStep(c *config.Config, g *Gate, reason policy.Reason) string {
	if g.Answer.Details == policy.Held.Details() {
		return fmt.Sprintf("hold delays the change (unhealthy_after %v, healthy_after %v): Envoy's log has the last change",
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
			return next + s.clusters[cluster.Name].recovery()
		}
	}
	return next
}

// nextOfUnknown explains an unknown cluster.
func (s *seen) nextOfUnknown(g *Gate) string {
	for _, cluster := range g.Clusters {
		if s.hosts[cluster.Name] != nil {
			continue
		}
		if slices.Contains(s.warming, warming{"cluster", cluster.Name, false}) {
			return fmt.Sprintf("cluster %q is warming: it waits for its endpoints (EDS), DNS or its first health checks", cluster.Name)
		}
		return fmt.Sprintf("Envoy has no cluster %q: the name is wrong, or CDS has removed it, as Envoy Gateway does while a service has "+
			"no ready endpoint (scaled to 0)%s", cluster.Name, s.similar(g))
	}
	return "Envoy had no such cluster at the time of the probe, and has it now: CDS has added it"
}

// nextOfEmpty distinguishes the causes of an empty cluster.
func (s *seen) nextOfEmpty(c *config.Config, g *Gate) string {
	at := slices.IndexFunc(g.Clusters, func(c Cluster) bool { return c.Reason == policy.ClusterEmpty.String() })
	if at < 0 {
		return "a cluster has no hosts: see /clusters on admin"
	}
	cluster := c.Clusters[at]
	status, config := s.hosts[cluster.Name], s.clusters[cluster.Name]
	if status == nil {
		return s.nextOfUnknown(g)
	}
	why, queried := "its name does not resolve, or EDS is empty", true
	switch hosts := len(status.GetHostStatuses()); {
	case config.ClusterType.Name == "envoy.clusters.aggregate":
		return fmt.Sprintf("cluster %q is an aggregate, which has no hosts itself: name its parts in the gate's clusters, with require: any",
			cluster.Name)
	case hosts > 0:
		return fmt.Sprintf("cluster %q has %d hosts, and its gauges do not: a stats matcher excludes them, "+
			"or it has an alt_stat_name (stats and stat-name, in docs/lint.md)", cluster.Name, hosts)
	case config.Type == "EDS":
		why = "EDS has none, which is normal for a service scaled to 0"
	case config.Type == "STRICT_DNS", config.Type == "LOGICAL_DNS":
		why = "its name does not resolve"
	case config.Type == "STATIC":
		why, queried = "its load_assignment has no endpoints", false
	}
	if queried {
		why += fmt.Sprintf("; if the query fails, cluster.%s.update_failure grows on admin's /stats", cluster.StatName)
	}
	return fmt.Sprintf("cluster %q has no hosts: %s", cluster.Name, why)
}

// similar returns the likely name of an unknown cluster, or all names, for the end of a sentence.
func (s *seen) similar(g *Gate) string {
	names := slices.Sorted(maps.Keys(s.hosts))
	for _, cluster := range g.Clusters {
		if near := config.Nearest(cluster.Name, names); near != "" && s.hosts[cluster.Name] == nil {
			return "; did you mean " + near + "?"
		}
	}
	if len(names) == 0 || len(names) > 10 {
		return ""
	}
	return "; it has " + strings.Join(names, ", ")
}
