package main

import (
	"fmt"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"healthgate/e2e/testbed"
)

const (
	// Service is a service of grpc.health.v1.Health that the module's filter 0 answers for.
	Service = "compare.Service"
	// keeper is the path of a gate of the Go plugin that names all clusters: the gauges of removed ones stay, and the age of their health
	// checks is known.
	keeper = "/keeper"
	// detailsHeader has the response code details of each reply: a stale reply has no report.
	detailsHeader = "x-details"
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

// Resources makes the xDS resources of a world.
type Resources struct {
	variants  []Variant
	reference *testbed.Bootstrap // envoy/envoy.yaml
	// Ports of the second listener and of the listener of calls: Envoy takes two listeners at port 0 for one.
	second, calls int
	servers       int    // port of the servers
	admin         string // address of Envoy's admin interface, if gates with source: admin poll it
	natives       map[string]*healthcheckv3.HealthCheck
	made          map[string]made
}

// made is a resource, and its input as text.
type made struct {
	input    string
	resource types.Resource
}

// of returns all resources of a world. It makes a resource again only if its input has changed.
func (r *Resources) of(w *World) map[resourcev3.Type][]types.Resource {
	all := map[resourcev3.Type][]types.Resource{}
	add := func(kind resourcev3.Type, name string, input any, build func() types.Resource) {
		text := fmt.Sprint(input)
		if before, ok := r.made[kind+name]; !ok || before.input != text {
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
	add(resourcev3.ListenerType, "ingress", inline, func() types.Resource { return r.listenerOf("ingress", 0, w) })
	if w.Second {
		add(resourcev3.ListenerType, "second", inline, func() types.Resource { return r.listenerOf("second", r.second, w) })
	}
	add(resourcev3.ListenerType, "calls", "", func() types.Resource { return r.listenerOfCalls() })
	add(resourcev3.RouteType, "routes", asJSON([]any{w.Wider, w.Routes}), func() types.Resource { return r.routesOf(w) })
	for _, v := range r.variants {
		for i := range filters / 2 {
			add(resourcev3.ExtensionConfigType, filterName(v, i), w.Filters[i], func() types.Resource {
				return &corev3.TypedExtensionConfig{Name: filterName(v, i), TypedConfig: r.filterOf(v, i, w.Filters[i])}
			})
		}
	}
	for _, place := range allPlaces() {
		name := place.nativeName()
		if (place.Route < 0 || w.Routes[place.Route] != nil) && w.merged(place, false).native() || r.natives[name] == nil {
			r.natives[name] = nativeOf(place, w.merged(place, false))
		}
		config := r.natives[name]
		add(resourcev3.ExtensionConfigType, name, config, func() types.Resource {
			return &corev3.TypedExtensionConfig{Name: name, TypedConfig: testbed.Any(config)}
		})
	}
	return all
}

// allPlaces are all places, also those that a world does not have.
func allPlaces() (all []Place) {
	for i := range filters {
		all = append(all, Place{i, virtualHosts[0], -1}, Place{i, virtualHosts[1], -1})
	}
	for i := range routes {
		all = append(all, routePlaces(i)...)
	}
	return all
}

var ads = &corev3.ConfigSource{
	ResourceApiVersion:    corev3.ApiVersion_V3,
	ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
}

func clusterOf(name string, c *Cluster) *clusterv3.Cluster {
	cluster := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads},
		ConnectTimeout:       durationpb.New(time.Second / 4),
		CommonLbConfig:       &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: float64(c.Panic)}},
	}
	switch name {
	case ejecting:
		// One failure ejects a host, every host may be ejected, and none returns.
		cluster.OutlierDetection = testbed.Parse[*clusterv3.OutlierDetection](`
consecutive_5xx: 1
max_ejection_percent: 100
base_ejection_time: 86400s
interval: 3600s
enforcing_success_rate: 0
enforcing_consecutive_gateway_failure: 0`)
	case checked, fresh:
		check := testbed.Parse[*corev3.HealthCheck](`
{timeout: 2s, interval: 0.03s, no_traffic_interval: 0.03s, no_traffic_healthy_interval: 0.03s,
unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /health}}`)
		if name == fresh { // an event answers the first check
			check.Timeout = durationpb.New(time.Hour)
			cluster.CommonLbConfig.IgnoreNewHostsUntilFirstHc = true
		}
		cluster.IgnoreHealthOnHostRemoval = true
		cluster.HealthChecks = []*corev3.HealthCheck{check}
	}
	return cluster
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

