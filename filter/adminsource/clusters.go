// Package adminsource is the source of clusters' health for an Envoy whose stats are filtered out, and for reports that name
// hosts: a background poller of Envoy's own admin interface. It can tell a cluster that is not there from an empty one, and
// knows whether Envoy fails its health checks.
package adminsource

import (
	"io"
	"net"
	"strconv"
	"strings"

	"healthgate/filter/policy"
)

// maxHosts is how many hosts of a cluster are kept for a report: the first that Envoy names. All are counted.
const maxHosts = 1000

// wanted are the names of clusters to read; true where a report wants the hosts too.
type wanted map[string]bool

// cluster is what admin says of one cluster.
type cluster struct {
	counts policy.Counts
	hosts  []policy.Host // at most maxHosts
}

// readClusters reads the answer to /clusters?format=json, and returns those of the wanted clusters that Envoy has. An answer
// that is cut short is an error.
//
// The answer is an envoy.admin.v3.Clusters in JSON as Envoy writes it: fields by their names in the proto, in any order, and
// left out where they have their default. The type that go-control-plane has of it brings all of Envoy's API, which would be
// nearly half of the plugin. Fields that this version does not know are ignored: Envoy adds some. Where a field or a cluster
// is repeated, the last one counts.
func readClusters(answer io.Reader, wanted wanted) (map[string]*cluster, error) {
	found := make(map[string]*cluster, len(wanted))
	s := newStream(answer)
	err := s.object(func(field string) error {
		if field != "cluster_statuses" {
			return s.skip()
		}
		clear(found)
		return s.list(func() error {
			name, c, err := readCluster(s)
			hosts, want := wanted[name]
			if err != nil || !want {
				return err
			}
			if !hosts {
				c.hosts = nil
			}
			found[name] = c
			return nil
		})
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// readCluster reads an envoy.admin.v3.ClusterStatus. The name may come last, so the hosts of every cluster are read.
func readCluster(s stream) (name string, c *cluster, err error) {
	c = &cluster{}
	err = s.object(func(field string) (err error) {
		switch field {
		case "name":
			name, err = s.text()
			return err
		case "host_statuses":
			*c = cluster{}
			return s.list(func() error {
				var h *host
				if err := s.value(&h); err != nil {
					return err
				}
				if h == nil {
					return misplaced(nil, "a host")
				}
				c.add(h)
				return nil
			})
		}
		return s.skip()
	})
	return name, c, err
}

// add counts a host where Envoy's own gauges count it.
func (c *cluster) add(h *host) {
	state := h.Health.String()
	c.counts.Total++
	switch state {
	case healthy:
		c.counts.Healthy++
	case degraded:
		c.counts.Degraded++
	}
	if h.Health.excluded() {
		c.counts.Excluded++
	}
	if len(c.hosts) < maxHosts {
		c.hosts = append(c.hosts, policy.Host{Address: h.Address.String(), Status: state})
	}
}

// host is what is read of envoy.admin.v3.HostStatus.
type host struct {
	Address address `json:"address"`
	Health  health  `json:"health_status"`
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
	PendingActive         bool   `json:"pending_active_hc"`
	ExcludedImmediately   bool   `json:"excluded_via_immediate_hc_fail"`
	Discovery             string `json:"eds_health_status"` // a value of envoy.config.core.v3.HealthStatus
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

// excluded says whether Envoy leaves the host out of its panic threshold: excludeBasedOnHealthFlag in
// source/common/upstream/upstream_impl.cc. It is asked of each host, healthy or not.
func (h health) excluded() bool {
	return h.PendingActive || h.ExcludedImmediately || h.Discovery == "DRAINING"
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
