package lint

import (
	"slices"
	"strings"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
)

// statsNeeded is a stat that something reads, and the consequence if it is left out.
type statsNeeded struct {
	name     string
	severity Severity
	without  string
}

// needs returns the stats that a gate's configuration needs: those in a cluster's own scope, and all others.
func (s *scope) needs(g *gate, c *config.Config) (ofClusters map[string][]statsNeeded, others []statsNeeded) {
	ofClusters = map[string][]statsNeeded{}
	if c.Admin == nil {
		for _, cluster := range c.Clusters {
			scope := envoystats.ClusterScope(cluster.StatName)
			asked := []statsNeeded{
				{scope + "membership_healthy", Error, "the probe is 503 while all hosts are healthy"},
				{scope + "membership_total", Error, "the probe is 503 while all hosts are healthy"},
			}
			if !cluster.Rule.IgnoreDegraded {
				asked = append(asked, statsNeeded{scope + "membership_degraded", Warning, "degraded hosts don't count"})
			}
			if cluster.Rule.IgnoreExcluded {
				asked = append(asked, statsNeeded{scope + "membership_excluded", Warning, "excluded hosts count"})
			}
			if c.StaleAfter > 0 && g.variant == plugin {
				asked = append(asked, statsNeeded{scope + "health_check.attempt", Error, "after stale_after the probe is 503 with healthgate_stale"})
			}
			ofClusters[cluster.Name] = asked
		}
		if !c.IgnoreDrain {
			others = append(others, statsNeeded{"server.live", Warning, "a drain (/healthcheck/fail) leaves the probe at 200"})
		}
	}
	if prefix := g.in.text("stat_prefix"); prefix != "" {
		others = append(others, statsNeeded{"http." + prefix + ".downstream_rq_active", Warning, "a drain does not know when the last " +
			"request has ended, and waits its whole time"})
	}
	return ofClusters, append(others, statsNeeded{s.ownScope(g, c.StatPrefix) + c.StatPrefix + ".healthy", Warning, "no metric shows the gate's verdict"})
}

// ownScope returns the prefix of the gate's metrics: the same for each Go plugin; for a module metrics_namespace, or Envoy's default. The
// stats of the stat_prefix "default" are those of the bootstrap extension.
func (s *scope) ownScope(g *gate, statPrefix string) string {
	if g.variant == plugin {
		return "healthgate."
	}
	owner := g.contents
	if statPrefix == "default" {
		if owner = s.startup(); owner == nil {
			return "healthgate."
		}
	}
	if namespace := owner.text("dynamic_module_config", "metrics_namespace"); namespace != "" {
		return namespace + "."
	}
	return "dynamicmodulescustom."
}

// startup returns the bootstrap extension of the module, nil if it is not known.
func (s *scope) startup() *Node {
	if s.bootstrap == nil {
		return nil
	}
	for _, extension := range s.bootstrap.list("bootstrap_extensions") {
		if contents, typeName := typed(extension.get("typed_config")); typeName == typeModuleStartup && isStartup(contents) {
			return contents
		}
	}
	return nil
}

// leftOut is the stats that each matcher leaves out, by the consequence.
type leftOut map[*Node]map[statsNeeded][]string

// note adds a stat if a matcher leaves it out.
func (l leftOut) note(matcher *Node, need statsNeeded) {
	if keeps(matcher, need.name) != no {
		return
	}
	if l[matcher] == nil {
		l[matcher] = map[statsNeeded][]string{}
	}
	follows := statsNeeded{severity: need.severity, without: need.without}
	if !slices.Contains(l[matcher][follows], need.name) {
		l[matcher][follows] = append(l[matcher][follows], need.name)
	}
}

// checkStats finds matchers that leave out stats that are read. There are three: the bootstrap's; a listener's own, which takes its
// place for the plugin there; a cluster's own, which takes its place for that cluster's stats.
func (s *scope) checkStats(f *findings, gates []*gate) {
	missing := leftOut{}
	bootstraps := s.bootstrap.get("stats_config", "stats_matcher")
	for _, g := range gates {
		plugins := bootstraps
		if own := ownMatcher(g.in.listener); own != nil && g.variant == plugin {
			plugins = own
		}
		for _, p := range g.configurations() {
			if p.config == nil {
				continue
			}
			ofClusters, others := s.needs(g, p.config)
			for _, need := range others {
				if strings.HasPrefix(need.name, "http.") {
					missing.note(bootstraps, need)
				} else {
					missing.note(plugins, need)
				}
			}
			for name, asked := range ofClusters {
				clusters := bootstraps
				if own := ownMatcher(s.clusters[name]); own != nil {
					clusters = own
				}
				for _, need := range asked {
					missing.note(clusters, need)
					if g.variant == plugin { // it defines the gauges again, in its own scope
						missing.note(plugins, need)
					}
				}
			}
		}
	}
	for matcher, all := range missing {
		for follows, names := range all {
			slices.Sort(names)
			f.add(matcher.says(), follows.severity, "stats", "this matcher leaves out %s, so %s: let each through, or write source: admin",
				strings.Join(names, ", "), follows.without)
		}
	}
}

// ownMatcher returns the matcher of a listener or a cluster, or nil: the field that Envoy 1.40 has, or the metadata.
func ownMatcher(n *Node) *Node {
	if own := n.get("stats_matcher"); own != nil {
		return own
	}
	own := n.get("metadata", "typed_filter_metadata", "envoy.stats_matcher")
	if _, typeName := typed(own); own != nil && typeName == typeStatsMatcher {
		return own
	}
	return nil
}

// says returns the part of a matcher that leaves stats out.
func (n *Node) says() *Node {
	for _, key := range []string{"reject_all", "exclusion_list", "inclusion_list"} {
		if below := n.get(key); below != nil {
			return below
		}
	}
	return n
}

// keeps says whether a matcher keeps a stat: envoy/config/metrics/v3, StatsMatcher.
func keeps(matcher *Node, name string) answer {
	patterns := func(key string) answer {
		result := no
		for _, pattern := range matcher.list(key, "patterns") {
			result = max(result, matchesString(pattern, name))
		}
		return result
	}
	switch {
	case matcher.isTrue("reject_all"):
		return no
	case matcher.get("inclusion_list") != nil:
		return patterns("inclusion_list")
	case matcher.get("exclusion_list") != nil:
		return yes - patterns("exclusion_list")
	}
	return yes
}
