package main

import (
	"fmt"
	"slices"
	"strings"

	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"healthgate/e2e/testbed"
)

const (
	// Service is a service of grpc.health.v1.Health that the module's filter 0 answers for.
	Service = "compare.Service"
	// keeper is the path of a gate of the Go plugin that names all clusters. So Envoy keeps the gauges of removed ones, and the plugin
	// always knows when a cluster's hosts were last checked.
	keeper = "/keeper"
	// detailsHeader has the response code details of each reply: a stale reply has no report.
	detailsHeader = "x-details"
	// ads is the source of all resources, in YAML.
	ads = "{resource_api_version: V3, ads: {}}"
)

// path returns the path of a gate of a variant, or of Envoy's own filter in its place.
func (p Place) path(who string) string {
	if p.Route >= 0 {
		return fmt.Sprintf("/%s/route/%d", who, p.Route)
	}
	return fmt.Sprintf("/%s/filter/%d", who, p.Filter)
}

// nativeName returns the name of Envoy's own filter at a place.
func (p Place) nativeName() string { return fmt.Sprint("native.", p.VirtualHost, p.path("")) }

func filterName(v Variant, i int) string { return fmt.Sprint(v.Name, ".", i) }

// made is a resource, and its input as text.
type made struct {
	input    string
	resource types.Resource
}

// resources returns all xDS resources of the world. It makes a resource again only if its input has changed.
func (r *Run) resources() map[resourcev3.Type][]types.Resource {
	w := r.world
	all := map[resourcev3.Type][]types.Resource{}
	add := func(kind resourcev3.Type, name string, input any, build func() types.Resource) {
		text := asJSON(input)
		if r.made[kind+name].input != text {
			r.made[kind+name] = made{text, build()}
		}
		all[kind] = append(all[kind], r.made[kind+name].resource)
	}
	for _, name := range names {
		if c := w.Clusters[name]; c.Present {
			add(resourcev3.ClusterType, name, c.Panic, func() types.Resource { return clusterOf(name, c) })
			add(resourcev3.EndpointType, name, c.Hosts, func() types.Resource { return r.assignmentOf(name, c) })
		}
	}
	inline := w.Filters[filters/2:]
	add(resourcev3.ListenerType, "ingress", inline, func() types.Resource { return r.listenerOfGates("ingress", w) })
	if w.Second {
		add(resourcev3.ListenerType, "second", inline, func() types.Resource { return r.listenerOfGates("second", w) })
	}
	add(resourcev3.ListenerType, "calls", nil, func() types.Resource { return r.listenerOfCalls() })
	add(resourcev3.RouteType, "routes", fmt.Sprint(w.Overrides), func() types.Resource { return r.routesOf(w) })
	for _, v := range r.Variants {
		for i, config := range w.Filters[:filters/2] {
			name := filterName(v, i)
			add(resourcev3.ExtensionConfigType, name, config, func() types.Resource {
				return &corev3.TypedExtensionConfig{Name: name, TypedConfig: filterOf(v, i, config)}
			})
		}
	}
	for _, place := range allPlaces {
		name, clusters := place.nativeName(), w.merged(place, false).Clusters
		add(resourcev3.ExtensionConfigType, name, clusters, func() types.Resource {
			return &corev3.TypedExtensionConfig{Name: name, TypedConfig: nativeOf(place, clusters)}
		})
	}
	return all
}

func clusterOf(name string, c *Cluster) *clusterv3.Cluster {
	cluster := testbed.Parse[*clusterv3.Cluster](fmt.Sprintf(`{name: %s, type: EDS, eds_cluster_config: {eds_config: %s},
connect_timeout: 0.25s, common_lb_config: {healthy_panic_threshold: {value: %d}}}`, name, ads, c.Panic))
	switch name {
	case ejecting:
		// One failure ejects a host, every host may be ejected, and none returns.
		testbed.Patch(cluster, `outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100, base_ejection_time: 86400s, interval: 3600s,
enforcing_success_rate: 0, enforcing_consecutive_gateway_failure: 0}`)
	case checked, fresh:
		timeout := "2s"
		if name == fresh { // an event answers the first check
			timeout = "3600s"
			cluster.CommonLbConfig.IgnoreNewHostsUntilFirstHc = true
		}
		testbed.Patch(cluster, `{ignore_health_on_host_removal: true, health_checks: [{timeout: `+timeout+`, interval: 0.03s,
no_traffic_interval: 0.03s, no_traffic_healthy_interval: 0.03s, unhealthy_threshold: 1, healthy_threshold: 1,
http_health_check: {path: /health}}]}`)
	}
	return cluster
}

