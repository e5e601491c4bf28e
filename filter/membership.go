package filter

import "time"

// Counts is one cluster's membership at one moment, as Envoy counts it.
type Counts struct {
	Healthy  uint64 // hosts that are healthy, not counting the degraded
	Degraded uint64 // hosts that can serve, but said that they would rather not
	Total    uint64 // all hosts, with those that are unhealthy or excluded; 0 for a cluster that Envoy does not know
	// Excluded are the hosts that Envoy leaves out of its panic threshold: new ones before their first check with
	// ignore_new_hosts_until_first_hc, those that EDS calls DRAINING, and those that failed by
	// x-envoy-immediate-health-check-fail (excludeBasedOnHealthFlag in source/common/upstream/upstream_impl.cc of v1.39.1).
	// They are in Total. A source may leave it 0 where the configuration counts them.
	Excluded uint64
}

// Sample is what a source says of one cluster at one moment.
type Sample struct {
	Counts
	// Stale says that the counts may no longer be true: nobody has looked for longer than the configuration allows.
	Stale bool
	// Unknown says that Envoy has no cluster of this name. Only a source that can tell sets it: Envoy's gauges can't.
	Unknown bool
}

// Source is where the health of a configuration's clusters comes from.
type Source interface {
	// Sample says how the i-th cluster of the configuration is. It neither waits nor allocates, and is safe for use from
	// any thread.
	Sample(now time.Time, i int) Sample
}

// HostSource is a Source that knows the hosts too.
type HostSource interface {
	// Hosts returns the hosts of the i-th cluster, as they were last seen. The result is shared: read it only.
	Hosts(i int) []HostState
}

// DrainSource is a Source that knows by itself whether Envoy is to fail its health checks.
type DrainSource interface {
	// Draining says whether Envoy was draining when the source last looked, and whether it ever has. It neither waits nor
	// allocates, and is safe for use from any thread.
	Draining() (draining, known bool)
}

// HostState is one host of a cluster, for a report.
type HostState struct {
	Address string `json:"address"` // ip:port, or a path
	Status  string `json:"status"`  // healthy, degraded, or why it is unhealthy
}
