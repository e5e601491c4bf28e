// Package envoystats has the names of Envoy's own stats, as Envoy makes them.
package envoystats

import "strings"

// ClusterScope returns the prefix of a cluster's stats, its last dot included, for the cluster's alt_stat_name or else its name. Envoy
// v1.39.1 makes it in generateStatsScope (source/common/upstream/upstream_impl.cc) and replaces characters in
// Stats::Utility::sanitizeStatsName; its symbol table then drops every dot at the end. A dot at the beginning stays.
func ClusterScope(statName string) string {
	return strings.TrimRight("cluster."+sanitized.Replace(statName), ".") + "."
}

// sanitized replaces the characters that a stat's name may not have, the longest match first.
var sanitized = strings.NewReplacer("://", "_", ":/", "_", ":", "_", "\x00", "_")
