package lint

import "strings"

// patch is a patch of Istio's EnvoyFilter, for a configuration that is not in the files.
type patch struct {
	applyTo   string // HTTP_FILTER, HTTP_ROUTE, …
	operation string // ADD, INSERT_FIRST, MERGE, …
	at        *Node  // where the operation stands
	match     *Node
	value     *Node
}

// whole says whether the value is complete, and not merged into another.
func (p *patch) whole() bool {
	return p.operation == "ADD" || p.operation == "REPLACE" || strings.HasPrefix(p.operation, "INSERT_")
}

// patchTypes are the types of a patch's value, by applyTo.
var patchTypes = map[string]string{
	"LISTENER":            typeListener,
	"FILTER_CHAIN":        "envoy.config.listener.v3.FilterChain",
	"NETWORK_FILTER":      "envoy.config.listener.v3.Filter",
	"HTTP_FILTER":         "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
	"ROUTE_CONFIGURATION": typeRoutes,
	"VIRTUAL_HOST":        typeVirtualHost,
	"HTTP_ROUTE":          typeRoute,
	"CLUSTER":             typeCluster,
	"EXTENSION_CONFIG":    typeExtension,
	"BOOTSTRAP":           typeBootstrap,
}

// envoyFilter reads Istio's EnvoyFilter.
func (l *linter) envoyFilter(n *Node) {
	s := &scope{}
	for _, of := range n.list("spec", "configPatches") {
		p := &patch{of.text("applyTo"), of.text("patch", "operation"), of.at("patch", "operation"), of.get("match"), of.get("patch", "value")}
		typeName := patchTypes[p.applyTo]
		if typeName == "" || p.value == nil || p.value.kind != mapping {
			continue
		}
		l.found.checkPatch(p.value, typeName, p.whole())
		s.patches = append(s.patches, p)
		if p.whole() {
			s.addPatch(p)
		}
	}
	l.parts = append(l.parts, s)
}

// addPatch adds the resource of a whole patch.
func (s *scope) addPatch(p *patch) {
	switch p.applyTo {
	case "LISTENER", "CLUSTER", "EXTENSION_CONFIG", "ROUTE_CONFIGURATION":
		s.add(p.value, patchTypes[p.applyTo])
	case "FILTER_CHAIN":
		s.add(p.value.below("filter_chains"), typeListener)
	case "NETWORK_FILTER":
		if contents, typeName := typed(p.value.get("typed_config")); typeName == typeHCM {
			s.add(contents, typeHCM)
		}
	}
}

// below returns a mapping with a list of values under a key, at the place of the first.
func (n *Node) below(key string, more ...*Node) *Node {
	items := &Node{file: n.file, line: n.line, column: n.column, kind: list, items: append([]*Node{n}, more...)}
	return &Node{file: n.file, line: n.line, column: n.column, kind: mapping, entries: []entry{{key, items}}}
}

// patchedManagers are connection managers of which no more is known than one filter that is put into them, and the routes that are.
func (s *scope) patchedManagers() []connectionManager {
	var hosts, routes []*Node
	for _, p := range s.patches {
		switch {
		case p.whole() && p.applyTo == "VIRTUAL_HOST":
			hosts = append(hosts, p.value)
		case p.whole() && p.applyTo == "HTTP_ROUTE":
			routes = append(routes, p.value)
		}
	}
	if len(routes) > 0 {
		hosts = append(hosts, routes[0].below("routes", routes[1:]...))
	}
	var all []connectionManager
	for _, p := range s.patches {
		if !p.whole() || p.applyTo != "HTTP_FILTER" {
			continue
		}
		manager := p.value.below("http_filters")
		if len(hosts) > 0 {
			manager.entries = append(manager.entries, entry{"route_config", hosts[0].below("virtual_hosts", hosts[1:]...)})
		}
		all = append(all, connectionManager{Node: manager, patch: p})
	}
	return all
}

// checkPatches checks the place of a gate that Istio puts in, and the routes that enable it.
func (s *scope) checkPatches(f *findings, g *gate) {
	const router = "envoy.filters.http.router"
	switch p := g.in.patch; {
	case p.operation == "ADD", p.operation == "INSERT_AFTER",
		p.operation == "INSERT_BEFORE" && p.match.text("listener", "filterChain", "filter", "subFilter", "name") == router:
		f.add(p.at, Warning, "order", "%s puts the gate behind the filters that Istio has there (JWT, RBAC, external authorization), which "+
			"may answer before it: write operation: INSERT_FIRST", p.operation)
	}
	asked := len(g.probes) > 0
	for _, p := range s.patches {
		if p.applyTo == "HTTP_ROUTE" && p.operation == "ADD" && p.value.get("typed_per_filter_config", g.filter.text("name")) != nil {
			f.add(p.at, Warning, "shadowed", "ADD puts the probe's route behind those that Istio has there, one of which may take the probe "+
				"first: write operation: INSERT_FIRST")
		}
		if p.whole() {
			continue
		}
		says := p.value.get("typed_per_filter_config", g.filter.text("name"))
		if says == nil {
			continue
		}
		over, disabled := g.override(says)
		if asked = asked || !disabled; over == nil {
			continue
		}
		err := over.err
		if err == nil {
			err = g.variant.readOverride(over.value.structure())
		}
		if !reportErrors(f, []*layer{over}, err) && g.decode([]*layer{g.layer}).err == nil {
			layers := []*layer{g.layer, over}
			reportErrors(f, layers, g.decode(layers).err)
		}
	}
	if !asked && g.filter.isTrue("disabled") {
		f.add(g.filter.at("disabled"), Warning, "not-enabled", "the filter is disabled and no patch in these files enables it, so a probe "+
			"goes where its route sends it: put into the probe's route, by a patch of HTTP_ROUTE: %s", g.enabling())
	}
}
