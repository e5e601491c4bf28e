package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"healthgate/e2e/testbed"

	// The types that resources name.
	_ "github.com/cncf/xds/go/xds/type/v3"
	_ "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

const (
	typeURL = "type.googleapis.com/"
	// Service is the service for which grpc.health.v1.Health is asked, by the module's filter 0.
	Service = "compare.Service"
	// keeper is the path of a Go plugin's gate that names all clusters, so that the gauges of removed ones stay, and the age of their
	// health checks is known.
	keeper = "/keeper"
)

// Where the gates are: each variant's, and Envoy's own filter beside them.
func (g Gate) path(who string) string {
	if g.Route >= 0 {
		return fmt.Sprintf("/%s/route/%d", who, g.Route)
	}
	return fmt.Sprintf("/%s/filter/%d", who, g.Filter)
}

// nativeName names the filter of Envoy's own beside a gate.
func (g Gate) nativeName() string { return fmt.Sprint("native.", g.Host, g.path("")) }

func filterName(v Variant, i int) string { return fmt.Sprint(v.Name, ".", i) }

// Resources makes Envoy's configuration of a world.
type Resources struct {
	variants  []Variant
	reference *testbed.Config // envoy/envoy.yaml
	second    int             // the port of the second listener, and of the one of the calls: two of port 0 would be one to Envoy
	calls     int
	servers   int    // the port of the servers
	admin     string // of Envoy, if gates with source: admin poll it
	natives   map[string]any
	made      map[string]made
	keep      bool // the module has a keeper, too
}

// made is a resource and the text that it was made of.
type made struct {
	of       string
	resource types.Resource
}

// once makes a resource, unless it was made of the same text before.
func (r *Resources) once(name, of string, build func() (types.Resource, error)) (types.Resource, error) {
	if before, ok := r.made[name]; ok && before.of == of {
		return before.resource, nil
	}
	resource, err := build()
	if err == nil {
		r.made[name] = made{of, resource}
	}
	return resource, err
}

// of makes all resources of a world.
func (r *Resources) of(w *World) (map[resourcev3.Type][]types.Resource, error) {
	all := map[resourcev3.Type][]types.Resource{}
	add := func(kind resourcev3.Type, name string, of any, build func() (types.Resource, error)) error {
		resource, err := r.once(kind+name, fmt.Sprint(of), build)
		all[kind] = append(all[kind], resource)
		return err
	}
	for _, name := range names {
		c := w.Clusters[name]
		if !c.Present {
			continue
		}
		err := add(resourcev3.ClusterType, name, c.Panic, func() (types.Resource, error) { return clusterOf(name, c), nil })
		if err == nil {
			err = add(resourcev3.EndpointType, name, c.Hosts, func() (types.Resource, error) { return r.assignmentOf(name, c), nil })
		}
		if err != nil {
			return nil, err
		}
	}
	tree := func(message types.Resource, build func() any) func() (types.Resource, error) {
		return func() (types.Resource, error) { return message, fromTree(build(), message) }
	}
	inline := fmt.Sprint(w.Filters[filters/2:])
	listener := func(name string, port int) error {
		return add(resourcev3.ListenerType, name, inline, tree(&listenerv3.Listener{}, func() any { return r.listenerOf(name, port, w) }))
	}
	err := listener("ingress", 0)
	if err == nil && w.Second {
		err = listener("second", r.second)
	}
	if err == nil {
		err = add(resourcev3.ListenerType, "calls", "", tree(&listenerv3.Listener{}, func() any { return r.callsOf() }))
	}
	if err == nil {
		overrides, _ := json.Marshal([]any{w.Wider, w.Routes})
		err = add(resourcev3.RouteType, "routes", string(overrides), tree(&routev3.RouteConfiguration{}, func() any { return r.routesOf(w) }))
	}
	for _, v := range r.variants {
		for i := range filters / 2 {
			name := filterName(v, i)
			build := tree(&corev3.TypedExtensionConfig{}, func() any { return extension(name, r.filterOf(v, i, w.Filters[i])) })
			if err == nil {
				err = add(resourcev3.ExtensionConfigType, name, w.Filters[i], build)
			}
		}
	}
	for _, gate := range r.nativeGates() {
		name := gate.nativeName()
		if (gate.Route < 0 || w.Routes[gate.Route] != nil) && w.merged(gate, false).native() {
			r.natives[name] = nativeOf(gate, w.merged(gate, false))
		}
		config := r.natives[name]
		build := tree(&corev3.TypedExtensionConfig{}, func() any { return extension(name, config) })
		if err == nil {
			err = add(resourcev3.ExtensionConfigType, name, config, build)
		}
	}
	return all, err
}

