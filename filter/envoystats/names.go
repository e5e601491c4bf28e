package envoystats

import (
	"strings"

	"healthgate/filter/policy"
)

// The names of a cluster's stats after its scope: envoy/upstream/upstream.h and source/extensions/health_checkers/common of Envoy v1.39.1.
const (
	MembershipHealthy  = "membership_healthy"
	MembershipDegraded = "membership_degraded"
	MembershipTotal    = "membership_total"
	MembershipExcluded = "membership_excluded"
	HealthCheckAttempt = "health_check.attempt" // counter of health checks
	HealthCheckHealthy = "health_check.healthy" // gauge that only a health checker creates
)

// The names of gauges of the server: envoy/server/instance.h of Envoy v1.39.1, unless a comment names another file.
const (
	ServerLive  = "server.live"  // 1 until Envoy fails its health checks, then 0
	ServerState = "server.state" // stateDraining and others; written when the workers start, and with each flush of the stats

	stateDraining = 1 // of ServerState

	ServerVersion   = "server.version"                   // the first six hex digits of Envoy's commit: source/server/server.cc
	WorkersStarted  = "listener_manager.workers_started" // 1 once Envoy's workers have started: listener_manager_impl.h
	WarmingClusters = "cluster_manager.warming_clusters" // written with each cluster that is added: cluster_manager_impl.cc
)

// ClusterScope returns the prefix of a cluster's stats, its last dot included, for the cluster's alt_stat_name or else its name. Envoy
// v1.39.1 builds it in generateStatsScope (source/common/upstream/upstream_impl.cc) and replaces characters in
// Stats::Utility::sanitizeStatsName; its symbol table then drops every dot at the end. A dot at the beginning stays.
func ClusterScope(statName string) string {
	return strings.TrimRight("cluster."+sanitized.Replace(statName), ".") + "."
}

// sanitized replaces the characters that a stat's name may not have, the longest match first.
var sanitized = strings.NewReplacer("://", "_", ":/", "_", ":", "_", "\x00", "_")

// TotalOf returns the name of the gauge of all hosts of a cluster.
func TotalOf(statName string) string { return ClusterScope(statName) + MembershipTotal }

// ServerGauges returns the names of the gauges of Envoy itself that a gate reads.
func ServerGauges() []string { return []string{ServerLive, ServerState} }

// ClusterGauges returns the names of the gauges that a Source reads for clusters if its Stats is a Clusters.
func ClusterGauges(clusters []policy.Cluster) []string {
	var names []string
	for _, cluster := range clusters {
		scope := ClusterScope(cluster.StatName)
		names = append(names, scope+MembershipHealthy, scope+MembershipDegraded, scope+MembershipTotal, scope+HealthCheckHealthy)
		if cluster.Rule.IgnoreExcluded {
			names = append(names, scope+MembershipExcluded)
		}
	}
	return names
}
