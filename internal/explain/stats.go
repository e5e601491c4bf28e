package explain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

const (
	// configured matches the counters of accepted configurations.
	configured = `listener_manager\.listener_(added|modified|removed)|` +
		`cluster_manager\.cluster_(added|modified|removed)|http\..*\.rds\..*\.config_reload`
	// refused matches the counters of refused configurations.
	refused = `.*\.(update_rejected|config_fail)`
)

var (
	isConfigured = regexp.MustCompile(`^(` + configured + "|" + refused + `)$`)
	isRefused    = regexp.MustCompile(`^(` + refused + `)$`)
)

// pattern returns a pattern of the stats from which the gates' answers are computed.
func pattern(served []lint.Served) string {
	var scopes []string
	for _, cluster := range clustersOf(served) {
		scopes = append(scopes, envoystats.ClusterScope(cluster.StatName))
	}
	return `^(server\.live|` + configured + "|" + refused + gateCounters(served) +
		`|(` + envoyadmin.Alternatives(scopes) + `)(membership_(healthy|degraded|excluded|total)|health_check\.attempt))$`
}

// clustersOf returns the clusters of the gates.
func clustersOf(served []lint.Served) (all []policy.Cluster) {
	for _, gate := range served {
		if gate.Config != nil {
			all = append(all, gate.Config.Clusters...)
		}
	}
	return all
}

// gateCounters returns alternatives for the gates' own stats. A dynamic module's are in its metrics_namespace.
func gateCounters(served []lint.Served) string {
	var prefixes []string
	for _, gate := range served {
		prefixes = append(prefixes, gate.Prefixes...)
	}
	if len(prefixes) == 0 {
		return ""
	}
	return `|(.+\.)?(` + envoyadmin.Alternatives(prefixes) + `)\.(ok|failed|failed_[a-z_]+|healthy)`
}

// scopesOf returns the scopes of a gate's own stats, healthgate's first: each has the counters ok and failed.
func scopesOf(stats map[string]uint64, prefixes []string) (scopes []string) {
	for _, prefix := range prefixes {
		var of []string
		for name := range stats {
			scope, isOK := strings.CutSuffix(name, "ok")
			_, both := stats[scope+"failed"]
			if isOK && both && (scope == prefix+"." || strings.HasSuffix(scope, "."+prefix+".")) {
				of = append(of, scope)
			}
		}
		slices.Sort(of)
		if at := slices.Index(of, "healthgate."+prefix+"."); at >= 0 {
			scopes, of = append(scopes, of[at]), slices.Delete(of, at, at+1)
		}
		scopes = append(scopes, of...)
	}
	return scopes
}

// configured returns the sum of the counters of configurations, and whether there are any.
func (s *seen) configured() (sum uint64, kept bool) {
	for name, value := range s.stats {
		if isConfigured.MatchString(name) {
			sum, kept = sum+value, true
		}
	}
	return sum, kept
}

// refusedBefore returns notes on updates that Envoy has refused since its start. A dump has refused updates of listeners only.
func (s *seen) refusedBefore() []string {
	notes := []string{}
	for _, name := range slices.Sorted(maps.Keys(s.stats)) {
		if count := s.stats[name]; count > 0 && isRefused.MatchString(name) {
			notes = append(notes, fmt.Sprintf("%s is %d: Envoy has refused that many updates since its start; "+
				"if the newest is one of them, Envoy's log has the reason", name, count))
		}
	}
	return notes
}

// reasonGrown returns the reason of an answer, by the first scope whose counters have grown between two times; or "".
func reasonGrown(before, after map[string]uint64, scopes []string, passing bool) (details string) {
	for _, scope := range scopes {
		grown := func(counter string) bool { return after[scope+counter] > before[scope+counter] }
		if passing {
			if grown("ok") {
				return policy.OK.Details()
			}
			continue
		}
		for reason := policy.Draining; reason <= policy.Error; reason++ {
			if grown("failed_" + reason.String()) {
				return reason.Details()
			}
		}
		if grown("failed") { // a held answer counts in failed alone
			return policy.Held.Details()
		}
	}
	return ""
}

// answered returns the number of answers in the counters of some scopes.
func answered(stats map[string]uint64, scopes []string) (sum uint64) {
	for _, scope := range scopes {
		sum += stats[scope+"ok"] + stats[scope+"failed"]
	}
	return sum
}
