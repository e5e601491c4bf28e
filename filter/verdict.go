package filter

// Rule is what is asked of one cluster.
type Rule struct {
	MinHealthy        uint64 // hosts that must count, 0 to 1000000; default 1
	MinHealthyPercent uint64 // per cent of the cluster's hosts that must count, 0 to 100; default 0
	IgnoreDegraded    bool   // count healthy hosts alone; default false, as Envoy's health_check filter has it
	IgnoreExcluded    bool   // leave membership_excluded out of the cluster's hosts; default false, as Envoy's filter has it
}

// Finding is how one cluster was found.
type Finding struct {
	Reason Reason // OK, or why the cluster fails
	// Degraded is set where the cluster passes, and would not have without degraded hosts.
	Degraded bool
}

// counted is how many hosts count under the rule.
func (r Rule) counted(c Counts) uint64 {
	if r.IgnoreDegraded {
		return c.Healthy
	}
	return c.Healthy + c.Degraded
}

// total is of how many hosts they are counted.
func (r Rule) total(c Counts) uint64 {
	if r.IgnoreExcluded {
		return c.Total - min(c.Excluded, c.Total)
	}
	return c.Total
}

// enough compares as Envoy's health_check filter does: in whole numbers, and without rounding.
func (r Rule) enough(counted, total uint64) bool {
	return counted >= r.MinHealthy && 100*counted >= r.MinHealthyPercent*total
}

// Judge finds OK, ClusterEmpty or ClusterUnhealthy. A cluster without hosts passes only where nothing is asked of it.
func (r Rule) Judge(c Counts) Finding {
	total := r.total(c)
	switch {
	case total == 0 && (r.MinHealthy > 0 || r.MinHealthyPercent > 0):
		return Finding{Reason: ClusterEmpty}
	case !r.enough(r.counted(c), total):
		return Finding{Reason: ClusterUnhealthy}
	}
	return Finding{Reason: OK, Degraded: !r.enough(c.Healthy, total)}
}

// Judge finds how a cluster is by what was seen of it. What is not known comes before the rule: a stale cluster and one
// that Envoy does not have fail whatever the minimums, the second as in Envoy's own filter.
func (c Cluster) Judge(s Sample) Finding {
	switch {
	case s.Stale:
		return Finding{Reason: Stale}
	case s.Unknown:
		return Finding{Reason: ClusterUnknown}
	}
	return c.Rule.Judge(s.Counts)
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

// String is the reason's name in metrics.
func (r Reason) String() string { return reasonNames[r] }

// Verdict is the answer to a probe, before it is put into words.
type Verdict struct {
	Reason Reason
	// Passing says whether the answer is a 200.
	Passing bool
	// Degraded is set where the verdict passes, and would not have without degraded hosts.
	Degraded bool
}

// Policy is what is asked of the clusters together: enough of them must pass.
type Policy struct {
	// Clusters are the clusters whose health is asked, in the order in which their failures are reported. At least one.
	Clusters []Cluster
	// Require is how many of Clusters must pass, from 1 to len(Clusters).
	Require int
}

// Judge gives the verdict on the clusters: samples[i] is of p.Clusters[i]. The reason of a failure is that of the first
// cluster that fails.
func (p *Policy) Judge(samples []Sample) Verdict {
	passed, passedHealthy := 0, 0 // with degraded hosts counted where the rule counts them, and without
	firstFailure := OK
	for i := range p.Clusters {
		switch found := p.Clusters[i].Judge(samples[i]); {
		case found.Reason == OK:
			passed++
			if !found.Degraded {
				passedHealthy++
			}
		case firstFailure == OK:
			firstFailure = found.Reason
		}
	}
	if passed < p.Require {
		return Verdict{Reason: firstFailure}
	}
	return Verdict{Reason: OK, Passing: true, Degraded: passedHealthy < p.Require}
}
