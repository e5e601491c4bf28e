package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"healthgate/e2e/testbed"
)

// The contenders: each has a listener in the one Envoy, and answers GET /.
const (
	direct   = "direct_response" // no filter at all
	native   = "native health_check"
	smallest = "smallest module" // e2e/bench/smallest
	byModule = "dynamic module"
	empty    = "empty C plugin"  // e2e/bench/empty
	emptyGo  = "empty Go plugin" // e2e/bench/emptygo
	byPlugin = "Go plugin"
	lua      = "Lua script"
	// Enabled on every route, and not on the probe's alone.
	moduleEverywhere = "dynamic module, every route"
	pluginEverywhere = "Go plugin, every route"
)

// smallestLike names the smallest possible contender of the same kind: Envoy's cost of the kind, without Healthgate's.
var smallestLike = map[string]string{byModule: smallest, byPlugin: emptyGo}

// isModule and isPlugin report how a contender is loaded.
func isModule(contender string) bool {
	return slices.Contains([]string{smallest, byModule, moduleEverywhere}, contender)
}
func isPlugin(contender string) bool {
	return slices.Contains([]string{empty, emptyGo, byPlugin, pluginEverywhere}, contender)
}

// size is how large the one Envoy is.
type size struct {
	Name     string `json:"name"`
	Hosts    int    `json:"hosts"`    // of the cluster that the contenders ask for
	Clusters int    `json:"clusters"` // more of them, each with three hosts
}

var sizes = []size{{"3 hosts", 3, 0}, {"100 more clusters", 3, 100}, {"1,000 more clusters", 3, 1000}, {"1,000 hosts", 1000, 0}}

// The places in sizes.
const (
	small = iota
	hundred
	thousand
)

// rareCopies is how often the contrib host of the tests copies Envoy's stats, on the main thread. It is rare here because contrib's own
// host copies none.
const rareCopies = "CONTRIB_HOST_REFRESH_MILLISECONDS=1000"

// start starts an Envoy with a listener for each contender, all made from the reference configuration, and returns their addresses.
func (b *bench) start(s size, contenders ...string) (*testbed.Envoy, map[string]string, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, nil, err
	}
	config, err := plain()
	if err != nil {
		return nil, nil, err
	}
	admin, err := testbed.UnusedAddress() // the script needs its port
	if err != nil {
		return nil, nil, err
	}
	config.Listen(0, admin.Port)
	var listeners []any
	for _, name := range contenders {
		listener, err := b.listen(config.Part(testbed.Listener), name)
		if err != nil {
			return nil, nil, err
		}
		listeners = append(listeners, listener)
	}
	config.Set("static_resources.listeners", listeners)
	clusters := s.clusters(config, b.backend)
	if slices.Contains(contenders, lua) {
		script, err := testbed.LoadConfig("envoy/lua.yaml")
		if err != nil {
			return nil, nil, err
		}
		script.Set("static_resources.clusters.1.load_assignment.endpoints.0.lb_endpoints.0", testbed.Endpoint(admin.String()))
		clusters = append(clusters, script.Get("static_resources.clusters.1"))
	}
	config.Set("static_resources.clusters", clusters)

	options := testbed.Options{Workers: 1, Env: []string{rareCopies}}
	if slices.ContainsFunc(contenders, isPlugin) {
		b.plugin.Prepare(config)
		options = b.plugin.Options(options)
	}
	if slices.ContainsFunc(contenders, isModule) {
		b.module.Prepare(config)
		options = b.module.Options(options)
	}
	options.Sync = nil // admin and the filter need not agree at once
	for contender, name := range map[string]string{empty: "empty", emptyGo: "emptygo"} {
		if i := slices.Index(contenders, contender); i >= 0 {
			config.Set(fmt.Sprint("static_resources.listeners.", i, ".", filters, ".0.typed_config.filter_name"),
				name+"@"+name+"@"+filepath.Join(testbed.Root(), "build", name+".so"))
		}
	}
	envoy, err := testbed.StartEnvoy(b.ctx, dir, config, options)
	if err != nil {
		return nil, nil, err
	}
	addresses, err := envoy.Listeners()
	return envoy, addresses, err
}

