package lint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
)

// The name of plugin, module and filter.
const pluginName = "healthgate"

const (
	typeGolang         = "envoy.extensions.filters.http.golang.v3alpha.Config"
	typeGolangRoute    = "envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute"
	typeModule         = "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"
	typeModuleRoute    = "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute"
	typeModuleStartup  = "envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension"
	typeFilterConfig   = "envoy.config.route.v3.FilterConfig"
	typeTLS            = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
	typeStatsMatcher   = "envoy.config.metrics.v3.StatsMatcher"
	typeDynamicForward = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
)

// variant is how Healthgate is loaded.
type variant uint8

const (
	noVariant variant = iota
	plugin
	module
)

// decoder returns the variant as the gate's own decoder names it.
func (v variant) decoder() config.Variant {
	if v == module {
		return config.Module
	}
	return config.Plugin
}

// routeType returns the message that configures the filter on a route.
func (v variant) routeType() string {
	if v == module {
		return typeModuleRoute
	}
	return typeGolangRoute
}

// read decodes a configuration of the gate.
func (v variant) read(raw *structpb.Struct) (*config.Config, error) {
	return config.Decode(raw, v.decoder())
}

// readOverride checks a route's configuration.
func (v variant) readOverride(raw *structpb.Struct) error {
	_, err := config.DecodeOverride(raw, v.decoder())
	return err
}

// gate is a filter of Healthgate's in a connection manager.
type gate struct {
	in       connectionManager
	index    int   // among the connection manager's filters
	filter   *Node // its entry there
	contents *Node // its typed_config
	variant  variant
	layer    *layer // its own configuration
	routing  routing
	probes   []probe

	// A route configuration may have ten thousands of routes, all of which a virtual host enables: each of these is made once.
	overs   map[*Node]*layer // a level's configuration, by the node that has it
	decoded map[[5]*layer]*decoded
	first   map[firstKey]*Node
	answers []probe // those whose route takes the path that the gate answers there
}

// decoded is a merged configuration.
type decoded struct {
	config *config.Config // nil where it is wrong
	err    error          // of the whole; a layer of it may have its own
}

// firstKey is a virtual host and a path.
type firstKey struct {
	virtualHost *Node
	path        string
}

// layer is one configuration: the filter's, or a level's of the routes, which is merged into the wider ones.
type layer struct {
	at    *Node // where it stands, for missing keys
	value *Node // nil if it has none
	err   error // why it can't be read at all
	over  bool  // it is a route's
	late  bool  // it has a form that Envoy hands to a module from 1.40 on
}

// probe is a route that asks the gate, with the configuration that counts there.
type probe struct {
	route       *Node
	virtualHost *Node
	routes      *Node          // the route configuration
	layers      []*layer       // the filter's first, then from the widest level to the route's
	config      *config.Config // nil where it is wrong
}

// gates returns the gates of a scope.
func (s *scope) gates() []*gate {
	var all []*gate
	for _, m := range s.connectionManagers() {
		for i, f := range m.list("http_filters") {
			contents, typeName := s.httpFilter(f)
			g := &gate{in: m, index: i, filter: f, contents: contents}
			switch {
			case !isOwn(contents, typeName):
				continue
			case typeName == typeGolang:
				g.variant = plugin
				g.layer = plugin.readLayer(contents.get("plugin_config"), contents, "plugin_config", "with at least clusters: [service]")
			default:
				g.variant = module
				g.layer = module.readLayer(contents.get("filter_config"), contents, "filter_config", "with at least clusters: [service]")
			}
			g.routing = s.routing(m)
			for _, routes := range g.routing.configurations {
				g.findProbes(routes)
			}
			g.findAnswers()
			all = append(all, g)
		}
	}
	return all
}

// isOwn says whether an HTTP filter is Healthgate's, or is meant to be: its name may be misspelt.
func isOwn(contents *Node, typeName string) bool {
	switch typeName {
	case typeGolang:
		return isNear(contents.text("plugin_name"), pluginName) || path.Base(contents.text("library_path")) == "healthgate.so" ||
			isNear(contents.text("library_id"), pluginName)
	case typeModule:
		return isModule(contents)
	}
	return false
}

