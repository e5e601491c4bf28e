package lint

import "strings"

// patch is a patch of Istio's EnvoyFilter, for a configuration that is not in the files.
type patch struct {
	applyTo   string // HTTP_FILTER, HTTP_ROUTE, …
	operation string // ADD, INSERT_FIRST, MERGE, …
	isWhole   bool   // the value is complete rather than merged into another
	at        *Node  // the operation
	match     *Node
	value     *Node
}

// patchTypes has the types of a patch's value, by applyTo.
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

func (l *linter) envoyFilter(n *Node) {
	s := newScope()
	l.parts = append(l.parts, s)
	for _, of := range n.list("spec", "configPatches") {
		p := &patch{applyTo: of.text("applyTo"), operation: of.text("patch", "operation"), at: of.at("patch", "operation"),
			match: of.get("match"), value: of.get("patch", "value")}
		p.isWhole = p.operation == "ADD" || p.operation == "REPLACE" || strings.HasPrefix(p.operation, "INSERT_")
		typeName := patchTypes[p.applyTo]
		if typeName == "" || p.value == nil || p.value.kind != mapping {
			continue
		}
		(&api{found: l.found, patch: true, part: !p.isWhole}).check(p.value, typeName)
		s.patches = append(s.patches, p)
		contents, kind := typed(p.value.get("typed_config"))
		switch {
		case !p.isWhole:
		case p.applyTo == "FILTER_CHAIN":
			s.add(p.value.below("filter_chains"), typeListener)
		case p.applyTo == "NETWORK_FILTER" && kind == typeHCM:
			s.add(contents, typeHCM)
		default:
			s.add(p.value, typeName)
		}
	}
}

// below returns a mapping with a list of values at a key, in the place of the first.
func (n *Node) below(key string, more ...*Node) *Node {
	items := &Node{position: n.position, kind: list, items: append([]*Node{n}, more...)}
	return &Node{position: n.position, kind: mapping, entries: []entry{{key, items}}}
}

// patchedManagers returns connection managers of which only one added filter is known, and the added routes.
func (s *scope) patchedManagers() (all []connectionManager) {
	added := map[string][]*Node{}
	for _, p := range s.patches {
		if p.isWhole {
			added[p.applyTo] = append(added[p.applyTo], p.value)
		}
	}
	hosts := added["VIRTUAL_HOST"]
	if routes := added["HTTP_ROUTE"]; len(routes) > 0 {
		hosts = append(hosts, routes[0].below("routes", routes[1:]...))
	}
	for _, p := range s.patches {
		if !p.isWhole || p.applyTo != "HTTP_FILTER" {
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

// checkPatches checks the place of a gate that a patch adds, and the patches that enable it.
func (s *scope) checkPatches(f findings, g *gate) {
	const router = "envoy.filters.http.router"
	switch p := g.in.patch; {
	case p.operation == "ADD", p.operation == "INSERT_AFTER",
		p.operation == "INSERT_BEFORE" && p.match.text("listener", "filterChain", "filter", "subFilter", "name") == router:
		f.add(p.at, Warning, "order", "%s adds the gate after Istio's own filters (JWT, RBAC, external authorization), which "+
			"may answer before it: write operation: INSERT_FIRST", p.operation)
	}
	asked := len(g.probes) > 0
	for _, p := range s.patches {
		if p.applyTo == "HTTP_ROUTE" && p.operation == "ADD" && p.value.get("typed_per_filter_config", g.filter.text("name")) != nil {
			f.add(p.at, Warning, "shadowed", "ADD adds the probe's route after Istio's own routes, one of which may take the probe "+
				"first: write operation: INSERT_FIRST")
		}
		if p.isWhole {
			continue
		}
		o := g.override(p.value)
		if o == nil {
			continue
		}
		asked = asked || !o.disabled
		if o.layer != nil && !reportErrors(f, []*layer{o.layer}, g.errorOf(o.layer)) && g.decode([]*layer{g.layer}).err == nil {
			layers := []*layer{g.layer, o.layer}
			reportErrors(f, layers, g.decode(layers).err)
		}
	}
	if !asked && g.filter.isTrue("disabled") {
		f.add(g.filter.at("disabled"), Warning, "not-enabled", "the filter is disabled and no patch in these files enables it, so probes "+
			"get the route's own action: add to the probe's route, by a patch of HTTP_ROUTE: %s", g.enablingLines())
	}
}
