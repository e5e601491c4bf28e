package testbed

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// contribHostPath is where the contrib host answers in admin.
const contribHostPath = "/contrib_host"

func contribHostObject() string { return built("libcontribhost.so") }

// addContribHost adds the contrib host's part that is there once an Envoy.
func addContribHost(bootstrap *Config) {
	extension := map[string]any{
		"@type":                 typeURL + "envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension",
		"dynamic_module_config": contribHostModule(),
		"extension_name":        "contribhost",
	}
	if matcher, ok := bootstrap.Get("stats_config.stats_matcher").(map[string]any); ok {
		matcher = maps.Clone(matcher)
		matcher["@type"] = typeURL + "envoy.config.metrics.v3.StatsMatcher"
		extension["extension_config"] = matcher
	}
	bootstrap.Set("bootstrap_extensions", []any{map[string]any{"name": "contribhost", "typed_config": extension}})
}

const (
	typeURL     = "type.googleapis.com/"
	golangType  = typeURL + "envoy.extensions.filters.http.golang.v3alpha.Config"
	perRoute    = typeURL + "envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute"
	forFilter   = typeURL + "envoy.config.route.v3.FilterConfig"
	modulesType = typeURL + "envoy.extensions.filters.http.dynamic_modules.v3."
)

// contribHostModule loads the contrib host. Of the namespace its stats get two dots before their names, which Envoy drops.
func contribHostModule() map[string]any {
	return map[string]any{"name": "contribhost", "do_not_close": true, "load_globally": true, "metrics_namespace": "."}
}

// place is where in a configuration something stands.
type place struct {
	path  []string
	chain string // what tells the routes of a filter chain from others: all of the chain
	// The listener's own stats matcher, or nil.
	matcher any
	// What the log of the connection manager is besides; the contrib host knows it by this.
	logs string
}

func (p place) at(step any) place {
	p.path = append(slices.Clip(p.path), fmt.Sprint(step))
	return p
}

// swap returns the tree with each golang configuration in it replaced by the contrib host's; the plugin and its configuration stay
// as they are.
func (p place) swap(node any) any {
	switch n := node.(type) {
	case []any:
		for i := range n {
			n[i] = p.at(i).swap(n[i])
		}
	case map[string]any:
		switch {
		case n["@type"] == golangType:
			return map[string]any{
				"@type":                 modulesType + "DynamicModuleFilter",
				"dynamic_module_config": contribHostModule(),
				"filter_name":           fmt.Sprint(n["plugin_name"], "@", n["library_id"], "@", goPlugin{}.Object()),
				"filter_config":         status(p.logs, n["plugin_config"], p.matcher),
			}
		case n["@type"] == perRoute:
			panic("the bed knows of no routes at " + strings.Join(p.path, "."))
		case n["virtual_hosts"] != nil:
			p.swapRoutes(n)
		case n["filters"] != nil && p.chain == "":
			p.chain = digestTree(n)
		case n["filter_chains"] != nil || n["default_filter_chain"] != nil:
			p = p.at(n["name"])
			typed, _ := Tree(n).Get("metadata.typed_filter_metadata").(map[string]any)
			p.matcher = typed["envoy.stats_matcher"]
		}
		if options, _ := n["access_log_options"].(map[string]any); options["flush_access_log_on_new_request"] == true ||
			n["flush_access_log_on_new_request"] == true {
			p.logs = "logs start"
		}
		for key := range n {
			n[key] = p.at(key).swap(n[key])
		}
	}
	return node
}

// level is what one level of the routes configures for a plugin. The key names what in the golang extension is one object.
type level struct {
	plugin, key string
	config      any
}

// swapRoutes gives each configuration of the plugin in a RouteConfiguration all those above it, since the contrib host learns of
// the most specific alone.
func (p place) swapRoutes(routes map[string]any) {
	key := digestTree(routes) // listeners that take it from the same source share it
	if p.chain != "" {
		key = p.chain + strings.Join(p.path, ".")
	}
	all := overrides(routes, key, nil)
	for i, host := range list(routes["virtual_hosts"]) {
		key := fmt.Sprint(key, "/", i)
		ofHost := overrides(host, key, all)
		for i, route := range list(host["routes"]) {
			key := fmt.Sprint(key, "/", i)
			ofRoute := overrides(route, key, ofHost)
			action, _ := route["route"].(map[string]any)
			weighted, _ := action["weighted_clusters"].(map[string]any)
			for i, cluster := range list(weighted["clusters"]) {
				overrides(cluster, fmt.Sprint(key, "/", i), ofRoute)
			}
		}
	}
}

func list(node any) (all []map[string]any) {
	nodes, _ := node.([]any)
	for _, n := range nodes {
		all = append(all, n.(map[string]any))
	}
	return all
}

// overrides replaces the configurations of a level by those with all levels above it, and returns the levels for each filter's
// name, the widest first.
func overrides(node map[string]any, key string, above map[string][]level) map[string][]level {
	levels := maps.Clone(above)
	if levels == nil {
		levels = map[string][]level{}
	}
	set, _ := node["typed_per_filter_config"].(map[string]any)
	for filter, value := range set {
		in, config := set, value.(map[string]any)
		name := filter
		if config["@type"] == forFilter {
			in, name = config, "config"
			config, _ = config["config"].(map[string]any) // none where the filter is disabled
		}
		if config["@type"] != perRoute {
			continue // of another filter; or an empty one, which enables the filter and is no level
		}
		plugins, _ := config["plugins_config"].(map[string]any)
		of := slices.Clip(levels[filter])
		for _, plugin := range slices.Sorted(maps.Keys(plugins)) {
			config := plugins[plugin].(map[string]any)["config"]
			of = append(of, level{plugin, digestTree(fmt.Sprint(key, "/", filter, "/", plugin)), config})
		}
		levels[filter] = of
		lines, configs := "", []any{}
		for _, l := range of {
			lines += l.plugin + " " + l.key + "\n"
			configs = append(configs, l.config)
		}
		in[name] = map[string]any{
			"@type":                 modulesType + "DynamicModuleFilterPerRoute",
			"dynamic_module_config": contribHostModule(),
			"per_route_config_name": "levels",
			"filter_config":         status(lines, configs...),
		}
	}
	return levels
}

// status is a message that any Envoy knows, with a text and others in it; a module is given its bytes.
func status(text string, messages ...any) map[string]any {
	for i, message := range messages {
		if message == nil {
			messages[i] = map[string]any{}
		}
	}
	return map[string]any{"@type": typeURL + "google.rpc.Status", "message": text, "details": messages}
}

func digestTree(node any) string {
	text, err := json.Marshal(node)
	if err != nil {
		panic(err) // it holds what YAML can hold
	}
	return fmt.Sprintf("%.8x", sha256.Sum256(text))
}