func (r *Run) assignmentOf(name string, c *Cluster) *endpointv3.ClusterLoadAssignment {
	type group struct{ priority, locality int }
	groups := map[group]*endpointv3.LocalityLbEndpoints{}
	assignment := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for i := range manyHosts {
		host := c.Hosts[i]
		if host == nil {
			continue
		}
		port := 1 // nothing listens there
		if hasServers(name) {
			port = r.backends.port
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
			weight++ // Envoy counts its excluded hosts again if a weight changes, but not if one failing state becomes another
		}
		endpoint := testbed.HostAt(fmt.Sprint(address(name, i), ":", port))
		endpoint.HealthStatus = corev3.HealthStatus(corev3.HealthStatus_value[host.State])
		endpoint.LoadBalancingWeight = wrapperspb.UInt32(uint32(weight))
		groups[at].LbEndpoints = append(groups[at].LbEndpoints, endpoint)
	}
	for p := range uint32(3) { // Envoy refuses a priority without the one before it
		empty := &endpointv3.LocalityLbEndpoints{Priority: p, Locality: &corev3.Locality{Zone: "empty"}}
		assignment.Endpoints = append(assignment.Endpoints, empty)
	}
	return assignment
}

// loopback has an address for each listener: Envoy takes two listeners at port 0 of one address for the same.
var loopback = map[string]string{"ingress": "127.0.0.1", "second": "127.0.0.2", "calls": "127.0.0.3"}

// listenerOf returns a listener with an HTTP connection manager, given in YAML, that has some filters and the router.
func listenerOf(name, manager string, filters []*hcmv3.HttpFilter) *listenerv3.Listener {
	hcm := testbed.Parse[*hcmv3.HttpConnectionManager](manager)
	hcm.StatPrefix, hcm.HttpFilters = name, append(filters, filterWith("router", testbed.Any(&routerv3.Router{})))
	listener := testbed.Parse[*listenerv3.Listener](fmt.Sprintf(`{name: %s, drain_type: MODIFY_ONLY, filter_chains: [{filters: [{name: hcm}]}],
address: {socket_address: {address: %s, port_value: 0}}}`, name, loopback[name]))
	listener.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: testbed.Any(hcm)}
	return listener
}

func filterWith(name string, config *anypb.Any) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}}
}

// listenerOfGates returns a listener with the filters of all gates, each of which a route enables. Its routes come by RDS.
func (r *Run) listenerOfGates(name string, w *World) *listenerv3.Listener {
	var all []*hcmv3.HttpFilter
	discovered := func(name string, config *anypb.Any) {
		all = append(all, testbed.Parse[*hcmv3.HttpFilter](
			`{name: "`+name+`", config_discovery: {config_source: `+ads+`, type_urls: [`+config.GetTypeUrl()+`]}}`))
	}
	for _, place := range allPlaces {
		discovered(place.nativeName(), testbed.Any(&healthcheckv3.HealthCheck{}))
	}
	for _, v := range slices.Backward(r.Variants) {
		for i := range filters {
			config := filterOf(v, i, w.Filters[i])
			if i < filters/2 {
				discovered(filterName(v, i), config)
			} else {
				all = append(all, filterWith(filterName(v, i), config))
			}
		}
	}
	for _, filter := range all {
		filter.Disabled = true
	}
	return listenerOf(name, `
rds: {route_config_name: routes, config_source: `+ads+`}
local_reply_config: {mappers: [{
  filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 200, runtime_key: compare.unset}}}},
  headers_to_add: [{header: {key: `+detailsHeader+`, value: "%RESPONSE_CODE_DETAILS%"}}]}]}`, all)
}

// filterOf returns the configuration of a variant's filter.
func filterOf(v Variant, i int, c Config) *anypb.Any {
	keys := c.keys()
	keys["path"], keys["stat_prefix"] = Place{i, "", -1}.path(v.Name), filterName(v, i)
	keys["response"] = map[string]any{"details": true}
	if i == 0 && v.AnswersGRPC() {
		keys["grpc_services"] = []any{Service}
	}
	return filterWithKeys(v, keys)
}

// filterWithKeys returns the configuration of a variant's filter, with Healthgate's keys.
func filterWithKeys(v Variant, keys map[string]any) *anypb.Any {
	value := &xdsv3.TypedStruct{Value: testbed.Parse[*structpb.Struct](asJSON(keys))}
	config := testbed.Any(&golangv3.Config{LibraryId: "healthgate", PluginName: "healthgate", PluginConfig: testbed.Any(value)})
	v.Convert(config)
	return config
}

