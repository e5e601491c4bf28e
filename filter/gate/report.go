package gate

import (
	"encoding/json"
	"maps"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

// report is the body for a client that accepts JSON, with response.details. It follows the health check response format for HTTP
// APIs (draft-inadarei-api-health-check).
type report struct {
	Status string             `json:"status"` // pass, warn (only because of degraded hosts, or held) or fail
	Output string             `json:"output"` // the reason, as in the access log; also in each check
	Since  string             `json:"since"`  // when the verdict last changed
	Checks map[string][]check `json:"checks"` // "<cluster>:membership"
}

// check is one cluster. The fields from Healthy on are not part of the format.
type check struct {
	ComponentType string        `json:"componentType"`
	ObservedValue uint64        `json:"observedValue"` // the number of hosts that count
	ObservedUnit  string        `json:"observedUnit"`
	Status        string        `json:"status"`
	Output        string        `json:"output"`
	Since         string        `json:"since"`
	Healthy       uint64        `json:"healthy"`
	Degraded      uint64        `json:"degraded"`
	Total         uint64        `json:"total"`
	Excluded      uint64        `json:"excluded,omitempty"` // a part of total; left out if the rule counts them
	Required      required      `json:"required"`
	Hosts         []policy.Host `json:"hosts,omitempty"`
}

type required struct {
	MinHealthy        uint64 `json:"min_healthy"`
	MinHealthyPercent uint64 `json:"min_healthy_percent"`
	Degraded          string `json:"degraded"`
	Excluded          string `json:"excluded"`
}

// withReport returns a reply whose body is the report.
func withReport(plain *Reply, r report) *Reply {
	if !config.HasBody(plain.Status) {
		return plain
	}
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return plain
	}
	reply := *plain
	reply.Body = string(body) + "\n"
	reply.Headers = maps.Clone(plain.Headers)
	reply.Headers["content-type"] = []string{"application/health+json"}
	return &reply
}

func newReport(verdict policy.Verdict, since time.Time) report {
	return report{Status: healthStatus(verdict), Output: verdict.Reason.Details(), Since: inUTC(since), Checks: make(map[string][]check)}
}

// add reports one cluster.
func (r *report) add(cluster policy.Cluster, s policy.Sample, since time.Time, hosts []policy.Host) {
	verdict := cluster.Evaluate(s)
	c := check{
		ComponentType: "component",
		ObservedValue: cluster.Rule.Counted(s.Counts),
		ObservedUnit:  "hosts",
		Status:        healthStatus(verdict),
		Output:        verdict.Reason.Details(),
		Since:         inUTC(since),
		Healthy:       s.Healthy,
		Degraded:      s.Degraded,
		Total:         s.Total,
		Required: required{
			MinHealthy:        cluster.Rule.MinHealthy,
			MinHealthyPercent: cluster.Rule.MinHealthyPercent,
			Degraded:          countOrIgnore(cluster.Rule.IgnoreDegraded),
			Excluded:          countOrIgnore(cluster.Rule.IgnoreExcluded),
		},
		Hosts: hosts,
	}
	if cluster.Rule.IgnoreExcluded {
		c.Excluded = s.Excluded
	}
	r.Checks[cluster.Name+":membership"] = []check{c}
}

func healthStatus(v policy.Verdict) string {
	switch {
	case !v.Passing:
		return "fail"
	case v.Degraded, v.Reason == policy.Held:
		return "warn"
	}
	return "pass"
}

func countOrIgnore(ignore bool) string {
	if ignore {
		return "ignore"
	}
	return "count"
}

func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