// listenerOf returns a listener with the filters of all gates, each of which a route enables. Its routes come by RDS.
func (r *Resources) listenerOf(name string, port int, w *World) *listenerv3.Listener {
	listener, hcm := r.plainListener(name, port)
	hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "routes", ConfigSource: ads}}
	testbed.Patch(hcm, `
local_reply_config: {mappers: [{
  filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 200, runtime_key: compare.unset}}}},
  headers_to_add: [{header: {key: `+detailsHeader+`, value: "%RESPONSE_CODE_DETAILS%"}}]}]}`)
	var all []*hcmv3.HttpFilter
	discovered := func(name string, config *anypb.Any) {
		all = append(all, &hcmv3.HttpFilter{Name: name, Disabled: true, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
			ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: ads, TypeUrls: []string{config.GetTypeUrl()}},
		}})
	}
	for _, place := range allPlaces() {
		discovered(place.nativeName(), testbed.Any(&healthcheckv3.HealthCheck{}))
	}
	for _, v := range slices.Backward(r.variants) {
		for i := range filters {
			config := r.filterOf(v, i, w.Filters[i])
			if i < filters/2 {
				discovered(filterName(v, i), config)
			} else {
				all = append(all, &hcmv3.HttpFilter{Name: filterName(v, i), Disabled: true,
					ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}})
			}
		}
	}
	return finished(listener, hcm, all)
}

// plainListener returns a copy of the reference configuration's listener without TLS and access log, and its HTTP connection manager.
func (r *Resources) plainListener(name string, port int) (*listenerv3.Listener, *hcmv3.HttpConnectionManager) {
	b := r.reference.Clone()
	b.WithoutTLS()
	hcm := b.HCM()
	hcm.AccessLog = nil
	listener := b.Listener()
	listener.Name, listener.Address = name, testbed.AddressOf(fmt.Sprint("127.0.0.1:", port))
	return listener, hcm
}

// finished returns a listener with an HTTP connection manager that has some filters and the router.
func finished(listener *listenerv3.Listener, hcm *hcmv3.HttpConnectionManager, filters []*hcmv3.HttpFilter) *listenerv3.Listener {
	router := hcm.HttpFilters[len(hcm.HttpFilters)-1]
	hcm.HttpFilters = append(filters, router)
	listener.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: testbed.Any(hcm)}
	return listener
}

// filterOf returns the configuration of a variant's filter.
func (r *Resources) filterOf(v Variant, i int, c Config) *anypb.Any {
	keys := c.keys()
	keys["path"], keys["stat_prefix"] = Place{i, "", -1}.path(v.Name), filterName(v, i)
	keys["response"] = map[string]any{"details": true}
	if i == 0 && v.AnswersGRPC() {
		keys["grpc_services"] = []any{Service}
	}
	return r.filter(v, keys)
}

// filter returns the configuration of a variant's filter, with Healthgate's keys.
func (r *Resources) filter(v Variant, keys map[string]any) *anypb.Any {
	b := r.reference.Clone()
	b.SetGate(asJSON(keys))
	filter := b.Clone().GateFilter()
	v.Convert(filter)
	return filter.GetTypedConfig()
}

// listenerOfCalls returns a listener that never changes. It routes calls that may stay open.
func (r *Resources) listenerOfCalls() *listenerv3.Listener {
	listener, hcm := r.plainListener("calls", r.calls)
	var all []*hcmv3.HttpFilter
	add := func(v Variant, name string, keys map[string]any) {
		keys["stat_prefix"] = v.Name + "." + name
		all = append(all, &hcmv3.HttpFilter{Name: v.Name + "." + name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: r.filter(v, keys)}})
	}
	for _, v := range r.variants {
		if v.ReadsGauges() {
			config := Config{Drain: "ignore", StaleAfter: "2s"}
			for _, name := range names {
				if !slices.Contains(absent, name) {
					config.Clusters = append(config.Clusters, Requirement{Name: name, Excluded: "ignore"})
				}
			}
			keys := config.keys()
			keys["path"] = keeper
			add(v, "keeper", keys)
		}
		if r.admin != "" {
			keys := Config{Clusters: []Requirement{{Name: checked, MinHealthy: 1}, {Name: shared[0], MinHealthy: 1}}}.keys()
			keys["path"], keys["source"], keys["admin"] = adminPath(v), "admin", map[string]any{"address": r.admin, "interval": "0.2s"}
			add(v, "admin", keys)
		}
	}
	host := &routev3.VirtualHost{Name: "calls", Domains: []string{"*"}}
	for _, cluster := range called {
		host.Routes = append(host.Routes, testbed.Parse[*routev3.Route](fmt.Sprintf(
			`{match: {path: /call/%[1]s}, route: {cluster: %[1]s, timeout: 0s, idle_timeout: 0s}}`, cluster)))
	}
	hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		Name: "calls", VirtualHosts: []*routev3.VirtualHost{host}, ValidateClusters: wrapperspb.Bool(false), // events remove the clusters
	}}
	return finished(listener, hcm, all)
}