// nativeGates are the gates beside which Envoy's own filter stands.
func (r *Resources) nativeGates() (all []Gate) {
	for i := range filters {
		all = append(all, Gate{i, virtualHosts[0], -1}, Gate{i, virtualHosts[1], -1})
	}
	for i := range routes {
		all = append(all, routeGates(i)...)
	}
	return all
}

func extension(name string, config any) any {
	return map[string]any{"name": name, "typed_config": config}
}

var ads = &corev3.ConfigSource{
	ResourceApiVersion:    corev3.ApiVersion_V3,
	ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
}

// adsTree is ads as a tree.
var adsTree = map[string]any{"ads": map[string]any{}, "resource_api_version": "V3"}

func clusterOf(name string, c *Cluster) *clusterv3.Cluster {
	message := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads},
		ConnectTimeout:       durationpb.New(time.Second / 4),
		CommonLbConfig:       &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: float64(c.Panic)}},
	}
	switch name {
	case ejecting:
		// One failure ejects a host, every host may be ejected, and none comes back.
		message.OutlierDetection = &clusterv3.OutlierDetection{
			Consecutive_5Xx: wrapperspb.UInt32(1), MaxEjectionPercent: wrapperspb.UInt32(100),
			BaseEjectionTime: durationpb.New(24 * time.Hour), Interval: durationpb.New(time.Hour),
			EnforcingSuccessRate: wrapperspb.UInt32(0), EnforcingConsecutiveGatewayFailure: wrapperspb.UInt32(0),
		}
	case checked, fresh:
		often := durationpb.New(30 * time.Millisecond)
		check := &corev3.HealthCheck{
			Timeout: durationpb.New(2 * time.Second), Interval: often, NoTrafficInterval: often, NoTrafficHealthyInterval: often,
			UnhealthyThreshold: wrapperspb.UInt32(1), HealthyThreshold: wrapperspb.UInt32(1),
			HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{Path: "/health"}},
		}
		if name == fresh { // an event answers the first check
			check.Timeout = durationpb.New(time.Hour)
			message.CommonLbConfig.IgnoreNewHostsUntilFirstHc = true
		}
		message.IgnoreHealthOnHostRemoval = true
		message.HealthChecks = []*corev3.HealthCheck{check}
	}
	return message
}

func (r *Resources) assignmentOf(name string, c *Cluster) *endpointv3.ClusterLoadAssignment {
	type group struct{ priority, locality int }
	groups := map[group]*endpointv3.LocalityLbEndpoints{}
	assignment := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for i := range manyHosts {
		host, ok := c.Hosts[i]
		if !ok {
			continue
		}
		port := 1 // nothing listens there
		if hasServers(name) {
			port = r.servers
		}
		at := group{host.Priority, host.Locality}
		if groups[at] == nil {
			groups[at] = &endpointv3.LocalityLbEndpoints{
				Priority: uint32(at.priority),
				Locality: &corev3.Locality{Zone: fmt.Sprint("zone", at.locality)},
			}
			assignment.Endpoints = append(assignment.Endpoints, groups[at])
		}
		weight := 2 * host.Weight
		if host.State == "DRAINING" {
			// Envoy counts its excluded hosts anew if a weight changes, but not if one failing state becomes another.
			weight++
		}
		groups[at].LbEndpoints = append(groups[at].LbEndpoints, &endpointv3.LbEndpoint{
			HealthStatus:        corev3.HealthStatus(corev3.HealthStatus_value[host.State]),
			LoadBalancingWeight: wrapperspb.UInt32(uint32(weight)),
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: address(name, i), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}}}}},
		})
	}
	// Envoy refuses a priority without the one before it.
	for p := range uint32(3) {
		empty := &endpointv3.LocalityLbEndpoints{Priority: p, Locality: &corev3.Locality{Zone: "empty"}}
		assignment.Endpoints = append(assignment.Endpoints, empty)
	}
	return assignment
}

const manager = "filter_chains.0.filters.0.typed_config."

