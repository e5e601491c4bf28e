package lint

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"healthgate/filter/config"
)

// gateName is the name of the plugin, of the module and of the filter in it.
const gateName = "healthgate"

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

const (
	plugin = config.Plugin
	module = config.Module
)

// gate is a Healthgate filter in a connection manager.
type gate struct {
	in       connectionManager
	index    int   // among the connection manager's filters
	filter   *Node // its entry there
	contents *Node // its typed_config
	variant  config.Variant
	layer    *layer // the filter's own configuration
	routing  routing
	probes   []probe
	answers  []probe // the probes whose route matches the gate's path there

	// A route configuration may have ten thousand routes, each with the overrides of its virtual host, so these are made once.
	overrides    map[*Node]*override
	decoded      map[[5]*layer]*decoded
	first        map[firstKey]*Node
	routeModules []*Node // the DynamicModuleFilterPerRoute messages
}

// decoded is a merged configuration.
type decoded struct {
	config *config.Config // nil if it is refused
	err    error          // of the merged configuration; a layer may have an error too
}

// firstKey is a virtual host and a path.
type firstKey struct {
	virtualHost *Node
	path        string
}

// layer is the filter's configuration, or the override of one level of the routes.
type layer struct {
	at         *Node // where findings about missing keys are reported
	value      *Node // nil if there is none
	err        error // why it can't be read at all
	isOverride bool
	isLate     bool // its form is passed on to a module from Envoy 1.40 on
}

// override is the configuration of the gate at one level of the routes. The layer is nil if the level only enables or disables the gate.
type override struct {
	layer    *layer
	disabled bool
}

// probe is a route that enables the gate, with the configuration that applies there.
type probe struct {
	route       *Node
	virtualHost *Node
	routes      *Node          // the route configuration
	layers      []*layer       // the filter's first, then from the widest level to the route's
	config      *config.Config // nil if it is refused
}

func (s *scope) gates() (all []*gate) {
	for _, m := range s.connectionManagers() {
		for i, f := range m.list("http_filters") {
			contents, typeName := s.httpFilter(f)
			if contents == nil && f.get("config_discovery") != nil { // ECDS, which is not in the files, may have a gate
				s.elsewhere++
			}
			if !isGate(contents, typeName) {
				continue
			}
			g := &gate{in: m, index: i, filter: f, contents: contents, variant: plugin, routing: s.routing(m),
				overrides: map[*Node]*override{}, decoded: map[[5]*layer]*decoded{}, first: map[firstKey]*Node{}}
			key := "plugin_config"
			if typeName == typeModule {
				g.variant, key = module, "filter_config"
			}
			g.layer = readLayer(g.variant, contents.get(key), contents, key, "with at least clusters: [service]")
			for _, routes := range g.routing.configurations {
				g.findProbes(routes)
			}
			for _, p := range g.probes {
				if at := p.path(); at != "" && matches(p.route, g.request(at)) != no {
					g.answers = append(g.answers, p)
				}
			}
			all = append(all, g)
		}
	}
	return all
}

// isGate reports whether an HTTP filter is Healthgate, or is meant to be: a name may be misspelt.
func isGate(contents *Node, typeName string) bool {
	return typeName == typeModule && isModule(contents) || typeName == typeGolang && (isNear(contents.text("plugin_name")) ||
		path.Base(contents.text("library_path")) == "healthgate.so" || isNear(contents.text("library_id")))
}

// isModule reports whether a dynamic module is Healthgate, or is meant to be.
func isModule(contents *Node) bool {
	module := contents.get("dynamic_module_config")
	return isNear(module.text("name")) || isNear(contents.text("filter_name")) || isNear(contents.text("extension_name")) ||
		path.Base(module.text("module", "local", "filename")) == "libhealthgate.so"
}

// isNear reports whether a name is healthgate, perhaps misspelt.
func isNear(name string) bool {
	return name == gateName || config.Nearest(strings.ToLower(name), []string{gateName}) != "" && !versioned.MatchString(name)
}

// versioned matches a name with a version in it.
var versioned = regexp.MustCompile(`^healthgate[-_.]?v?[0-9]`)

