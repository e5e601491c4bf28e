package testbed

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bootstrapmodulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/dynamic_modules/v3"
	dynamicmodulesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/dynamic_modules/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	statusv1 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// contribHostPath is the contrib host's path in admin.
const contribHostPath = "/contrib_host"

func contribHostObject() string { return built("libcontribhost.so") }

// toContribHost replaces each golang configuration in a message by the contrib host's; the plugin and its configuration stay as they are.
func toContribHost(m proto.Message) {
	switch m := m.(type) {
	case *bootstrapv3.Bootstrap:
		for _, listener := range m.GetStaticResources().GetListeners() {
			listenerToContribHost(listener)
		}
		extension := &bootstrapmodulev3.DynamicModuleBootstrapExtension{DynamicModuleConfig: contribHostConfig(), ExtensionName: "contribhost"}
		if matcher := m.GetStatsConfig().GetStatsMatcher(); matcher != nil {
			extension.ExtensionConfig = Any(matcher)
		}
		addBootstrapExtension(m, extension)
	case *listenerv3.Listener:
		listenerToContribHost(m)
	case *routev3.RouteConfiguration:
		routesToContribHost(m, digest(m)) // listeners that get it from the same source share it
	default:
		replaceAnys(m, func(held proto.Message) proto.Message { return filterToContribHost(held, "", nil) })
	}
}

func listenerToContribHost(listener *listenerv3.Listener) {
	matcher := listener.GetMetadata().GetTypedFilterMetadata()["envoy.stats_matcher"]
	chains := listener.GetFilterChains()
	if chain := listener.GetDefaultFilterChain(); chain != nil {
		chains = append(slices.Clip(chains), chain)
	}
	for i, chain := range chains {
		key, logs := fmt.Sprint(listener.GetName(), "/", i, "/", digest(chain)), ""
		replaceAnys(chain, func(held proto.Message) proto.Message {
			if hcm, ok := held.(*hcmv3.HttpConnectionManager); ok {
				logs = ""
				if hcm.GetAccessLogOptions().GetFlushAccessLogOnNewRequest() {
					logs = "logs start"
				}
				routesToContribHost(hcm.GetRouteConfig(), key)
			}
			return filterToContribHost(held, logs, matcher)
		})
	}
}

// filterToContribHost returns the contrib host's form of a golang filter, or nil for any other message. logs shows the contrib host whether
// the connection manager logs each request when it begins, and matcher shows which stats the listener excludes.
func filterToContribHost(message proto.Message, logs string, matcher *anypb.Any) proto.Message {
	config, ok := message.(*golangv3.Config)
	if !ok {
		return nil
	}
	return &modulev3.DynamicModuleFilter{
		DynamicModuleConfig: contribHostConfig(),
		FilterName:          fmt.Sprint(config.GetPluginName(), "@", config.GetLibraryId(), "@", goPlugin{}.Object()),
		FilterConfig:        envelope(logs, config.GetPluginConfig(), matcher),
	}
}

// contribHostConfig loads the contrib host. Its namespace puts two dots before the names of its stats, which Envoy drops.
func contribHostConfig() *dynamicmodulesv3.DynamicModuleConfig {
	return &dynamicmodulesv3.DynamicModuleConfig{Name: "contribhost", DoNotClose: true, LoadGlobally: true, MetricsNamespace: "."}
}

// overrideLevel is the override of a plugin at one level of the routes. The key identifies the object that the golang extension has for it.
type overrideLevel struct {
	plugin, key string
	config      *anypb.Any
}

// perFilter is a level of the routes.
type perFilter interface {
	GetTypedPerFilterConfig() map[string]*anypb.Any
}

// routesToContribHost adds all wider levels to each override of the plugin in a RouteConfiguration, because Envoy gives a module only the
// most specific one.
func routesToContribHost(routes *routev3.RouteConfiguration, key string) {
	all := convertLevel(routes, key, nil)
	for i, host := range routes.GetVirtualHosts() {
		key := fmt.Sprint(key, "/", i)
		ofHost := convertLevel(host, key, all)
		for i, route := range host.GetRoutes() {
			key := fmt.Sprint(key, "/", i)
			ofRoute := convertLevel(route, key, ofHost)
			for i, cluster := range route.GetRoute().GetWeightedClusters().GetClusters() {
				convertLevel(cluster, fmt.Sprint(key, "/", i), ofRoute)
			}
		}
	}
}

// convertLevel replaces the overrides of a level by overrides with all wider levels too, and returns the levels by the filter's name, the
// widest first.
func convertLevel(node perFilter, key string, above map[string][]overrideLevel) map[string][]overrideLevel {
	levels := maps.Clone(above)
	if levels == nil {
		levels = map[string][]overrideLevel{}
	}
	for filter, config := range node.GetTypedPerFilterConfig() {
		replaceAnys(config, func(held proto.Message) proto.Message {
			perRoute, ok := held.(*golangv3.ConfigsPerRoute)
			if !ok {
				return nil // of another filter; or a FilterConfig, which may hold one
			}
			these := slices.Clip(levels[filter])
			for _, plugin := range slices.Sorted(maps.Keys(perRoute.GetPluginsConfig())) {
				name := fmt.Sprintf("%.8x", sha256.Sum256([]byte(fmt.Sprint(key, "/", filter, "/", plugin))))
				these = append(these, overrideLevel{plugin, name, perRoute.GetPluginsConfig()[plugin].GetConfig()})
			}
			levels[filter] = these
			lines, configs := "", []*anypb.Any{}
			for _, l := range these {
				lines += l.plugin + " " + l.key + "\n"
				configs = append(configs, l.config)
			}
			return &modulev3.DynamicModuleFilterPerRoute{
				DynamicModuleConfig: contribHostConfig(), FilterName: "levels", FilterConfig: envelope(lines, configs...),
			}
		})
	}
	return levels
}

// envelope returns a message of a type that any Envoy knows, which holds a text and other messages. Envoy passes its bytes to a module.
func envelope(text string, messages ...*anypb.Any) *anypb.Any {
	for i, message := range messages {
		if message == nil {
			messages[i] = &anypb.Any{}
		}
	}
	return Any(&statusv1.Status{Message: text, Details: messages})
}

func digest(message proto.Message) string {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%.8x", sha256.Sum256(wire))
}
