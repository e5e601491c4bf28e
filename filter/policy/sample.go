package policy

// Counts are the host counts of one cluster at one moment, as Envoy counts them.
type Counts struct {
	Healthy  uint64 // hosts that pass their health checks, without the degraded ones
	Degraded uint64 // hosts that Envoy uses only if there are too few healthy ones
	Total    uint64 // all hosts, also the unhealthy and the excluded; 0 for an unknown cluster
	// Excluded are the hosts that Envoy leaves out of its panic threshold: new ones before their first check with
	// ignore_new_hosts_until_first_hc, those with EDS status DRAINING, and those that failed because of x-envoy-immediate-health-check-fail
	// (excludeBasedOnHealthFlag in source/common/upstream/upstream_impl.cc of v1.39.1).
	// Total includes them. A source may leave it 0 if the rule counts excluded hosts.
	Excluded uint64
}

// Sample is the state of one cluster at one moment, from a source.
type Sample struct {
	Counts
	// Stale is set if the counts are older than stale_after.
	Stale bool
	// Unknown is set if Envoy has no cluster of this name. Only a source that can see this sets it: Envoy's gauges can't show it.
	Unknown bool
}

// Host is one host of a cluster, for a report.
type Host struct {
	Address string `json:"address"` // ip:port, or a path
	Status  string `json:"status"`  // healthy, degraded, or why it is unhealthy
}
