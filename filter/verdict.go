package filter

// Rule is what is asked of one cluster.
type Rule struct {
	MinHealthy        uint64 // hosts that must count, 0 to 1000000; default 1
	MinHealthyPercent uint64 // per cent of the cluster's hosts that must count, 0 to 100; default 0
	IgnoreDegraded    bool   // count healthy hosts alone; default false, as Envoy's health_check filter has it
}

// counted is how many hosts count under the rule.
func (r Rule) counted(c Counts) uint64 {
	if r.IgnoreDegraded {
		return c.Healthy
	}
	return c.Healthy + c.Degraded
}

// Judge says whether a cluster passes: OK, ClusterEmpty or ClusterUnhealthy. The percentage is compared as Envoy's
// health_check filter compares it, in whole numbers and without rounding. A cluster without hosts passes only where
// nothing is asked of it.
func (r Rule) Judge(c Counts) Reason {
	switch counted := r.counted(c); {
	case c.Total == 0 && (r.MinHealthy > 0 || r.MinHealthyPercent > 0):
		return ClusterEmpty
	case counted < r.MinHealthy, 100*counted < r.MinHealthyPercent*c.Total:
		return ClusterUnhealthy
	}
	return OK
}

// Reason is why a probe is answered as it is.
type Reason uint8

// The reasons. OK passes, Held either passes or not, and no other does.
const (
	OK Reason = iota
	Draining
	ClusterUnknown // Envoy is known to have no cluster of this name
	ClusterEmpty
	ClusterUnhealthy
	Held  // the answer that stands, while the truth is another
	Stale // nobody has looked for too long
	Error
	reasons // how many there are
)

var reasonNames = [reasons]string{
	OK:               "ok",
	Draining:         "draining",
	ClusterUnknown:   "cluster_unknown",
	ClusterEmpty:     "cluster_empty",
	ClusterUnhealthy: "cluster_unhealthy",
	Held:             "held",
	Stale:            "stale",
	Error:            "error",
}

// String is the reason's name in metrics and details.
func (r Reason) String() string { return reasonNames[r] }

// Verdict is the answer to a probe, before it is put into words.
type Verdict struct {
	Reason Reason
	// Passing says whether the answer is a 200.
	Passing bool
	// Degraded is set where the verdict passes, and would not have without degraded hosts.
	Degraded bool
}

// judge says whether a cluster passes, by what was seen of it.
func (c Cluster) judge(s Sample) Reason {
	switch {
	case s.Stale:
		return Stale
	case s.Unknown: // whatever the minimums, as in Envoy's own filter
		return ClusterUnknown
	}
	return c.Rule.Judge(s.Counts)
}

// Judge is the policy of the clusters: enough of them must pass. samples[i] is of c.Clusters[i].
func (c *Config) Judge(samples []Sample) Verdict {
	passed, passedHealthy := 0, 0 // with degraded hosts counted where the rule counts them, and without
	firstFailure := OK
	for i, cluster := range c.Clusters {
		reason := cluster.judge(samples[i])
		if reason != OK {
			if firstFailure == OK {
				firstFailure = reason
			}
			continue
		}
		passed++
		strict := cluster.Rule
		strict.IgnoreDegraded = true
		if strict.Judge(samples[i].Counts) == OK {
			passedHealthy++
		}
	}
	if passed < c.Require {
		return Verdict{Reason: firstFailure}
	}
	return Verdict{Reason: OK, Passing: true, Degraded: passedHealthy < c.Require}
}