// checkNames reports a misspelt name, by which Envoy does not find Healthgate.
func (g *gate) checkNames(f findings) {
	if g.variant == module {
		checkModuleName(f, g.contents)
	} else if name := g.contents.get("plugin_name"); name != nil && name.scalar != gateName {
		f.add(name, Error, "no-gate", "healthgate.so registers only the plugin %s, so Envoy does not find %q and refuses the filter: write "+
			"plugin_name: %s", gateName, name.scalar, gateName)
	}
}

// checkModuleName reports a name by which Envoy looks for another file than libhealthgate.so.
func checkModuleName(f findings, contents *Node) {
	if l := moduleLibrary(contents); l != nil && l.isMisspelt() {
		f.add(l.at, Error, "no-gate", "Envoy looks for lib%s.so by this name, and the module is libhealthgate.so: write name: %s",
			l.file, gateName)
	}
}

// readLayer reads a configuration from the Any that contains it.
func readLayer(variant config.Variant, packed, at *Node, key, need string) *layer {
	l := &layer{at: at}
	typeName := typeOf(packed.text("@type"))
	if typeName != "" {
		l.at = packed
	}
	switch {
	case typeName == "":
		l.err = fmt.Errorf("%s: is required, %s", key, need)
	case typeName == "google.protobuf.Struct" || strings.HasSuffix(typeName, ".TypedStruct"):
		l.value = packed.get("value")
		l.isLate = variant == module && typeName != "google.protobuf.Struct"
	case (typeName == "google.protobuf.StringValue" || typeName == "google.protobuf.BytesValue") && variant == module:
		content := []byte(packed.text("value"))
		if typeName == "google.protobuf.BytesValue" {
			content, _ = base64.StdEncoding.DecodeString(packed.text("value"))
		}
		l.value, l.err = parseJSON(content, place{packed.position, true})
	default:
		l.err = fmt.Errorf("%s: %s is another type; write it as google.protobuf.Struct", key, typeName)
	}
	if l.value != nil && l.value.kind != mapping {
		l.at, l.value, l.err = l.value, nil, errors.New("value: it is not an object; write clusters: [service] below it")
	}
	return l
}

// findProbes finds the routes that enable the gate.
func (g *gate) findProbes(routes *Node) {
	addProbe := func(p probe, enabled bool) {
		if enabled {
			p.config = g.decode(p.layers).config
			g.probes = append(g.probes, p)
		}
	}
	for _, virtualHost := range routes.list("virtual_hosts") {
		for _, route := range routesOf(virtualHost) {
			p := probe{route: route, virtualHost: virtualHost, routes: routes, layers: []*layer{g.layer}}
			enabled := !g.filter.isTrue("disabled")
			for _, level := range slices.Backward(p.levels()) {
				if o := g.override(level); o != nil {
					enabled = !o.disabled
					p.layers = g.merge(p.layers, o.layer)
				}
			}
			addProbe(p, enabled)
			for _, cluster := range route.list("route", "weighted_clusters", "clusters") {
				if o := g.override(cluster); o != nil && o.layer != nil {
					ofCluster := p
					ofCluster.layers = g.merge(p.layers, o.layer)
					addProbe(ofCluster, !o.disabled)
				}
			}
		}
	}
}

// levels returns a probe's levels of routes, the narrowest first.
func (p probe) levels() []*Node { return []*Node{p.route, p.virtualHost, p.routes} }

// merge returns the layers with a narrower level's. Envoy gives a dynamic module only the most specific level of a route.
func (g *gate) merge(layers []*layer, narrower *layer) []*layer {
	switch {
	case narrower == nil:
		return layers
	case g.variant == module:
		layers = layers[:1]
	}
	return append(slices.Clone(layers), narrower)
}

// routeConfig returns the message by which a level of the routes configures a filter, without a FilterConfig around it, and whether it
// disables the filter.
func routeConfig(packed *Node) (contents *Node, typeName string, disabled bool) {
	if contents, typeName = typed(packed); typeName != typeFilterConfig {
		return contents, typeName, false
	}
	disabled = contents.isTrue("disabled")
	contents, typeName = typed(contents.get("config"))
	return contents, typeName, disabled
}

