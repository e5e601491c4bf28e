package explain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
	"healthgate/internal/lint"
)

// configurationCounters matches the counters of accepted configurations.
const configurationCounters = `listener_manager\.listener_(added|modified|removed)|` +
	`cluster_manager\.cluster_(added|modified|removed)|http\..*\.rds\..*\.config_reload`

// refusedCounters matches the counters of refused configurations.
const refusedCounters = `.*\.(update_rejected|config_fail)`

var (
	isConfigurationCounter = regexp.MustCompile(`^(` + configurationCounters + `)$`)
	isRefusedCounter       = regexp.MustCompile(`^(` + refusedCounters + `)$`)
)

// pattern returns a pattern of the stats from which the gates' answers are computed.
func pattern(served []lint.Served) string {
	scopes := map[string]bool{}
	for _, gate := range served {
		if gate.Config == nil {
			continue
		}
		for _, cluster := range gate.Config.Clusters {
			scopes[regexp.QuoteMeta(envoystats.ClusterScope(cluster.StatName))] = true
		}
	}
	all := `^(server\.live|` + configurationCounters + "|" + refusedCounters + gateCounters(served)
	for _, scope := range slices.Sorted(maps.Keys(scopes)) {
		all += "|" + scope + `(membership_(healthy|degraded|excluded|total)|health_check\.attempt)`
	}
	return all + ")$"
}

// gateCounters returns alternatives for the gates' own stats. A dynamic module's are in its metrics_namespace.
func gateCounters(served []lint.Served) (alternatives string) {
	prefixes := map[string]bool{}
	for _, gate := range served {
		for _, prefix := range gate.Prefixes {
			prefixes[regexp.QuoteMeta(prefix)] = true
		}
	}
	if len(prefixes) == 0 {
		return ""
	}
	return `|(.+\.)?(` + strings.Join(slices.Sorted(maps.Keys(prefixes)), "|") + `)\.(ok|failed|failed_[a-z_]+|healthy)`
}

// scopesOf returns the scopes of a gate's own stats, healthgate's first: each has the counters ok and failed.
func scopesOf(stats map[string]uint64, prefixes []string) (scopes []string) {
	for _, prefix := range prefixes {
		of := len(scopes)
		for name := range stats {
			scope, isOK := strings.CutSuffix(name, "ok")
			if !isOK || scope != prefix+"." && !strings.HasSuffix(scope, "."+prefix+".") {
				continue
			}
			if _, both := stats[scope+"failed"]; both {
				scopes = append(scopes, scope)
			}
		}
		slices.SortFunc(scopes[of:], func(a, b string) int {
			if ours := "healthgate." + prefix + "."; a == ours || b == ours {
				return map[bool]int{true: -1, false: 1}[a == ours]
			}
			return strings.Compare(a, b)
		})
	}
	return scopes
}

// configured returns the sum of the counters of configurations, and whether there are any.
func (s *seen) configured() (sum uint64, kept bool) {
	for name, value := range s.stats {
		if isConfigurationCounter.MatchString(name) || isRefusedCounter.MatchString(name) {
			sum, kept = sum+value, true
		}
	}
	return sum, kept
}

// refusedBefore returns notes on updates that Envoy has refused since its start. A dump has refused updates of listeners only.
func (s *seen) refusedBefore() (notes []string) {
	for _, name := range slices.Sorted(maps.Keys(s.stats)) {
		if count := s.stats[name]; count > 0 && isRefusedCounter.MatchString(name) {
			notes = append(notes, fmt.Sprintf("%s is %d: Envoy has refused that many updates since its start; "+
				"if the newest is one of them, Envoy's log has the reason", name, count))
		}
	}
	return notes
}

// reasonGrown returns the reason of an answer by the counters in a scope before and after it.
func reasonGrown(before, after map[string]uint64, scope string, passing bool) (details string, counted bool) {
	grown := func(counter string) bool { return after[scope+counter] > before[scope+counter] }
	if passing {
		return policy.OK.Details(), grown("ok")
	}
	for reason := policy.Draining; reason <= policy.Error; reason++ {
		if grown("failed_" + reason.String()) {
			return reason.Details(), true
		}
	}
	return policy.Held.Details(), grown("failed") // a held answer counts in failed alone
}

// answered returns the number of answers in the counters of some scopes.
func answered(stats map[string]uint64, scopes []string) (sum uint64) {
	for _, scope := range scopes {
		sum += stats[scope+"ok"] + stats[scope+"failed"]
	}
	return sum
}

// sumOf returns the sum of a counter over all connection managers but admin's.
func sumOf(stats map[string]uint64, counter string) (sum uint64) {
	for name, value := range stats {
		if strings.HasPrefix(name, "http.") && !strings.HasPrefix(name, "http.admin.") && strings.HasSuffix(name, "."+counter) {
			sum += value
		}
	}
	return sum
}
