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

// The reasons. OK alone passes.
const (
	OK Reason = iota
	Draining
	ClusterEmpty
	ClusterUnhealthy
	Error
	reasons // how many there are
)

var reasonNames = [reasons]string{
	OK:               "ok",
	Draining:         "draining",
	ClusterEmpty:     "cluster_empty",
	ClusterUnhealthy: "cluster_unhealthy",
	Error:            "error",
}

// String is the reason's name in metrics.
func (r Reason) String() string { return reasonNames[r] }

// Verdict is the answer to a probe, before it is put into words.
type Verdict struct {
	Reason Reason
	// Degraded is set where the verdict passed, and would not have without degraded hosts.
	Degraded bool
	// Cluster is the index of the first cluster that fails, where a cluster is the reason.
	Cluster int
}

// Pass says whether the verdict is a 200.
func (v Verdict) Pass() bool { return v.Reason == OK }

// Judge is the policy: draining wins over everything, then enough of the clusters must pass. counts[i] is the membership
// of c.Clusters[i].
func (c *Config) Judge(draining bool, counts []Counts) Verdict {
	if draining && !c.IgnoreDrain {
		return Verdict{Reason: Draining}
	}
	passed, passedHealthy := 0, 0 // with degraded hosts counted where the rule counts them, and without
	failing := Verdict{}
	for i, cluster := range c.Clusters {
		reason := cluster.Rule.Judge(counts[i])
		if reason != OK {
			if failing.Pass() {
				failing = Verdict{Reason: reason, Cluster: i}
			}
			continue
		}
		passed++
		strict := cluster.Rule
		strict.IgnoreDegraded = true
		if strict.Judge(counts[i]) == OK {
			passedHealthy++
		}
	}
	if passed < c.Require {
		return failing
	}
	return Verdict{Degraded: passedHealthy < c.Require}
}