// override returns the gate's override at a level of the routes, or nil.
func (g *gate) override(level *Node) *override {
	packed := level.get("typed_per_filter_config", g.filter.text("name"))
	if packed == nil || g.overrides[packed] != nil {
		return g.overrides[packed]
	}
	o := &override{}
	g.overrides[packed] = o
	contents, typeName, disabled := routeConfig(packed)
	if o.disabled = disabled; !disabled && typeName != "" {
		o.layer = g.overrideLayer(packed, contents, typeName)
	}
	if typeName == typeModuleRoute {
		g.routeModules = append(g.routeModules, contents)
	}
	return o
}

// overrideLayer reads a route's message. It returns nil if that configures nothing, or is reported by the rule api.
func (g *gate) overrideLayer(packed, contents *Node, typeName string) (l *layer) {
	right := typeGolangRoute
	if g.variant == module {
		right = typeModuleRoute
	}
	switch own := contents.get("plugins_config", gateName); {
	case typeName != right && routeMessage(typeName) == right:
	case typeName != right:
		l = &layer{at: packed, err: fmt.Errorf("%s: it is no configuration of this filter for a route, so Envoy refuses or ignores it; "+
			"write %s", typeName, right)}
	case g.variant == module && contents.get("filter_config") != nil:
		l = readLayer(module, contents.get("filter_config"), contents, "filter_config", "or leave it out")
	case g.variant == module:
	case own != nil:
		l = readLayer(plugin, own.get("config"), own, "config", "or leave the plugin out")
	default:
		for _, e := range slices.Backward(contents.pairs("plugins_config")) {
			if isNear(e.key) {
				l = &layer{at: e.value, err: fmt.Errorf("plugins_config.%s: there is no such plugin, so Envoy ignores this; did you mean %s?",
					quoteKey(e.key), gateName)}
			}
		}
	}
	if l != nil {
		l.isOverride = true
	}
	return l
}

// decode merges layers and decodes the result.
func (g *gate) decode(layers []*layer) *decoded {
	var key [5]*layer
	copy(key[:], layers)
	if d := g.decoded[key]; d != nil {
		return d
	}
	merged := layers[0].value.structure()
	for _, narrower := range layers[1:] {
		merged = config.MergeRaw(merged, narrower.value.structure())
	}
	d := &decoded{}
	g.decoded[key] = d
	if d.config, d.err = config.Decode(merged, g.variant); slices.ContainsFunc(layers, func(l *layer) bool { return l.err != nil }) {
		d.config = nil
	}
	return d
}

// own returns the filter's own configuration, or nil.
func (g *gate) own() *config.Config { return g.decode([]*layer{g.layer}).config }

// errorOf returns the decoder's error of one layer.
func (g *gate) errorOf(l *layer) (err error) {
	if l.err != nil {
		return l.err
	}
	if l.isOverride {
		_, err = config.DecodeOverride(l.value.structure(), g.variant)
		return err
	}
	return g.decode([]*layer{l}).err
}

// nodeAt returns the node at a path of the configuration, in the narrowest layer that has it; of a missing key, the nearest node above.
func nodeAt(layers []*layer, path string) (nearest *Node) {
	for _, l := range slices.Backward(layers) {
		found, whole := l.value.follow(path)
		if whole {
			return found
		}
		if nearest == nil && found != l.value {
			nearest = found
		}
	}
	return cmp.Or(nearest, layers[0].value, layers[0].at)
}

// cluster returns the node of a key of the i-th cluster of a probe's configuration.
func (p probe) cluster(i int, key string) *Node {
	return nodeAt(p.layers, fmt.Sprintf("clusters[%d].%s", i, key))
}

// configurations returns one probe for each distinct configuration that is not refused; without a probe, the filter's own.
func (g *gate) configurations() []probe {
	var distinct []probe
	known := map[*config.Config]bool{}
	for _, p := range g.probes {
		if p.config != nil && !known[p.config] {
			known[p.config] = true
			distinct = append(distinct, p)
		}
	}
	if own := g.own(); len(distinct) == 0 && own != nil {
		return []probe{{layers: []*layer{g.layer}, config: own}}
	}
	return distinct
}

// path returns the path that the gate answers on a route, or "".
func (p probe) path() string {
	if p.config != nil {
		return p.config.Path
	}
	return ""
}
