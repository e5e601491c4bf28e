// Package admin is the source of clusters' health for an Envoy whose stats are filtered out, and for reports that name
// hosts: a background poller of Envoy's own admin interface.
package admin

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"

	"healthgate/filter"
)

// cluster is what admin says of one cluster.
type cluster struct {
	counts filter.Counts
	hosts  []filter.HostState
}

// clusters is what is read of envoy.admin.v3.Clusters, in JSON as Envoy writes it: fields by their names in the proto, and
// left out where they have their default. The type that go-control-plane has of it brings all of Envoy's API, which would
// be nearly half of the plugin.
type clusters struct {
	Statuses []struct {
		Name  string `json:"name"`
		Hosts []struct {
			Address address `json:"address"`
			Health  health  `json:"health_status"`
		} `json:"host_statuses"`
	} `json:"cluster_statuses"`
}

// address is what is read of envoy.config.core.v3.Address.
type address struct {
	Socket *struct {
		Address string `json:"address"`
		Port    uint32 `json:"port_value"`
	} `json:"socket_address"`
	Pipe *struct {
		Path string `json:"path"`
	} `json:"pipe"`
	Internal struct {
		Listener string `json:"server_listener_name"`
	} `json:"envoy_internal_address"`
}

// health is what is read of envoy.admin.v3.HostHealthStatus.
type health struct {
	FailedActive          bool   `json:"failed_active_health_check"`
	FailedOutlier         bool   `json:"failed_outlier_check"`
	FailedActiveDegraded  bool   `json:"failed_active_degraded_check"`
	FailedOutlierDegraded bool   `json:"failed_degraded_outlier_detection"`
	Discovery             string `json:"eds_health_status"` // a value of envoy.config.core.v3.HealthStatus
}

// decode reads the answer to /clusters?format=json. Fields that this version does not know are ignored: Envoy adds some.
func decode(text []byte) (map[string]*cluster, error) {
	var message clusters
	if err := json.Unmarshal(text, &message); err != nil {
		return nil, err
	}
	all := make(map[string]*cluster, len(message.Statuses))
	for _, status := range message.Statuses {
		c := &cluster{}
		for _, host := range status.Hosts {
			state := host.Health.String()
			c.counts.Total++
			switch state {
			case healthy:
				c.counts.Healthy++
			case degraded:
				c.counts.Degraded++
			}
			c.hosts = append(c.hosts, filter.HostState{Address: host.Address.String(), Status: state})
		}
		all[status.Name] = c
	}
	return all, nil
}

const (
	healthy  = "healthy"
	degraded = "degraded"
)

// String puts a host where Envoy counts it: HostImpl::coarseHealth in source/common/upstream/upstream_impl.h. What makes
// a host unhealthy wins over what makes it degraded; either is named.
func (h health) String() string {
	switch {
	case h.FailedActive:
		return "failed active health check"
	case h.FailedOutlier:
		return "ejected by outlier detection"
	}
	switch h.Discovery {
	case "", "UNKNOWN", "HEALTHY":
	case "DEGRADED":
		return degraded
	default: // also what a later Envoy may say, and this does not know
		return strings.ToLower(h.Discovery) + " by discovery"
	}
	if h.FailedActiveDegraded || h.FailedOutlierDegraded {
		return degraded
	}
	return healthy
}

func (a address) String() string {
	switch {
	case a.Socket != nil:
		return net.JoinHostPort(a.Socket.Address, strconv.FormatUint(uint64(a.Socket.Port), 10))
	case a.Pipe != nil:
		return a.Pipe.Path
	}
	return a.Internal.Listener
}
