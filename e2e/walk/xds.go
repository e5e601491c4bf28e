package walk

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

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
	"healthgate/e2e/door"

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
	doors   []door.Door
	cache   cachev3.SnapshotCache
	address *net.TCPAddr
	server  *grpc.Server
	admin   string // where gates that hang on time find Envoy's admin interface; without, there are none
	// The ports of the second listener, and of that of the calls: two of port 0 would be one to Envoy.
	second, calls int
	version       int
	written       written // what was pushed last
}

// written are listeners and routes as they are written for the contrib build, whatever this Envoy loads in its place.
type written struct {
	listeners []any
	routes    any
}

func newControl(ctx context.Context, doors []door.Door) (*control, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &control{doors: doors, cache: cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil), address: listener.Addr().(*net.TCPAddr), server: grpc.NewServer()}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(c.server, serverv3.NewServer(ctx, c.cache, nil))
	go func() { _ = c.server.Serve(listener) }() // until it is stopped
	return c, nil
}

// use has an Envoy take everything from the control plane.
func (c *control) use(config *bed.Config) {
	config.Set("static_resources.clusters", []any{map[string]any{
		"name": "control", "type": "STATIC", "connect_timeout": "1s",
		"typed_extension_protocol_options": config.Get(bed.Cluster + ".typed_extension_protocol_options"),
		"load_assignment": map[string]any{"cluster_name": "control", "endpoints": []any{
			map[string]any{"lb_endpoints": []any{bed.Endpoint(c.address.String())}}}},
	}})
	config.Set("dynamic_resources", map[string]any{
		"ads_config": map[string]any{"api_type": "GRPC", "transport_api_version": "V3",
			"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "control"}}}},
		"lds_config": ads, "cds_config": ads,
	})
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
	listeners, routes, err := c.listenersOf(w)
	if err != nil {
		return "", err
	}
	resources[resourcev3.ListenerType] = listeners
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
	case checked, fresh:
		timeout := "2s"
		if i == fresh { // whose first check is answered when an event says so
			timeout = "3600s"
			tree["common_lb_config"].(map[string]any)["ignore_new_hosts_until_first_hc"] = true
		}
		tree["ignore_health_on_host_removal"] = true
		tree["health_checks"] = []any{map[string]any{
			"timeout": timeout, "interval": "0.03s", "no_traffic_interval": "0.03s", "no_traffic_healthy_interval": "0.03s",
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
		if hasServers(i) {
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
		weight := 2 * host.Weight
		if host.State == "DRAINING" {
			// Envoy does not count its excluded hosts anew where one changes from one state that fails to another; it does
			// for another weight.
			weight++
		}
		tree["load_balancing_weight"] = weight
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

// own writes what is a door's own for the Envoy that there is. The contrib door's stays as it is until all of it is there: what takes
// the place of its host has to know where in a listener each part stands.
func own(d door.Door, tree any) any {
	if d.Name() == contrib {
		return tree
	}
	part := bed.Tree(tree)
	d.Rewrite(part)
	return part.Get("")
}

// contrib is the name of the contrib door.
const contrib = "contrib"

// finish writes the contrib door's part of a whole.
func (c *control) finish(whole *bed.Config) {
	for _, d := range c.doors {
		if d.Name() == contrib {
			d.Rewrite(whole)
		}
	}
}

// listenersOf makes the listener of the reference configuration one with the world's gates, each on a path of its own, and its
// routes a resource, which a second listener has too. A third has the calls that stay open, and is never changed.
func (c *control) listenersOf(w *World) (listeners []types.Resource, routing *routev3.RouteConfiguration, err error) {
	config, err := bed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return nil, nil, err
	}
	config.Set(bed.Listener+".address.socket_address", map[string]any{"address": "127.0.0.1", "port_value": 0})
	config.Delete("static_resources.listeners.0.filter_chains.0.transport_socket")
	config.Delete(bed.HCM + ".access_log")
	router := config.Get(bed.HTTPFilters + ".1")
	calls := c.callsOf(config.Part(bed.Listener), router)
	routes := c.routesOf(config.Part(bed.HCM+".route_config"), w)
	config.Delete(bed.HCM + ".route_config")
	config.Set(bed.HCM+".rds", map[string]any{"route_config_name": "routes", "config_source": ads})

	gates, routed := c.filtersOf(config.Part(bed.Healthgate), w)
	config.Set(bed.HTTPFilters, slices.Concat(gates, routed, []any{router}))
	all := []any{config.Get(bed.Listener)}
	if w.Second {
		second := config.Part(bed.Listener)
		second.Set("name", "second")
		second.Set("address.socket_address.port_value", c.second)
		second.Set("filter_chains.0.filters.0.typed_config.http_filters", slices.Concat(routed, []any{router}))
		all = append(all, second.Get(""))
	}
	config.Set("static_resources.listeners", append(all, calls))

	c.written = written{config.Clone().Get("static_resources.listeners").([]any), routes.Clone().Get("")}
	c.finish(config)
	c.finish(routes)
	for _, tree := range config.Get("static_resources.listeners").([]any) {
		listener := &listenerv3.Listener{}
		if err := fromTree(tree, listener); err != nil {
			return nil, nil, err
		}
		listeners = append(listeners, listener)
	}
	routing = &routev3.RouteConfiguration{}
	return listeners, routing, fromTree(routes.Get(""), routing)
}

// callsOf makes a listener that takes calls to clusters, which may stay open for as long as they like.
func (c *control) callsOf(listener *bed.Config, router any) any {
	var routes []any
	for _, cluster := range called {
		routes = append(routes, map[string]any{"match": map[string]any{"path": callPath(cluster)},
			"route": map[string]any{"cluster": name(cluster), "timeout": "0s", "idle_timeout": "0s"}})
	}
	const manager = "filter_chains.0.filters.0.typed_config."
	listener.Set("name", "calls")
	listener.Set("address.socket_address.port_value", c.calls)
	listener.Set(manager+"http_filters", []any{router})
	// The clusters come and go.
	listener.Set(manager+"route_config", map[string]any{"name": "calls", "validate_clusters": false,
		"virtual_hosts": []any{map[string]any{"name": "calls", "domains": []any{"*"}, "routes": routes}}})
	return listener.Get("")
}

// callPath is where a call to a cluster begins.
func callPath(cluster int) string { return fmt.Sprint("/call/", cluster) }

// filtersOf are the filters of the world's gates by each door, of Envoy's own filter beside them, and of those that are for the walk
// itself; and those, one a door, that the routes override.
func (c *control) filtersOf(reference *bed.Config, w *World) (gates, routed []any) {
	gate := func(d door.Door, name string, plugin map[string]any) any {
		filter := reference.Clone()
		filter.Set("name", d.Name()+"."+name)
		filter.Delete("disabled")
		filter.Set(door.FilterConfig, plugin)
		return own(d, filter.Get(""))
	}
	for i, policy := range w.Gates {
		if policy.equivalent() {
			gates = append(gates, policy.native(nativePath(i)))
		}
	}
	// The last door's first: what is for it does not go through the others.
	for n, d := range slices.Backward(c.doors) {
		for i, policy := range w.Gates {
			gates = append(gates, gate(d, fmt.Sprint("gate", i), policy.plugin(gatePath(d, i), fmt.Sprint(d.Name(), ".gate", i))))
		}
		if d.Can(door.GRPC) == nil {
			health := w.health().plugin(healthPath(d), d.Name()+".health")
			health["grpc_services"] = []any{Service}
			gates = append(gates, gate(d, "health", health))
		}
		also := timed(d, c.admin)
		for _, path := range slices.Sorted(maps.Keys(also)) {
			policy := everything().plugin(path, d.Name()+"."+path[strings.LastIndexByte(path, '/')+1:])
			maps.Copy(policy, also[path])
			gates = append(gates, gate(d, path, policy))
		}
		if n == 0 {
			gates = append(gates, gate(d, "keeper", w.keeper()))
		}
		last := gate(d, "routed", everything().plugin(pathOf(d, len(w.Routes)), d.Name()+".routed"))
		last.(map[string]any)["disabled"] = true
		routed = append(routed, last)
	}
	return gates, routed
}

// keeper holds all clusters' gauges, so that what a ghost says does not hang on who else asks for it, and tells by its body what
// gates there are.
func (w *World) keeper() map[string]any {
	holding := everything()
	for i := range holding.Clusters {
		holding.Clusters[i].Excluded = "ignore" // what is counted is not looked at
	}
	keeper := holding.plugin("/keeper", "keeper")
	for _, response := range []string{"healthy", "unhealthy"} {
		keeper["response"].(map[string]any)[response] = map[string]any{"body": fmt.Sprint(w.Gates)}
	}
	return keeper
}

// Service is one that grpc.health.v1.Health is asked for.
const Service = "walk.Service"

// Where the gates are: one of the world's by a door, Envoy's own filter beside it, the one that answers grpc.health.v1.Health too, and
// that of a route; that of the filter itself is at the one after the last.
func gatePath(d door.Door, i int) string   { return fmt.Sprint("/", d.Name(), "/gate/", i) }
func nativePath(i int) string              { return fmt.Sprint("/native/", i) }
func healthPath(d door.Door) string        { return fmt.Sprint("/", d.Name(), "/health") }
func pathOf(d door.Door, route int) string { return fmt.Sprint("/", d.Name(), "/route/", route) }

// health is the policy of the gate that answers grpc.health.v1.Health.
func (w *World) health() Policy { return w.Gates[len(w.Gates)-1] }

// routesOf makes the routes, each with what it overrides, from those of the reference configuration.
func (c *control) routesOf(routes *bed.Config, w *World) *bed.Config {
	routes.Set("name", "routes")
	refused := map[string]any{"status": 503}
	list := []any{
		map[string]any{"match": map[string]any{"path": "/routes"}, "direct_response": map[string]any{
			"status": 200, "body": map[string]any{"inline_string": w.marker()}}},
		map[string]any{"match": map[string]any{"prefix": "/eject"}, "route": map[string]any{"cluster": name(ejecting)}},
		map[string]any{"match": map[string]any{"prefix": "/grpc.health.v1.Health/"}, "direct_response": refused},
	}
	const host = "virtual_hosts.0"
	for _, d := range c.doors {
		for i, o := range w.Routes {
			plugin := o.plugin()
			plugin["path"], plugin["stat_prefix"] = pathOf(d, i), fmt.Sprint(d.Name(), ".route", i)
			list = append(list, map[string]any{"match": map[string]any{"path": pathOf(d, i)}, "direct_response": refused,
				"typed_per_filter_config": map[string]any{d.Name() + ".routed": overriding(d, plugin)}})
		}
		// It overrides nothing, and enables the filter where no wider level does.
		list = append(list, map[string]any{"match": map[string]any{"path": pathOf(d, len(w.Routes))}, "direct_response": refused,
			"typed_per_filter_config": map[string]any{d.Name() + ".routed": map[string]any{
				"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": map[string]any{}}}})
	}
	routes.Set(host+".routes", list)
	for i, at := range []string{"", host + "."} {
		if o := w.Wider[i]; o.says() {
			level := map[string]any{}
			for _, d := range c.doors {
				plugin := o.plugin()
				plugin["stat_prefix"] = fmt.Sprint(d.Name(), ".wider", i)
				level[d.Name()+".routed"] = overriding(d, plugin)
			}
			routes.Set(at+"typed_per_filter_config", level)
		}
	}
	return routes
}

// overriding is what a level of the routes says of a door's filter.
func overriding(d door.Door, plugin map[string]any) any {
	return own(d, map[string]any{
		"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
		"config": map[string]any{
			"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute",
			"plugins_config": map[string]any{"healthgate": map[string]any{"config": map[string]any{
				"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": plugin,
			}}},
		},
	})
}

// timed are the gates that hang on time, by their paths, each with what it has besides.
func timed(d door.Door, admin string) map[string]map[string]any {
	if admin == "" {
		return nil
	}
	at := "/" + d.Name()
	return map[string]map[string]any{
		at + "/held":  {"hold": map[string]any{"unhealthy_after": "0.5s", "healthy_after": "0.2s"}},
		at + "/stale": {"clusters": []any{name(checked)}, "stale_after": "1s"},
		at + "/admin": {"source": "admin", "stale_after": "2s", "admin": map[string]any{"address": admin, "interval": "0.2s"}},
	}
}

// plugin is a policy as the plugin's configuration.
func (p Policy) plugin(path, prefix string) map[string]any {
	tree := Override(p).plugin()
	tree["path"], tree["stat_prefix"], tree["response"] = path, prefix, map[string]any{"details": true}
	return tree
}

// plugin is an override as the plugin's configuration.
func (o Override) plugin() map[string]any {
	tree := map[string]any{}
	if o.Clusters != nil {
		var clusters []any
		for _, r := range o.Clusters {
			clusters = append(clusters, map[string]any{
				"name": name(r.Cluster), "min_healthy": r.MinHealthy, "min_healthy_percent": r.MinPercent, "degraded": r.Degraded,
				"excluded": r.Excluded,
			})
		}
		tree["clusters"] = clusters
	}
	if o.Require != nil {
		tree["require"] = o.Require
	}
	if o.Drain != "" {
		tree["drain"] = o.Drain
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
