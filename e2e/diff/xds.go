package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"healthgate/e2e/bed"

	// The types that resources name.
	_ "github.com/cncf/xds/go/xds/type/v3"
	_ "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// node is Envoy's name to the control plane.
const node = "diff"

// control is an xDS server for one Envoy, over one aggregated stream.
type control struct {
	cache   cachev3.SnapshotCache
	address *net.TCPAddr
	server  *grpc.Server
	admin   string // where gates that hang on time find Envoy's admin interface; without, there are none
	version int
}

func newControl(ctx context.Context) (*control, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &control{cache: cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil), address: listener.Addr().(*net.TCPAddr), server: grpc.NewServer()}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(c.server, serverv3.NewServer(ctx, c.cache, nil))
	go func() { _ = c.server.Serve(listener) }() // until it is stopped
	return c, nil
}

// push gives Envoy a world, and returns the version by which it is known there.
func (c *control) push(w *World, servers int) (version string, err error) {
	c.version++
	version = strconv.Itoa(c.version)
	resources := map[resourcev3.Type][]types.Resource{}
	for i, cluster := range w.Clusters {
		if cluster.Present {
			message, err := clusterOf(i, cluster)
			if err != nil {
				return "", err
			}
			resources[resourcev3.ClusterType] = append(resources[resourcev3.ClusterType], message)
			resources[resourcev3.EndpointType] = append(resources[resourcev3.EndpointType], assignmentOf(i, cluster, servers))
		}
	}
	listener, routes, err := listenerOf(w, c.admin)
	if err != nil {
		return "", err
	}
	resources[resourcev3.ListenerType] = []types.Resource{listener}
	resources[resourcev3.RouteType] = []types.Resource{routes}
	snapshot, err := cachev3.NewSnapshot(version, resources)
	if err != nil {
		return "", err
	}
	if err := snapshot.Consistent(); err != nil {
		return "", err
	}
	return version, c.cache.SetSnapshot(context.Background(), node, snapshot)
}

// ads is the source of every resource.
var ads = map[string]any{"ads": map[string]any{}, "resource_api_version": "V3"}

func clusterOf(i int, c Cluster) (*clusterv3.Cluster, error) {
	tree := map[string]any{
		"name": name(i), "type": "EDS", "connect_timeout": "0.25s",
		"eds_cluster_config": map[string]any{"eds_config": ads},
		"common_lb_config":   map[string]any{"healthy_panic_threshold": map[string]any{"value": c.Panic}},
	}
	switch i {
	case ejecting:
		// One failure ejects, every host may be, and none comes back.
		tree["outlier_detection"] = map[string]any{
			"consecutive_5xx": 1, "max_ejection_percent": 100, "base_ejection_time": "86400s", "interval": "3600s",
			"enforcing_success_rate": 0, "enforcing_consecutive_gateway_failure": 0,
		}
	case checked:
		tree["ignore_health_on_host_removal"] = true
		tree["health_checks"] = []any{map[string]any{
			"timeout": "2s", "interval": "0.03s", "no_traffic_interval": "0.03s", "no_traffic_healthy_interval": "0.03s",
			"unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": map[string]any{"path": "/health"},
		}}
	}
	message := &clusterv3.Cluster{}
	return message, fromTree(tree, message)
}

func assignmentOf(i int, c Cluster, servers int) *endpointv3.ClusterLoadAssignment {
	type group struct{ priority, locality int }
	groups := map[group]*endpointv3.LocalityLbEndpoints{}
	assignment := &endpointv3.ClusterLoadAssignment{ClusterName: name(i)}
	for h := range most {
		host, ok := c.Hosts[h]
		if !ok {
			continue
		}
		port := 1 // nobody's
		if i == ejecting || i == checked {
			port = servers
		}
		at := group{host.Priority, host.Locality}
		if groups[at] == nil {
			groups[at] = &endpointv3.LocalityLbEndpoints{
				Priority: uint32(at.priority),
				Locality: &corev3.Locality{Zone: fmt.Sprint("zone", at.locality)},
			}
			assignment.Endpoints = append(assignment.Endpoints, groups[at])
		}
		endpoint := &endpointv3.LbEndpoint{}
		tree := bed.Endpoint(fmt.Sprint(address(i, h), ":", port))
		tree["health_status"] = host.State
		tree["load_balancing_weight"] = host.Weight
		if err := fromTree(tree, endpoint); err != nil {
			panic(err) // made here
		}
		groups[at].LbEndpoints = append(groups[at].LbEndpoints, endpoint)
	}
	// Envoy refuses a priority without the one before it.
	for p := range 3 {
		assignment.Endpoints = append(assignment.Endpoints, &endpointv3.LocalityLbEndpoints{
			Priority: uint32(p), Locality: &corev3.Locality{Zone: "nobody"},
		})
	}
	return assignment
}