// plain is the reference configuration without TLS, access log and health checks, which cost the same with each contender.
func plain() (*testbed.Config, error) {
	config, err := testbed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return nil, err
	}
	config.Delete("static_resources.listeners.0.filter_chains.0.transport_socket")
	config.Delete(testbed.HCM + ".access_log")
	config.Delete(testbed.Cluster + ".health_checks")
	config.Delete(testbed.Cluster + ".dns_lookup_family")
	config.Set(testbed.Cluster+".type", "STATIC")
	return config, nil
}

// clusters returns the clusters of an Envoy of this size. Their first host is the backend; the others are there to be counted.
func (s size) clusters(config *testbed.Config, backend string) []any {
	hosts := func(n int) []any {
		all := []any{testbed.Endpoint(backend)}
		for i := 1; i < n; i++ {
			all = append(all, testbed.Endpoint(fmt.Sprintf("127.1.%d.%d:1", i/250, i%250+1)))
		}
		return all
	}
	cluster := func(name string, n int) any {
		c := config.Part(testbed.Cluster)
		all := hosts(n)
		c.Set("name", name)
		c.Set("load_assignment", map[string]any{"cluster_name": name, "endpoints": []any{
			map[string]any{"lb_endpoints": all[:1]},
			map[string]any{"lb_endpoints": all[1:], "priority": 1}, // gets no traffic
		}})
		return c.Get("")
	}
	clusters := []any{cluster("service", s.Hosts)}
	for i := range s.Clusters {
		clusters = append(clusters, cluster(fmt.Sprint("other", i), 3))
	}
	return clusters
}

// Paths within a listener.
var (
	hcm        = strings.TrimPrefix(testbed.HCM, testbed.Listener+".")
	filters    = strings.TrimPrefix(testbed.HTTPFilters, testbed.Listener+".")
	routes     = strings.TrimPrefix(testbed.Routes, testbed.Listener+".")
	probeRoute = routes + ".0"
)

// listen makes the listener of a contender from the reference configuration's.
func (b *bench) listen(listener *testbed.Config, contender string) (any, error) {
	listener.Set("name", contender)
	listener.Set("address.socket_address", map[string]any{"address": "127.0.0.1", "port_value": 0})
	enabled := probeRoute + ".typed_per_filter_config"
	switch contender {
	case direct:
		withoutGate(listener)
	case native:
		listener.Delete(enabled)
		listener.Set(filters+".0", nativeFilter("/"))
	case lua:
		script, err := testbed.LoadConfig("envoy/lua.yaml")
		if err != nil {
			return nil, err
		}
		listener.Delete(enabled)
		listener.Set(filters+".0", script.Get(testbed.HTTPFilters+".0"))
	case pluginEverywhere, moduleEverywhere:
		listener.Delete(filters + ".0.disabled")
		listener.Delete(enabled)
	case byModule: // answers Checks too, as envoy/module.yaml does
		health := listener.Part(probeRoute)
		health.Set("match", map[string]any{"prefix": "/grpc.health.v1.Health/"})
		listener.Set(routes, slices.Insert(listener.Get(routes).([]any), 1, health.Get("")))
		listener.Set(filters+".0."+testbed.FilterConfig+".grpc_services", []any{"router.Router"})
	}
	if isModule(contender) { // a plugin's configuration is rewritten with the rest of the bootstrap
		b.module.Rewrite(listener)
	}
	if contender == smallest {
		listener.Set(filters+".0.typed_config.dynamic_module_config", map[string]any{"name": "smallest"})
	}
	return listener.Get(""), nil
}

// withoutGate removes the gate from a listener; its probe is answered by its route.
func withoutGate(listener *testbed.Config) {
	listener.Delete(probeRoute + ".typed_per_filter_config")
	listener.Set(probeRoute+".direct_response", map[string]any{"status": 200, "body": map[string]any{"inline_string": "ok\n"}})
	listener.Set(filters, listener.Get(filters).([]any)[1:])
}

// nativeFilter is Envoy's own health_check filter, for a path and the cluster service.
func nativeFilter(path string) map[string]any {
	return map[string]any{
		"name": "native",
		"typed_config": map[string]any{
			"@type":                           "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
			"pass_through_mode":               false,
			"cluster_min_healthy_percentages": map[string]any{"service": map[string]any{"value": 1}},
			"headers":                         []any{map[string]any{"name": ":path", "string_match": map[string]any{"exact": path}}},
		},
	}
}