// listenerOf is the listener of the reference configuration with the gates' filters, each of which a route enables. Its routes are a
// resource.
func (r *Resources) listenerOf(name string, port int, w *World) any {
	listener := r.bare(name, port)
	listener.Delete(manager + "route_config")
	listener.Set(manager+"rds", map[string]any{"route_config_name": "routes", "config_source": adsTree})
	// Every reply says why: in a header, because a reply that is stale has no report.
	listener.Set(manager+"local_reply_config", map[string]any{"mappers": []any{map[string]any{
		"filter": map[string]any{"status_code_filter": map[string]any{"comparison": map[string]any{
			"op": "GE", "value": map[string]any{"default_value": 200, "runtime_key": "compare.never"}}}},
		"headers_to_add": []any{map[string]any{"header": map[string]any{"key": detailsHeader, "value": "%RESPONSE_CODE_DETAILS%"}}},
	}}})
	var all []any
	discovered := func(name, kind string) {
		all = append(all, map[string]any{"name": name, "disabled": true, "config_discovery": map[string]any{
			"config_source": adsTree, "type_urls": []any{kind}}})
	}
	for _, gate := range r.nativeGates() {
		discovered(gate.nativeName(), nativeType)
	}
	for _, v := range slices.Backward(r.variants) {
		for i := range filters {
			config := r.filterOf(v, i, w.Filters[i])
			if i < filters/2 {
				discovered(filterName(v, i), testbed.Tree(config).Get("@type").(string))
			} else {
				all = append(all, map[string]any{"name": filterName(v, i), "disabled": true, "typed_config": config})
			}
		}
	}
	listener.Set(manager+"http_filters", append(all, r.router()))
	return listener.Get("")
}

const detailsHeader = "x-details"

// bare is the listener of the reference configuration, in plain text.
func (r *Resources) bare(name string, port int) *testbed.Config {
	listener := r.reference.Part(testbed.Listener)
	listener.Set("name", name)
	listener.Set("address.socket_address", map[string]any{"address": "127.0.0.1", "port_value": port})
	listener.Delete("filter_chains.0.transport_socket")
	listener.Delete(manager + "access_log")
	return listener
}

func (r *Resources) router() any { return r.reference.Get(testbed.HTTPFilters + ".1") }

// filterOf is a filter's configuration, by a variant.
func (r *Resources) filterOf(v Variant, i int, c Config) any {
	tree := c.tree()
	tree["path"], tree["stat_prefix"] = Gate{i, "", -1}.path(v.Name), filterName(v, i)
	tree["response"] = map[string]any{"details": true}
	if i == 0 && v.AnswersGRPC() {
		tree["grpc_services"] = []any{Service}
	}
	return r.configured(v, tree)
}

// configured is a variant's filter with Healthgate's configuration.
func (r *Resources) configured(v Variant, tree map[string]any) any {
	filter := r.reference.Part(testbed.Healthgate)
	filter.Set(filterConfig, tree)
	v.Rewrite(filter)
	return filter.Get("typed_config")
}

// callsOf is a listener that is never changed. It takes calls to clusters, which may stay open.
func (r *Resources) callsOf() any {
	listener := r.bare("calls", r.calls)
	var list []any
	for _, cluster := range called {
		list = append(list, map[string]any{"match": map[string]any{"path": "/call/" + cluster},
			"route": map[string]any{"cluster": cluster, "timeout": "0s", "idle_timeout": "0s"}})
	}
	var all []any
	for _, v := range r.variants {
		if v.ReadsGauges() || r.keep {
			config := Config{Drain: "ignore", StaleAfter: "2s"}
			for _, name := range names {
				if !slices.Contains(absent, name) {
					config.Clusters = append(config.Clusters, Requirement{Name: name, Excluded: "ignore"})
				}
			}
			tree := config.tree()
			tree["path"], tree["stat_prefix"] = keeper, v.Name+".keeper"
			all = append(all, map[string]any{"name": v.Name + ".keeper", "typed_config": r.configured(v, tree)})
		}
		if r.admin != "" {
			tree := Config{Clusters: []Requirement{{Name: checked, MinHealthy: 1}, {Name: shared[0], MinHealthy: 1}}}.tree()
			tree["path"], tree["stat_prefix"] = adminPath(v), v.Name+".admin"
			tree["source"], tree["admin"] = "admin", map[string]any{"address": r.admin, "interval": "0.2s"}
			all = append(all, map[string]any{"name": v.Name + ".admin", "typed_config": r.configured(v, tree)})
		}
	}
	listener.Set(manager+"http_filters", append(all, r.router()))
	// The clusters come and go.
	listener.Set(manager+"route_config", map[string]any{"name": "calls", "validate_clusters": false,
		"virtual_hosts": []any{map[string]any{"name": "calls", "domains": []any{"*"}, "routes": list}}})
	return listener.Get("")
}