// listenerOf makes the listener of the reference configuration one with the world's gates, each on a path of its own, and its
// routes a resource.
func listenerOf(w *World, admin string) (*listenerv3.Listener, *routev3.RouteConfiguration, error) {
	config, err := bed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return nil, nil, err
	}
	config.Set(bed.Listener+".address.socket_address", map[string]any{"address": "127.0.0.1", "port_value": 0})
	config.Delete("static_resources.listeners.0.filter_chains.0.transport_socket")
	config.Delete(bed.HCM + ".access_log")
	gate := func(name string, plugin map[string]any) any {
		filter := config.Part(bed.Healthgate)
		filter.Set("name", name)
		filter.Delete("disabled")
		filter.Set("typed_config.plugin_config.value", plugin)
		return filter.Get("")
	}
	var everything Policy // holds all clusters' gauges, so that what a ghost says does not hang on who else asks for it
	everything.Drain = "ignore"
	for i := range w.Clusters {
		everything.Clusters = append(everything.Clusters, Requirement{Cluster: i, Degraded: "count"})
	}
	keeper := gate("keeper", everything.plugin("/keeper", "keeper"))
	marked := fmt.Sprint(w.Gates)
	for _, response := range []string{"healthy", "unhealthy"} {
		set := keeper.(map[string]any)["typed_config"].(map[string]any)["plugin_config"].(map[string]any)["value"].(map[string]any)
		set["response"].(map[string]any)[response] = map[string]any{"body": marked}
	}
	filters := []any{keeper}
	for i, policy := range w.Gates {
		filters = append(filters, gate(fmt.Sprint("gate", i), policy.plugin(fmt.Sprint("/gate/", i), fmt.Sprint("gate", i))))
		if policy.equivalent() {
			filters = append(filters, policy.native(fmt.Sprint("/native/", i)))
		}
	}
	for path, also := range timed(admin) {
		policy := everything.plugin(path, path[1:])
		maps.Copy(policy, also)
		filters = append(filters, gate(path[1:], policy))
	}
	routed := gate("healthgate", everything.plugin("/nothing", "routed")).(map[string]any)
	routed["disabled"] = true
	filters = append(filters, routed)
	all := config.Get(bed.HTTPFilters).([]any)
	config.Set(bed.HTTPFilters, append(filters, all[len(all)-1]))

	routes := config.Part(bed.HCM + ".route_config")
	routes.Set("name", "routes")
	var list []any
	for i, policy := range w.Routes {
		path := fmt.Sprint("/route/", i)
		list = append(list, map[string]any{
			"match": map[string]any{"path": path}, "direct_response": map[string]any{"status": 503},
			"typed_per_filter_config": map[string]any{"healthgate": map[string]any{
				"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
				"config": map[string]any{
					"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute",
					"plugins_config": map[string]any{"healthgate": map[string]any{"config": map[string]any{
						"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": policy.plugin(path, fmt.Sprint("route", i)),
					}}},
				},
			}},
		})
	}
	list = append(list,
		map[string]any{"match": map[string]any{"path": "/routes"}, "direct_response": map[string]any{
			"status": 200, "body": map[string]any{"inline_string": fmt.Sprint(w.Routes)}}},
		map[string]any{"match": map[string]any{"prefix": "/eject"}, "route": map[string]any{"cluster": name(ejecting)}})
	routes.Set("virtual_hosts.0.routes", list)
	config.Delete(bed.HCM + ".route_config")
	config.Set(bed.HCM+".rds", map[string]any{"route_config_name": "routes", "config_source": ads})
	config.SwapGolang()
	routes.SwapGolang()

	listener, routing := &listenerv3.Listener{}, &routev3.RouteConfiguration{}
	if err := fromTree(config.Get(bed.Listener), listener); err != nil {
		return nil, nil, err
	}
	return listener, routing, fromTree(routes.Get(""), routing)
}

// timed are the gates that hang on time, by their paths, each with what it has besides.
func timed(admin string) map[string]map[string]any {
	if admin == "" {
		return nil
	}
	return map[string]map[string]any{
		"/held":  {"hold": map[string]any{"unhealthy_after": "0.5s", "healthy_after": "0.2s"}},
		"/stale": {"clusters": []any{name(checked)}, "stale_after": "1s"},
		"/admin": {"source": "admin", "stale_after": "2s", "admin": map[string]any{"address": admin, "interval": "0.2s"}},
	}
}

// plugin is a policy as the plugin's configuration.
func (p Policy) plugin(path, prefix string) map[string]any {
	var clusters []any
	for _, r := range p.Clusters {
		clusters = append(clusters, map[string]any{
			"name": name(r.Cluster), "min_healthy": r.MinHealthy, "min_healthy_percent": r.MinPercent, "degraded": r.Degraded,
		})
	}
	tree := map[string]any{
		"path": path, "clusters": clusters, "drain": p.Drain, "stat_prefix": prefix, "response": map[string]any{"details": true},
	}
	if p.Require != nil {
		tree["require"] = p.Require
	}
	return tree
}

// native is a policy as the configuration of Envoy's own filter.
func (p Policy) native(path string) map[string]any {
	percentages := map[string]any{}
	for _, r := range p.Clusters {
		percentages[name(r.Cluster)] = map[string]any{"value": r.MinPercent}
	}
	return map[string]any{"name": path, "typed_config": map[string]any{
		"@type":                           "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
		"pass_through_mode":               false,
		"cluster_min_healthy_percentages": percentages,
		"headers":                         []any{map[string]any{"name": ":path", "string_match": map[string]any{"exact": path}}},
	}}
}

func fromTree(tree any, message proto.Message) error {
	text, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(text, message)
}
