package adminsource

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"healthgate/filter/policy"
)

// The types of this package read what Envoy's own types have written.
func TestReadClustersAgreesWithEnvoysTypes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		message := &adminv3.Clusters{}
		want, asked := map[string]*cluster{}, wanted{"unknown": true}
		for i := range r.IntN(3) {
			status, c := randomStatus(r, fmt.Sprint("cluster", i))
			message.ClusterStatuses = append(message.ClusterStatuses, status)
			if r.IntN(4) == 0 { // unwanted
				continue
			}
			asked[status.Name] = r.IntN(4) == 0
			if !asked[status.Name] {
				c.hosts = nil
			}
			want[status.Name] = c
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: r.IntN(4) == 0}.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		got, err := asked.readClusters(bytes.NewReader(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %s: got %s, %v, want %s", seed, text, tally(got), err, tally(want))
		}
	}
}

// randomStatus returns a cluster, and what readClusters must return for it.
func randomStatus(r *rand.Rand, name string) (*adminv3.ClusterStatus, *cluster) {
	some := func() bool { return r.IntN(4) == 0 }
	status, c := &adminv3.ClusterStatus{Name: name, AddedViaApi: some()}, &cluster{}
	for range r.IntN(5) {
		health := &adminv3.HostHealthStatus{
			FailedActiveHealthCheck: some(), FailedOutlierCheck: some(), FailedActiveDegradedCheck: some(),
			FailedDegradedOutlierDetection: some(), PendingActiveHc: some(), ActiveHcTimeout: some(),
			ExcludedViaImmediateHcFail: some(), PendingDynamicRemoval: some(),
			EdsHealthStatus: corev3.HealthStatus(r.IntN(len(corev3.HealthStatus_name))),
		}
		at, where := randomAddress(r)
		status.HostStatuses = append(status.HostStatuses, &adminv3.HostStatus{
			Address: at, HealthStatus: health, Weight: r.Uint32(), Hostname: "service",
		})
		c.hosts = append(c.hosts, policy.Host{Address: where, Status: stateOf(health)})
		c.counts.Total++
		switch stateOf(health) {
		case "healthy":
			c.counts.Healthy++
		case "degraded":
			c.counts.Degraded++
		}
		if excluded(health) {
			c.counts.Excluded++
		}
	}
	return status, c
}

// randomAddress returns an address, and how it is shown.
func randomAddress(r *rand.Rand) (*corev3.Address, string) {
	switch r.IntN(3) {
	case 0:
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: `/run/"a"`}}}, `/run/"a"`
	case 1:
		return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
			AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: "internal"},
		}}}, "internal"
	}
	port, ip := r.Uint32N(65536), [][2]string{{"10.0.0.1", "10.0.0.1"}, {"::1", "[::1]"}}[r.IntN(2)]
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ip[0], PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}, fmt.Sprintf("%s:%d", ip[1], port)
}

// stateOf is coarseHealth of Envoy v1.39.1's HostImpl, by its own types.
func stateOf(h *adminv3.HostHealthStatus) string {
	switch eds := h.GetEdsHealthStatus(); {
	case h.GetFailedActiveHealthCheck():
		return "failed active health check"
	case h.GetFailedOutlierCheck():
		return "ejected by outlier detection"
	case eds == corev3.HealthStatus_UNHEALTHY:
		return "unhealthy by discovery"
	case eds == corev3.HealthStatus_DRAINING:
		return "draining by discovery"
	case eds == corev3.HealthStatus_TIMEOUT:
		return "timeout by discovery"
	case eds == corev3.HealthStatus_DEGRADED, h.GetFailedActiveDegradedCheck(), h.GetFailedDegradedOutlierDetection():
		return "degraded"
	}
	return "healthy"
}

// excluded is excludeBasedOnHealthFlag of Envoy v1.39.1's upstream_impl.cc, by its own types.
func excluded(h *adminv3.HostHealthStatus) bool {
	return h.GetPendingActiveHc() || h.GetExcludedViaImmediateHcFail() || h.GetEdsHealthStatus() == corev3.HealthStatus_DRAINING
}

func TestReadDrainingKnowsEveryState(t *testing.T) {
	for number, name := range adminv3.ServerInfo_State_name {
		t.Run(name, func(t *testing.T) {
			state := adminv3.ServerInfo_State(number)
			for _, always := range []bool{true, false} {
				text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: always}.Marshal(&adminv3.ServerInfo{
					Version: "1", State: state, Node: &corev3.Node{Id: "a"},
				})
				if err != nil {
					t.Fatal(err)
				}
				draining, err := readDraining(bytes.NewReader(text))
				if err != nil || draining != (state == adminv3.ServerInfo_DRAINING) {
					t.Errorf("%s: got %v, %v", text, draining, err)
				}
			}
		})
	}
}