// adminPath returns the path of a gate with source: admin, in the listener of calls.
func adminPath(v Variant) string { return "/" + v.Name + "/admin" }

// routesOf returns the routes, with all overrides.
func (r *Resources) routesOf(w *World) *routev3.RouteConfiguration {
	all := &routev3.RouteConfiguration{Name: "routes", TypedPerFilterConfig: r.wider(w.Wider[allRoutes])}
	for _, name := range virtualHosts {
		host := &routev3.VirtualHost{Name: name, Domains: []string{name}, TypedPerFilterConfig: r.wider(w.Wider[name])}
		host.Routes = append(host.Routes, testbed.Parse[*routev3.Route](`{match: {prefix: /eject}, route: {cluster: `+ejecting+`}}`))
		for _, v := range r.variants {
			if v.AnswersGRPC() {
				host.Routes = append(host.Routes, refused(`{prefix: /grpc.health.v1.Health/}`, filterName(v, 0), enabled()))
			}
		}
		for _, place := range w.places() {
			if place.VirtualHost != name {
				continue
			}
			host.Routes = append(host.Routes, refused(`{path: `+place.path("native")+`}`, place.nativeName(), enabled()))
			for _, v := range r.variants {
				config := enabled()
				if place.Route >= 0 {
					keys := w.Routes[place.Route].keys()
					keys["path"], keys["stat_prefix"] = place.path(v.Name), fmt.Sprint(v.Name, ".route", place.Route)
					config = override(v, keys)
				}
				host.Routes = append(host.Routes, refused(`{path: `+place.path(v.Name)+`}`, filterName(v, place.Filter), config))
			}
		}
		all.VirtualHosts = append(all.VirtualHosts, host)
	}
	for _, v := range r.variants {
		if v.Name == plugin { // the contrib host has to know where in the routes each override is
			v.Convert(all)
		}
	}
	return all
}

// wider returns the overrides of a level above the routes.
func (r *Resources) wider(overrides *[filters]*Config) map[string]*anypb.Any {
	level := map[string]*anypb.Any{}
	for i, o := range overrides {
		if o != nil {
			for _, v := range r.variants {
				level[filterName(v, i)] = override(v, o.keys())
			}
		}
	}
	return level
}

// enabled returns what enables a filter on a route.
func enabled() *anypb.Any { return testbed.Any(testbed.Enabling(&anypb.Any{})) }

// refused returns a route on which a filter is enabled. If the filter does not answer, Envoy does: 503.
func refused(match, filter string, config *anypb.Any) *routev3.Route {
	route := testbed.Parse[*routev3.Route](`{match: ` + match + `, direct_response: {status: 503}}`)
	route.TypedPerFilterConfig = map[string]*anypb.Any{filter: config}
	return route
}

// override returns an override of a variant's filter. The Go plugin's is converted with all the routes.
func override(v Variant, keys map[string]any) *anypb.Any {
	config := testbed.GateOverride(asJSON(keys))
	if v.Name != plugin {
		v.Convert(config)
	}
	return config
}

// nativeOf returns the configuration of Envoy's own filter that answers as a gate.
func nativeOf(p Place, c Config) *healthcheckv3.HealthCheck {
	check := testbed.Parse[*healthcheckv3.HealthCheck](
		`{pass_through_mode: false, headers: [{name: ":path", string_match: {exact: ` + p.path("native") + `}}]}`)
	check.ClusterMinHealthyPercentages = map[string]*typev3.Percent{}
	for _, r := range c.Clusters {
		check.ClusterMinHealthyPercentages[r.Name] = &typev3.Percent{Value: float64(r.MinPercent)}
	}
	return check
}