// listenerOfCalls returns a listener that never changes. It routes calls that may stay open; events remove their clusters.
func (r *Run) listenerOfCalls() *listenerv3.Listener {
	var all []*hcmv3.HttpFilter
	add := func(v Variant, name, path string, keys map[string]any) {
		name = v.Name + "." + name
		keys["stat_prefix"], keys["path"] = name, path
		all = append(all, filterWith(name, filterWithKeys(v, keys)))
	}
	for _, v := range r.Variants {
		if v.ReadsGauges() {
			config := Config{Drain: "ignore", StaleAfter: "2s"}
			for _, name := range names {
				if !slices.Contains(absent, name) {
					config.Clusters = append(config.Clusters, Requirement{Name: name, Excluded: "ignore"})
				}
			}
			add(v, "keeper", keeper, config.keys())
		}
		if r.Soak {
			keys := Config{Clusters: []Requirement{{Name: checked, MinHealthy: 1}, {Name: shared[0], MinHealthy: 1}}}.keys()
			keys["source"], keys["admin"] = "admin", map[string]any{"address": "unix://" + r.adminSocket(), "interval": "0.2s"}
			add(v, "admin", adminPath(v), keys)
		}
	}
	var routes []string
	for _, cluster := range called {
		routes = append(routes, fmt.Sprintf(`{match: {path: /call/%[1]s}, route: {cluster: %[1]s, timeout: 0s, idle_timeout: 0s}}`, cluster))
	}
	return listenerOf("calls", `route_config: {name: calls, validate_clusters: false, virtual_hosts: [
{name: calls, domains: ["*"], routes: [`+strings.Join(routes, ", ")+`]}]}`, all)
}

// adminPath returns the path of a gate with source: admin, in the listener of calls.
func adminPath(v Variant) string { return "/" + v.Name + "/admin" }

// routesOf returns the routes, with all overrides.
func (r *Run) routesOf(w *World) *routev3.RouteConfiguration {
	all := &routev3.RouteConfiguration{Name: "routes", TypedPerFilterConfig: r.wider(allRoutes)}
	enabled := testbed.Any(testbed.Enabling(&anypb.Any{}))
	for _, name := range virtualHosts {
		host := &routev3.VirtualHost{Name: name, Domains: []string{name}, TypedPerFilterConfig: r.wider(name)}
		host.Routes = append(host.Routes, testbed.Parse[*routev3.Route](`{match: {prefix: /eject}, route: {cluster: `+ejecting+`}}`))
		// A filter is enabled on each of these. If it does not answer, Envoy does: 503.
		add := func(match, filter string, config *anypb.Any) {
			route := testbed.Parse[*routev3.Route](`{match: ` + match + `, direct_response: {status: 503}}`)
			route.TypedPerFilterConfig = map[string]*anypb.Any{filter: config}
			host.Routes = append(host.Routes, route)
		}
		for _, v := range r.Variants {
			if v.AnswersGRPC() {
				add(`{prefix: /grpc.health.v1.Health/}`, filterName(v, 0), enabled)
			}
		}
		for _, place := range w.places() {
			if place.VirtualHost != name {
				continue
			}
			add(`{path: `+place.path("native")+`}`, place.nativeName(), enabled)
			for _, v := range r.Variants {
				config := enabled
				if place.Route >= 0 {
					keys := w.Overrides[routeLevel(place.Route)].keys()
					keys["path"], keys["stat_prefix"] = place.path(v.Name), fmt.Sprint(v.Name, ".route", place.Route)
					config = override(v, keys)
				}
				add(`{path: `+place.path(v.Name)+`}`, filterName(v, place.Filter), config)
			}
		}
		all.VirtualHosts = append(all.VirtualHosts, host)
	}
	for _, v := range r.Variants {
		if v.Name == plugin { // the contrib host has to know where in the routes each override is
			v.Convert(all)
		}
	}
	return all
}

// wider returns the overrides of all routes or of a virtual host.
func (r *Run) wider(routes string) map[string]*anypb.Any {
	level := map[string]*anypb.Any{}
	for i := range filters {
		if o, ok := r.world.Overrides[Level{i, routes, 0}]; ok {
			for _, v := range r.Variants {
				level[filterName(v, i)] = override(v, o.keys())
			}
		}
	}
	return level
}

// override returns an override of a variant's filter. The Go plugin's is converted with all the routes.
func override(v Variant, keys map[string]any) *anypb.Any {
	config := testbed.GateOverride(asJSON(keys))
	if v.Name != plugin {
		v.Convert(config)
	}
	return config
}

// nativeOf returns the configuration of Envoy's own filter that answers as a gate, if the gate can be configured alike.
func nativeOf(p Place, clusters []Requirement) *anypb.Any {
	check := testbed.Parse[*healthcheckv3.HealthCheck](
		`{pass_through_mode: false, headers: [{name: ":path", string_match: {exact: ` + p.path("native") + `}}]}`)
	check.ClusterMinHealthyPercentages = map[string]*typev3.Percent{}
	for _, r := range clusters {
		check.ClusterMinHealthyPercentages[r.Name] = &typev3.Percent{Value: float64(r.MinPercent)}
	}
	return testbed.Any(check)
}
