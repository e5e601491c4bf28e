package envoyadmin

import (
	"net"
	"strconv"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// State returns healthy or degraded, as Envoy counts a host, or the reason why it is unhealthy, in the words of /clusters:
// HostImpl::coarseHealth in source/common/upstream/upstream_impl.h. Unhealthy takes precedence over degraded.
func State(h *adminv3.HostHealthStatus) string {
	switch {
	case h.GetFailedActiveHealthCheck() && h.GetActiveHcTimeout():
		return "/failed_active_hc/active_hc_timeout: it does not answer Envoy's health check in time"
	case h.GetFailedActiveHealthCheck() && h.GetPendingActiveHc():
		return "/failed_active_hc/pending_active_hc: it waits for its first health check"
	case h.GetFailedActiveHealthCheck():
		return "/failed_active_hc: it fails Envoy's health check"
	case h.GetFailedOutlierCheck():
		return "/failed_outlier_check: outlier detection has ejected it"
	}
	switch status := h.GetEdsHealthStatus(); status {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY:
	case corev3.HealthStatus_DEGRADED:
		return Degraded
	default:
		return "/eds_status_unhealthy: EDS reports " + status.String()
	}
	if h.GetFailedActiveDegradedCheck() || h.GetFailedDegradedOutlierDetection() {
		return Degraded
	}
	return Healthy
}

// The states of hosts that serve.
const (
	Healthy  = "healthy"
	Degraded = "degraded"
)

// Excluded reports whether Envoy excludes a host from its panic threshold: excludeBasedOnHealthFlag in
// source/common/upstream/upstream_impl.cc.
func Excluded(h *adminv3.HostHealthStatus) bool {
	return h.GetPendingActiveHc() || h.GetExcludedViaImmediateHcFail() || h.GetEdsHealthStatus() == corev3.HealthStatus_DRAINING
}

// Endpoint returns an address as ip:port, or a path.
func Endpoint(a *corev3.Address) string {
	if socket := a.GetSocketAddress(); socket != nil {
		return net.JoinHostPort(socket.GetAddress(), strconv.FormatUint(uint64(socket.GetPortValue()), 10))
	}
	if pipe := a.GetPipe(); pipe != nil {
		return pipe.GetPath()
	}
	return strings.TrimSpace(a.GetEnvoyInternalAddress().GetServerListenerName())
}
