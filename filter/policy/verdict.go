package policy

// Rule is the condition for one cluster to pass.
type Rule struct {
	MinHealthy        uint64 // counted hosts, 0 to 1000000; default 1
	MinHealthyPercent uint64 // counted hosts in percent of the total, 0 to 100; default 0
	IgnoreDegraded    bool   // count healthy hosts only; default false, like Envoy's health_check filter
	IgnoreExcluded    bool   // subtract membership_excluded from the total; default false, like Envoy's health_check filter
}

// Cluster is one cluster of Envoy and its rule.
type Cluster struct {
	// Name is the cluster's name in Envoy.
	Name string
	// StatName is the name in the cluster's stats: its alt_stat_name if it sets one, else Name.
	StatName string
	Rule     Rule
}

// Policy combines the rules of several clusters.
type Policy struct {
	// Clusters are the clusters to sample. The first one that fails gives the reason of a failing verdict.
	Clusters []Cluster
	// Require is how many of Clusters must pass, 1 to len(Clusters); 0 without clusters.
	Require int
}

// Verdict is pass or fail, with its reason.
type Verdict struct {
	Reason  Reason
	Passing bool
	// Degraded is set if the verdict passes only because of degraded hosts.
	Degraded bool
}

// Counted returns how many hosts count under the rule.
func (r Rule) Counted(c Counts) uint64 {
	if r.IgnoreDegraded {
		return c.Healthy
	}
	return c.Healthy + c.Degraded
}

func (r Rule) total(c Counts) uint64 {
	if r.IgnoreExcluded {
		return c.Total - min(c.Excluded, c.Total)
	}
	return c.Total
}

// enough compares like Envoy's health_check filter: in integers, without rounding.
func (r Rule) enough(counted, total uint64) bool {
	return counted >= r.MinHealthy && 100*counted >= r.MinHealthyPercent*total
}

// Evaluate returns the verdict on one cluster, whose reason is OK, Stale, ClusterUnknown, ClusterEmpty or ClusterUnhealthy. A stale or
// unknown cluster fails whatever the minimums are. A cluster without hosts passes only if both minimums are 0.
func (c Cluster) Evaluate(s Sample) Verdict {
	counted, total := c.Rule.Counted(s.Counts), c.Rule.total(s.Counts)
	switch {
	case s.Stale:
		return Verdict{Reason: Stale}
	case s.Unknown:
		return Verdict{Reason: ClusterUnknown}
	case total == 0 && (c.Rule.MinHealthy > 0 || c.Rule.MinHealthyPercent > 0):
		return Verdict{Reason: ClusterEmpty}
	case !c.Rule.enough(counted, total):
		return Verdict{Reason: ClusterUnhealthy}
	}
	return Verdict{Reason: OK, Passing: true, Degraded: !c.Rule.enough(s.Healthy, total)}
}

// Evaluate returns the verdict on all clusters; samples[i] belongs to p.Clusters[i].
func (p *Policy) Evaluate(samples []Sample) Verdict {
	passed, passedWithoutDegraded := 0, 0
	firstFailure := OK
	for i := range p.Clusters {
		switch verdict := p.Clusters[i].Evaluate(samples[i]); {
		case verdict.Passing && !verdict.Degraded:
			passed++
			passedWithoutDegraded++
		case verdict.Passing:
			passed++
		case firstFailure == OK:
			firstFailure = verdict.Reason
		}
	}
	if passed < p.Require {
		return Verdict{Reason: firstFailure}
	}
	return Verdict{Reason: OK, Passing: true, Degraded: passedWithoutDegraded < p.Require}
}