// isModule says whether a dynamic module is Healthgate's, or is meant to be.
func isModule(contents *Node) bool {
	config := contents.get("dynamic_module_config")
	return isNear(config.text("name"), pluginName) || isNear(contents.text("filter_name"), pluginName) ||
		path.Base(config.text("module", "local", "filename")) == "libhealthgate.so"
}

// isNear says whether a name is another one, or that with a slip.
func isNear(name, meant string) bool {
	return name == meant || config.Nearest(strings.ToLower(name), []string{meant}) != "" && !versioned.MatchString(name)
}

// versioned is a name that says which version it is.
var versioned = regexp.MustCompile(`^healthgate[-_.]?v?[0-9]`)

// checkNames finds a filter of Healthgate's by whose name Envoy does not find it.
func (g *gate) checkNames(f *findings) {
	const rule = "no-gate"
	switch g.variant {
	case plugin:
		if name := g.contents.get("plugin_name"); name != nil && name.scalar != pluginName {
			f.add(name, Error, rule, "healthgate.so has the plugin %s alone, and none called %q, so Envoy refuses the filter: write "+
				"plugin_name: %s", pluginName, name.scalar, pluginName)
		}
	case module:
		checkModuleName(f, g.contents)
	}
}

// checkModuleName finds a name by which Envoy searches for another file than libhealthgate.so.
func checkModuleName(f *findings, contents *Node) {
	l := moduleLibrary(contents.get("dynamic_module_config"))
	if l == nil || !l.isMisspelt() {
		return
	}
	f.add(l.at, Error, "no-gate", "by the name %q Envoy searches for lib%s.so, and the module is libhealthgate.so: write name: %s", l.file,
		l.file, pluginName)
}

// readLayer reads one configuration from the Any that holds it.
func (v variant) readLayer(packed, at *Node, key, need string) *layer {
	l := &layer{at: at}
	typeName := typeOf(packed.text("@type"))
	switch {
	case packed == nil || typeName == "":
		l.err = fmt.Errorf("%s: is required, %s", key, need)
	case typeName == "google.protobuf.Struct" || strings.HasSuffix(typeName, ".TypedStruct"):
		l.at, l.value = packed, packed.get("value")
		l.late = v == module && typeName != "google.protobuf.Struct"
	case (typeName == "google.protobuf.StringValue" || typeName == "google.protobuf.BytesValue") && v == module:
		l.at = packed
		content := []byte(packed.text("value"))
		if typeName == "google.protobuf.BytesValue" {
			content, _ = base64.StdEncoding.DecodeString(packed.text("value"))
		}
		l.value, l.err = parseJSON(content, place{file: packed.file, line: packed.line, column: packed.column, fixed: true})
	default:
		l.at = packed
		l.err = fmt.Errorf("%s: %s is another type; write it as google.protobuf.Struct", key, typeName)
	}
	if l.value != nil && l.value.kind != mapping {
		l.at, l.value, l.err = l.value, nil, errors.New("value: it is not an object; write clusters: [service] below it")
	}
	return l
}

// findProbes finds the routes that ask the gate.
func (g *gate) findProbes(routes *Node) {
	for _, virtualHost := range routes.list("virtual_hosts") {
		for _, route := range routesOf(virtualHost) {
			enabled := !g.filter.isTrue("disabled")
			layers := []*layer{g.layer}
			for _, level := range []*Node{routes, virtualHost, route} {
				says := level.get("typed_per_filter_config", g.filter.text("name"))
				if says == nil {
					continue
				}
				over, disabled := g.override(says)
				if enabled = !disabled; over != nil {
					layers = g.merge(layers, over)
				}
			}
			p := probe{route: route, virtualHost: virtualHost, routes: routes}
			g.addProbe(enabled, p, layers)
			for _, cluster := range route.list("route", "weighted_clusters", "clusters") {
				if says := cluster.get("typed_per_filter_config", g.filter.text("name")); says != nil {
					over, disabled := g.override(says)
					if over != nil {
						g.addProbe(!disabled, p, g.merge(layers, over))
					}
				}
			}
		}
	}
}

// findAnswers finds the probes whose route takes the gate's path.
func (g *gate) findAnswers() {
	for _, p := range g.probes {
		if at := p.path(); at != "" && matches(p.route, g.request(at)) != no {
			g.answers = append(g.answers, p)
		}
	}
}

