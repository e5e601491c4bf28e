package filter

import (
	"encoding/json"
	"maps"
	"time"
)

// report is the body for a client that asks for JSON, where the configuration lets details out. It follows the health
// check response format for HTTP APIs (draft-inadarei-api-health-check).
type report struct {
	Status string             `json:"status"` // pass, warn (thanks to degraded hosts, or held) or fail
	Output string             `json:"output"` // the reason, here and below spelled as in the access log
	Since  string             `json:"since"`  // when the answer last changed
	Checks map[string][]check `json:"checks"` // "<cluster>:membership"
}

// check is one cluster. Its fields beyond the format's own are what the rule looks at.
type check struct {
	ComponentType string      `json:"componentType"`
	ObservedValue uint64      `json:"observedValue"` // hosts that count
	ObservedUnit  string      `json:"observedUnit"`
	Status        string      `json:"status"`
	Output        string      `json:"output"`
	Since         string      `json:"since"`
	Healthy       uint64      `json:"healthy"`
	Degraded      uint64      `json:"degraded"`
	Total         uint64      `json:"total"`
	Excluded      uint64      `json:"excluded,omitempty"` // of total; where the rule ignores them
	Required      required    `json:"required"`
	Hosts         []HostState `json:"hosts,omitempty"`
}

type required struct {
	MinHealthy        uint64 `json:"min_healthy"`
	MinHealthyPercent uint64 `json:"min_healthy_percent"`
	Degraded          string `json:"degraded"`
	Excluded          string `json:"excluded"`
}

const (
	statusPass = "pass"
	statusWarn = "warn"
	statusFail = "fail"
)

// reported returns a reply with the report in the place of its body.
func reported(plain *Reply, r report) *Reply {
	if !hasBody(plain.Status) {
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

// statusOf puts a verdict into the format's words.
func statusOf(v Verdict) string {
	switch {
	case !v.Passing:
		return statusFail
	case v.Degraded, v.Reason == Held:
		return statusWarn
	}
	return statusPass
}

// report says what the verdict was and how each cluster is.
func (g *Gate) report(verdict Verdict, samples []Sample) report {
	r := report{
		Status: statusOf(verdict),
		Output: verdict.Reason.Details(),
		Since:  inUTC(g.journal.since()),
		Checks: make(map[string][]check, len(samples)),
	}
	hosts, _ := g.source.(HostSource)
	for i, cluster := range g.config.Clusters {
		c := newCheck(cluster, samples[i], g.clusters[i].outcome.Load().since)
		if hosts != nil {
			c.Hosts = hosts.Hosts(i)
		}
		r.Checks[cluster.Name+":membership"] = []check{c}
	}
	return r
}

// newCheck reports one cluster.
func newCheck(cluster Cluster, s Sample, since time.Time) check {
	found := cluster.Judge(s)
	c := check{
		ComponentType: "component",
		ObservedValue: cluster.Rule.counted(s.Counts),
		ObservedUnit:  "hosts",
		Status:        statusOf(Verdict{Reason: found.Reason, Passing: found.Reason == OK, Degraded: found.Degraded}),
		Output:        found.Reason.Details(),
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
	}
	if cluster.Rule.IgnoreExcluded {
		c.Excluded = s.Excluded
	}
	return c
}

// countOrIgnore is a choice as it is configured.
func countOrIgnore(ignore bool) string {
	if ignore {
		return "ignore"
	}
	return "count"
}

func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
