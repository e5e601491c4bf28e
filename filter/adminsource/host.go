package adminsource

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
)

// host is envoy.admin.v3.HostStatus, with only the fields that are needed: the types of go-control-plane would link all of Envoy's API.
// Envoy's JSON has the fields' names in the proto, and leaves out a field that has its default. Unknown fields are ignored, because later
// versions of Envoy add some.
type host struct {
	Address address `json:"address"`
	Health  health  `json:"health_status"`
}

// address is envoy.config.core.v3.Address.
type address struct {
	Socket *struct {
		Address string `json:"address"`
		Port    uint32 `json:"port_value"`
	} `json:"socket_address"`
	Pipe struct {
		Path string `json:"path"`
	} `json:"pipe"`
	Internal struct {
		Listener string `json:"server_listener_name"`
	} `json:"envoy_internal_address"`
}

// health is envoy.admin.v3.HostHealthStatus.
type health struct {
	FailedActive          bool   `json:"failed_active_health_check"`
	FailedOutlier         bool   `json:"failed_outlier_check"`
	FailedActiveDegraded  bool   `json:"failed_active_degraded_check"`
	FailedOutlierDegraded bool   `json:"failed_degraded_outlier_detection"`
	PendingActive         bool   `json:"pending_active_hc"`
	ExcludedImmediately   bool   `json:"excluded_via_immediate_hc_fail"`
	Discovery             string `json:"eds_health_status"` // a value of envoy.config.core.v3.HealthStatus
}

const (
	healthy  = "healthy"
	degraded = "degraded"
)

// status returns healthy, degraded, or why Envoy counts the host as unhealthy: HostImpl::coarseHealth in
// source/common/upstream/upstream_impl.h. A reason to be unhealthy wins over a reason to be degraded.
func (h *health) status() string {
	switch {
	case h.FailedActive:
		return "failed active health check"
	case h.FailedOutlier:
		return "ejected by outlier detection"
	case !slices.Contains([]string{"", "UNKNOWN", "HEALTHY", "DEGRADED"}, h.Discovery): // also one that only a later Envoy has
		return strings.ToLower(h.Discovery) + " by discovery"
	case h.Discovery == "DEGRADED", h.FailedActiveDegraded, h.FailedOutlierDegraded:
		return degraded
	}
	return healthy
}

// isExcluded reports whether Envoy leaves the host out of its panic threshold, healthy or not: excludeBasedOnHealthFlag in
// source/common/upstream/upstream_impl.cc.
func (h *health) isExcluded() bool {
	return h.PendingActive || h.ExcludedImmediately || h.Discovery == "DRAINING"
}

func (a *address) String() string {
	if a.Socket != nil {
		return net.JoinHostPort(a.Socket.Address, strconv.FormatUint(uint64(a.Socket.Port), 10))
	}
	return cmp.Or(a.Pipe.Path, a.Internal.Listener)
}