// merge returns the layers with a narrower level's. Envoy gives a dynamic module the most specific level of a route alone.
func (g *gate) merge(layers []*layer, over *layer) []*layer {
	if g.variant == module {
		layers = layers[:1]
	}
	return append(slices.Clone(layers), over)
}

func (g *gate) addProbe(enabled bool, p probe, layers []*layer) {
	if enabled {
		p.layers, p.config = layers, g.decode(layers).config
		g.probes = append(g.probes, p)
	}
}

// override returns a level's configuration of the gate, nil if the level only enables it.
func (g *gate) override(says *Node) (over *layer, disabled bool) {
	contents, typeName := typed(says)
	if typeName == typeFilterConfig {
		if contents.isTrue("disabled") {
			return nil, true
		}
		if contents, typeName = typed(contents.get("config")); typeName == "" {
			return nil, false
		}
	}
	if known := g.overs[says]; known != nil {
		return known, false
	}
	switch right := g.variant.routeType(); {
	case routeMessage(typeName) == right && typeName != right: // the filter's message, as the rule api says
		return nil, false
	case typeName != right:
		over = &layer{at: says, err: fmt.Errorf("%s: it is no configuration of this filter for a route, which Envoy refuses or leaves out; "+
			"write %s", typeName, right)}
	case g.variant == plugin:
		own := contents.get("plugins_config", pluginName)
		if own == nil {
			for _, e := range contents.pairs("plugins_config") {
				if isNear(e.key, pluginName) {
					over = &layer{at: e.value, err: fmt.Errorf("plugins_config.%s: there is no such plugin, so this is left out; did you mean %s?",
						quoteKey(e.key), pluginName)}
				}
			}
			if over == nil {
				return nil, false
			}
			break
		}
		over = plugin.readLayer(own.get("config"), own, "config", "or leave the plugin out")
	default:
		if contents.get("filter_config") == nil {
			return nil, false
		}
		over = module.readLayer(contents.get("filter_config"), contents, "filter_config", "or leave it out")
	}
	over.over = true
	if g.overs == nil {
		g.overs = map[*Node]*layer{}
	}
	g.overs[says] = over
	return over, false
}

// decode merges layers, and decodes the result.
func (g *gate) decode(layers []*layer) *decoded {
	var key [5]*layer
	copy(key[:], layers)
	if known := g.decoded[key]; known != nil {
		return known
	}
	d := &decoded{}
	d.config, d.err = g.variant.read(merged(layers))
	if slices.ContainsFunc(layers, func(l *layer) bool { return l.err != nil }) {
		d.config = nil
	}
	if g.decoded == nil {
		g.decoded = map[[5]*layer]*decoded{}
	}
	g.decoded[key] = d
	return d
}

func merged(layers []*layer) *structpb.Struct {
	whole := layers[0].value.structure()
	for _, over := range layers[1:] {
		whole = config.MergeRaw(whole, over.value.structure())
	}
	return whole
}

// find returns where a path of the configuration stands: in the narrowest layer that has it.
func find(layers []*layer, path string) *Node {
	for _, l := range slices.Backward(layers) {
		if found, whole := l.value.follow(path); whole {
			return found
		}
	}
	// A missing key belongs to the nearest one above it.
	for _, l := range slices.Backward(layers) {
		if found, _ := l.value.follow(path); found != nil && found != l.value {
			return found
		}
	}
	first := layers[0]
	if first.value != nil {
		return first.value
	}
	return first.at
}

// configurations returns each configuration by which probes are answered, with its layers: one probe for each.
func (g *gate) configurations() []probe {
	var distinct []probe
	known := map[*config.Config]bool{}
	for _, p := range g.probes {
		if p.config != nil && !known[p.config] {
			known[p.config] = true
			distinct = append(distinct, p)
		}
	}
	if len(distinct) > 0 {
		return distinct
	}
	layers := []*layer{g.layer}
	return []probe{{layers: layers, config: g.decode(layers).config}}
}

// path is the path that the gate answers on a route.
func (p probe) path() string {
	if p.config == nil {
		return ""
	}
	return p.config.Path
}
