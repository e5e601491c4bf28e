package lint

import (
	"cmp"
	"slices"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
)

// consequence describes the effect of stats that a matcher excludes.
type consequence struct {
	matcher  *Node
	severity Severity
	text     string
}

// missingStats has the names of excluded stats, by the consequence.
type missingStats map[consequence][]string

func (m missingStats) need(matcher *Node, name string, severity Severity, text string) {
	c := consequence{matcher, severity, text}
	if includes(matcher, name) == no && !slices.Contains(m[c], name) {
		m[c] = append(m[c], name)
	}
}

// checkStats reports stats matchers that exclude stats which are read. There are three kinds: the bootstrap's; a listener's own, which
// replaces it for the Go plugin there; a cluster's own, which replaces it for that cluster's stats.
func (s *scope) checkStats(f findings, gates []*gate) {
	missing := missingStats{}
	bootstraps := s.bootstrap.get("stats_config", "stats_matcher")
	for _, g := range gates {
		filters := bootstraps
		if own := ownMatcher(g.in.listener); own != nil && g.variant == plugin {
			filters = own
		}
		if prefix := g.in.text("stat_prefix"); prefix != "" {
			missing.need(bootstraps, "http."+prefix+".downstream_rq_active", Warning, "a drain does not know when the last request has ended, "+
				"and waits for its whole timeout")
		}
		for _, p := range g.configurations() {
			missing.need(filters, s.ownScope(g, p.config.StatPrefix)+p.config.StatPrefix+".healthy", Warning, "no metric has the gate's verdict")
			if p.config.Admin == nil {
				s.needClusterStats(missing, g, p.config, bootstraps, filters)
				if !p.config.IgnoreDrain {
					missing.need(filters, "server.live", Warning, "the gate stays at 200 while Envoy drains (/healthcheck/fail)")
				}
			}
		}
	}
	for c, names := range missing {
		slices.Sort(names)
		at := cmp.Or(c.matcher.get("reject_all"), c.matcher.get("exclusion_list"), c.matcher.get("inclusion_list"), c.matcher)
		f.add(at, c.severity, "stats", "this matcher excludes %s, so %s: include each, or write source: admin", strings.Join(names, ", "), c.text)
	}
}

// needClusterStats notes the stats of clusters that a gate reads.
func (s *scope) needClusterStats(missing missingStats, g *gate, c *config.Config, bootstraps, filters *Node) {
	for _, cluster := range c.Clusters {
		matchers := []*Node{cmp.Or(ownMatcher(s.clusters[cluster.Name]), bootstraps)}
		if g.variant == plugin { // it defines the gauges again, in the scope of the filter
			matchers = append(matchers, filters)
		}
		for _, matcher := range matchers {
			need := func(name string, severity Severity, text string) {
				missing.need(matcher, envoystats.ClusterScope(cluster.StatName)+name, severity, text)
			}
			need("membership_healthy", Error, "the gate is 503 while all hosts are healthy")
			need("membership_total", Error, "the gate is 503 while all hosts are healthy")
			if !cluster.Rule.IgnoreDegraded {
				need("membership_degraded", Warning, "degraded hosts don't count")
			}
			if cluster.Rule.IgnoreExcluded {
				need("membership_excluded", Warning, "excluded hosts count")
			}
			if c.StaleAfter > 0 && g.variant == plugin {
				need("health_check.attempt", Error, "the gate is 503 healthgate_stale after stale_after")
			}
		}
	}
}

// ownScope returns the prefix of the gate's metrics: healthgate for the Go plugin; metrics_namespace, or Envoy's default, for the module.
// The bootstrap extension defines the stats of the stat_prefix "default".
func (s *scope) ownScope(g *gate, statPrefix string) string {
	owner := g.contents
	if statPrefix == "default" {
		owner = nil
		for _, extension := range slices.Backward(startups(s.bootstrap)) {
			owner = extension
		}
	}
	if g.variant == plugin || owner == nil {
		return "healthgate."
	}
	return cmp.Or(owner.text("dynamic_module_config", "metrics_namespace"), "dynamicmodulescustom") + "."
}

// ownMatcher returns the matcher of a listener or a cluster, or nil: the field of Envoy 1.40, or the metadata before.
func ownMatcher(n *Node) *Node {
	before := n.get("metadata", "typed_filter_metadata", "envoy.stats_matcher")
	if typeOf(before.text("@type")) != typeStatsMatcher {
		before = nil
	}
	return cmp.Or(n.get("stats_matcher"), before)
}

// includes reports whether a matcher includes a stat: envoy/config/metrics/v3, StatsMatcher.
func includes(matcher *Node, name string) answer {
	matched := func(pattern *Node) answer { return matchesString(pattern, name) }
	switch {
	case matcher.isTrue("reject_all"):
		return no
	case matcher.get("inclusion_list") != nil:
		return anyOf(matcher.list("inclusion_list", "patterns"), matched)
	case matcher.get("exclusion_list") != nil:
		return not(anyOf(matcher.list("exclusion_list", "patterns"), matched))
	}
	return yes
}
