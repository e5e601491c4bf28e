package explain

import (
	"fmt"
	"slices"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

// next is the step that README's table has for a reason.
func (s *seen) next(c *config.Config, g *Gate, reason policy.Reason) string {
	if g.Answer.Details == policy.Held.Details() {
		return fmt.Sprintf("hold delays the change (unhealthy_after %v, healthy_after %v): Envoy's log has the last change, and the pending one",
			c.Hold.UnhealthyAfter, c.Hold.HealthyAfter)
	}
	switch reason {
	case policy.OK:
		return ""
	case policy.Draining:
		return "Envoy fails its health checks, after a rollout or by hand: after `healthgate drain` only a restart ends it; " +
			"POST /healthcheck/ok on admin takes back a POST /healthcheck/fail alone"
	case policy.ClusterUnknown:
		return s.nextOfUnknown(g)
	case policy.ClusterEmpty:
		return s.nextOfEmpty(c, g)
	case policy.ClusterUnhealthy:
		next := "the backends fail Envoy's health checks: see the log of a host above, and whether it can be reached from here"
		for _, cluster := range g.Clusters {
			if cluster.Reason == policy.ClusterUnhealthy.String() {
				next += s.dump.clusters[cluster.Name].recovery()
				break
			}
		}
		return next
	case policy.Stale:
		return "the clusters have not been checked for longer than stale_after: CDS has removed one, no_traffic_interval is longer than that, " +
			"or Envoy's main thread hangs"
	}
	return "see Envoy's log, \"healthgate:\": a panic, or the configuration of a route is bad"
}

// nextOfUnknown explains a cluster that Envoy does not have.
func (s *seen) nextOfUnknown(g *Gate) string {
	for _, cluster := range g.Clusters {
		if s.clusters[cluster.Name] != nil {
			continue
		}
		if slices.Contains(s.dump.warming, warming{"cluster", cluster.Name, false}) {
			return fmt.Sprintf("cluster %q is warming: it waits for its endpoints (EDS), DNS or its first health checks", cluster.Name)
		}
		return fmt.Sprintf("Envoy has no cluster %q: a wrong name, or CDS has removed it, as Envoy Gateway and others do while a service has "+
			"no ready endpoint (scaled to 0), which is a normal state%s", cluster.Name, s.similar(g))
	}
	return "Envoy had no such cluster when the gate was asked, and has it now: CDS has changed it"
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
			return fmt.Sprintf("cluster %q has %d hosts, and its gauges don't say so: a stats matcher leaves them out, "+
				"or it has an alt_stat_name (stats and stat-name, in docs/lint.md)",
				cluster.Name, len(status.GetHostStatuses()))
		}
		failures := fmt.Sprintf("; cluster.%s.update_failure on admin's /stats grows if it can't be asked", cluster.StatName)
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
	return "a cluster has no hosts: /clusters on admin"
}

// nextOf is next, by the details that the counters show.
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

// similar names a cluster that may have been meant.
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