// adminPath is the path of a gate with source: admin, in the listener of the calls.
func adminPath(v Variant) string { return "/" + v.Name + "/admin" }

// routesOf makes the routes, with all overrides.
func (r *Resources) routesOf(w *World) any {
	var hosts []any
	for _, host := range virtualHosts {
		list := []any{map[string]any{"match": map[string]any{"prefix": "/eject"}, "route": map[string]any{"cluster": ejecting}}}
		for _, v := range r.variants {
			if v.AnswersGRPC() {
				list = append(list, refused(map[string]any{"prefix": "/grpc.health.v1.Health/"}, filterName(v, 0), enabled))
			}
		}
		for _, gate := range w.gates() {
			if gate.Host != host {
				continue
			}
			list = append(list, refused(map[string]any{"path": gate.path("native")}, gate.nativeName(), enabled))
			for _, v := range r.variants {
				var override any = enabled
				if gate.Route >= 0 {
					tree := w.Routes[gate.Route].tree()
					tree["path"], tree["stat_prefix"] = gate.path(v.Name), fmt.Sprint(v.Name, ".route", gate.Route)
					override = overriding(v, tree)
				}
				list = append(list, refused(map[string]any{"path": gate.path(v.Name)}, filterName(v, gate.Filter), override))
			}
		}
		hosts = append(hosts, map[string]any{"name": host, "domains": []any{host}, "routes": list,
			"typed_per_filter_config": r.wider(w.Wider[host])})
	}
	whole := testbed.Tree(map[string]any{"name": "routes", "virtual_hosts": hosts, "typed_per_filter_config": r.wider(w.Wider[allRoutes])})
	for _, v := range r.variants {
		if v.Name == plugin { // the contrib host has to know where in the routes each part stands
			v.Rewrite(whole)
		}
	}
	return whole.Get("")
}

// wider are the overrides of a level above the routes.
func (r *Resources) wider(overrides *[filters]*Config) map[string]any {
	level := map[string]any{}
	for i, o := range overrides {
		if o != nil {
			for _, v := range r.variants {
				level[filterName(v, i)] = overriding(v, o.tree())
			}
		}
	}
	return level
}

// enabled enables a filter on a route.
var enabled = map[string]any{"@type": typeURL + "envoy.config.route.v3.FilterConfig", "config": map[string]any{}}

// refused is a route on which a filter is enabled. If the filter does not answer, Envoy does: 503.
func refused(match map[string]any, filter string, config any) any {
	return map[string]any{"match": match, "direct_response": map[string]any{"status": 503},
		"typed_per_filter_config": map[string]any{filter: config}}
}

// overriding is an override of a variant's filter.
func overriding(v Variant, tree map[string]any) any {
	part := testbed.Tree(map[string]any{
		"@type": typeURL + "envoy.config.route.v3.FilterConfig",
		"config": map[string]any{
			"@type": typeURL + "envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute",
			"plugins_config": map[string]any{"healthgate": map[string]any{"config": map[string]any{
				"@type": typeURL + "xds.type.v3.TypedStruct", "value": tree,
			}}},
		},
	})
	if v.Name != plugin {
		v.Rewrite(part)
	}
	return part.Get("")
}

const nativeType = typeURL + "envoy.extensions.filters.http.health_check.v3.HealthCheck"

// nativeOf is the configuration of Envoy's own filter that answers as a gate.
func nativeOf(g Gate, c Config) any {
	percentages := map[string]any{}
	for _, r := range c.Clusters {
		percentages[r.Name] = map[string]any{"value": r.MinPercent}
	}
	return map[string]any{
		"@type":                           nativeType,
		"pass_through_mode":               false,
		"cluster_min_healthy_percentages": percentages,
		"headers":                         []any{map[string]any{"name": ":path", "string_match": map[string]any{"exact": g.path("native")}}},
	}
}

func fromTree(tree any, message proto.Message) error {
	text, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(text, message)
}
