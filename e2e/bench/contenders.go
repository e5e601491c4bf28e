package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"healthgate/e2e/testbed"
)

// The contenders: each has a listener in the same Envoy, and answers GET /.
const (
	direct   = "direct_response" // no filter
	native   = "native health_check"
	smallest = "smallest module" // e2e/bench/smallest
	byModule = "dynamic module"
	empty    = "empty C plugin"  // e2e/bench/empty
	emptyGo  = "empty Go plugin" // e2e/bench/emptygo
	byPlugin = "Go plugin"
	lua      = "Lua script" // envoy/lua.yaml
)

// smallestLike names the smallest contender that is loaded in the same way. Its cost is not the cost of Healthgate.
var smallestLike = map[string]string{byModule: smallest, byPlugin: emptyGo}

func isModule(contender string) bool { return contender == smallest || contender == byModule }
func isPlugin(contender string) bool {
	return slices.Contains([]string{empty, emptyGo, byPlugin}, contender)
}

// size is how many hosts and clusters an Envoy has.
type size struct {
	Name     string
	Hosts    int // of the cluster that the contenders check
	Clusters int // further clusters, each with three hosts
}

var sizes = []size{{"3 hosts", 3, 0}, {"100 more clusters", 3, 100}, {"1,000 more clusters", 3, 1000}, {"1,000 hosts", 1000, 0}}

// The indexes of sizes.
const (
	small = iota
	hundred
	thousand
)

// rareCopies makes the contrib host copy Envoy's stats rarely: contrib's golang extension copies none.
const rareCopies = "CONTRIB_HOST_REFRESH_MILLISECONDS=1000"

// start starts an Envoy with a listener for each contender, made from the reference configuration, and returns their addresses.
func (b *bench) start(s size, contenders ...string) (*testbed.Envoy, map[string]string, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, nil, err
	}
	config, err := plain()
	if err != nil {
		return nil, nil, err
	}
	script, err := testbed.ReadBootstrap("envoy/lua.yaml")
	if err != nil {
		return nil, nil, err
	}
	admin, err := testbed.UnusedAddress() // the script needs its port
	if err != nil {
		return nil, nil, err
	}
	config.Listen(0, admin.Port)
	var listeners []*listenerv3.Listener
	for _, name := range contenders {
		listeners = append(listeners, b.listen(config.Clone(), script, name))
	}
	clusters := s.clusters(config)
	options := testbed.Options{Workers: 1, Env: []string{rareCopies}}
	if slices.Contains(contenders, lua) {
		cluster := script.StaticResources.Clusters[1]
		testbed.SetEndpoints(cluster, admin.String())
		clusters = append(clusters, cluster)
	}
	config.StaticResources.Listeners, config.StaticResources.Clusters = listeners, clusters
	if slices.ContainsFunc(contenders, isPlugin) {
		config, options = config.For(b.plugin), b.plugin.Options(options)
	}
	if slices.ContainsFunc(contenders, isModule) {
		config, options = config.For(b.module), b.module.Options(options)
	}
	options.Sync = nil // admin and the filter need not agree at once
	for i, name := range contenders {
		if load := loadInstead[name]; load != nil {
			filter := config.HCMOf(config.StaticResources.Listeners[i]).HttpFilters[0]
			load(config.Unpack(filter.GetTypedConfig()).(*modulev3.DynamicModuleFilter))
		}
	}
	envoy, err := testbed.StartEnvoy(b.ctx, dir, config, options)
	if err != nil {
		return nil, nil, err
	}
	addresses, err := envoy.Listeners()
	return envoy, addresses, err
}

// loadInstead loads another module or plugin than Healthgate's. The plugins are the contrib host's.
var loadInstead = map[string]func(*modulev3.DynamicModuleFilter){
	smallest: func(f *modulev3.DynamicModuleFilter) { f.DynamicModuleConfig.Name = "smallest" },
	empty:    func(f *modulev3.DynamicModuleFilter) { f.FilterName = "empty@empty@" + inBuild("empty.so") },
	emptyGo:  func(f *modulev3.DynamicModuleFilter) { f.FilterName = "emptygo@emptygo@" + inBuild("emptygo.so") },
}

func inBuild(name string) string { return filepath.Join(testbed.Root(), "build", name) }

// plain returns the reference configuration without TLS, access log and health checks, which cost the same for every contender.
func plain() (*testbed.Bootstrap, error) {
	config, err := testbed.ReadBootstrap("envoy/envoy.yaml")
	if err != nil {
		return nil, err
	}
	config.WithoutTLS()
	config.HCM().AccessLog = nil
	testbed.Patch(config.Cluster(), `{type: STATIC, dns_lookup_family: null, health_checks: null}`)
	return config, nil
}

// clusters returns the clusters of an Envoy of this size. Nothing is sent to their hosts.
func (s size) clusters(config *testbed.Bootstrap) []*clusterv3.Cluster {
	cluster := func(name string, hosts int) *clusterv3.Cluster {
		c := config.CopyCluster(name)
		var addresses []string
		for i := range hosts {
			addresses = append(addresses, fmt.Sprintf("127.1.%d.%d:1", i/250, i%250+1))
		}
		testbed.SetEndpoints(c, addresses...)
		return c
	}
	all := []*clusterv3.Cluster{cluster("service", s.Hosts)}
	for i := range s.Clusters {
		all = append(all, cluster(fmt.Sprint("other", i), 3))
	}
	return all
}

// listen returns the listener of a contender.
func (b *bench) listen(config, script *testbed.Bootstrap, contender string) *listenerv3.Listener {
	switch contender {
	case direct:
		withoutGate(config)
	case native, lua:
		config.ProbeRoute().TypedPerFilterConfig = nil
		config.HCM().HttpFilters[0] = nativeFilter("/")
		if contender == lua {
			config.HCM().HttpFilters[0] = proto.CloneOf(script.HCM().HttpFilters[0])
		}
	}
	listener := config.CopyListener(contender)
	if isModule(contender) { // a plugin is converted with the bootstrap
		b.module.Convert(listener)
	}
	return listener
}

// withoutGate removes the gate; the probe's route answers instead.
func withoutGate(config *testbed.Bootstrap) {
	config.RemoveGate()
	testbed.Patch(config.ProbeRoute(), `direct_response: {status: 200, body: {inline_string: "ok\n"}}`)
}

// nativeFilter returns Envoy's own health_check filter, for a path and the cluster service.
func nativeFilter(path string) *hcmv3.HttpFilter {
	return testbed.Parse[*hcmv3.HttpFilter](`
name: native
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
  pass_through_mode: false
  cluster_min_healthy_percentages: {service: {value: 1}}
  headers: [{name: ":path", string_match: {exact: ` + path + `}}]`)
}
