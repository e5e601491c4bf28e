// Package admin is the source of clusters' health for an Envoy whose stats are filtered out, and for reports that name
// hosts: a background poller of Envoy's own admin interface.
package admin

import (
	"net"
	"strconv"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"healthgate/filter"
)

// cluster is what admin says of one cluster.
type cluster struct {
	counts filter.Counts
	hosts  []filter.HostState
}

// decode reads the answer to /clusters?format=json. Fields that this version does not know are ignored: Envoy adds some.
func decode(text []byte) (map[string]*cluster, error) {
	message := &adminv3.Clusters{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, message); err != nil {
		return nil, err
	}
	clusters := make(map[string]*cluster, len(message.GetClusterStatuses()))
	for _, status := range message.GetClusterStatuses() {
		c := &cluster{}
		for _, host := range status.GetHostStatuses() {
			health := healthOf(host.GetHealthStatus())
			c.counts.Total++
			switch health {
			case healthy:
				c.counts.Healthy++
			case degraded:
				c.counts.Degraded++
			}
			c.hosts = append(c.hosts, filter.HostState{Address: addressOf(host.GetAddress()), Status: health})
		}
		clusters[status.GetName()] = c
	}
	return clusters, nil
}

const (
	healthy  = "healthy"
	degraded = "degraded"
)

// healthOf puts a host where Envoy counts it: HostImpl::coarseHealth in source/common/upstream/upstream_impl.h. What makes
// a host unhealthy wins over what makes it degraded; either is named.
func healthOf(h *adminv3.HostHealthStatus) string {
	switch {
	case h.GetFailedActiveHealthCheck():
		return "failed active health check"
	case h.GetFailedOutlierCheck():
		return "ejected by outlier detection"
	}
	switch h.GetEdsHealthStatus() {
	case corev3.HealthStatus_UNHEALTHY:
		return "unhealthy by discovery"
	case corev3.HealthStatus_DRAINING:
		return "draining by discovery"
	case corev3.HealthStatus_TIMEOUT:
		return "timeout by discovery"
	case corev3.HealthStatus_DEGRADED:
		return degraded
	}
	if h.GetFailedActiveDegradedCheck() || h.GetFailedDegradedOutlierDetection() {
		return degraded
	}
	return healthy
}

func addressOf(a *corev3.Address) string {
	switch {
	case a.GetSocketAddress() != nil:
		port := strconv.FormatUint(uint64(a.GetSocketAddress().GetPortValue()), 10)
		return net.JoinHostPort(a.GetSocketAddress().GetAddress(), port)
	case a.GetPipe() != nil:
		return a.GetPipe().GetPath()
	}
	return a.GetEnvoyInternalAddress().GetServerListenerName()
}
