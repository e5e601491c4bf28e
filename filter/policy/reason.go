package policy

// Reason is the reason for a verdict.
type Reason uint8

// The reasons. OK passes, Held passes or fails, and all others fail.
const (
	OK Reason = iota
	Draining
	ClusterUnknown // Envoy has no cluster of this name
	ClusterEmpty
	ClusterUnhealthy
	Held  // hold delays a change of the verdict
	Stale // the data is older than stale_after
	Error
	Reasons // the number of reasons
)

var reasonNames = [Reasons]string{
	OK:               "ok",
	Draining:         "draining",
	ClusterUnknown:   "cluster_unknown",
	ClusterEmpty:     "cluster_empty",
	ClusterUnhealthy: "cluster_unhealthy",
	Held:             "held",
	Stale:            "stale",
	Error:            "error",
}

// String returns the reason's name in metrics.
func (r Reason) String() string { return reasonNames[r] }

// Details returns the reason as response code details, as Envoy logs them.
func (r Reason) Details() string { return "healthgate_" + r.String() }
