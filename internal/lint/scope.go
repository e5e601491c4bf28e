package lint

import (
	"slices"
	"strings"
)

// scope is one Envoy, as far as the files have it.
type scope struct {
	bootstrap   *Node // nil where only parts are known
	dumped      bool  // by a running Envoy, so it is complete
	allClusters bool  // a dump has all of Envoy's clusters
	inJSON      bool  // a dump has JSON's names for fields: staticClusters
	listeners   []*Node
	hcms        []*Node // that stand alone
	clusters    map[string]*Node
	routes      map[string]*Node // route configurations by name
	extensions  map[string]*Node // filters by ECDS, by name: TypedExtensionConfig
	// Routes by scope, ScopedRouteConfiguration, by the name that a connection manager has for its scopes; a separate file
	// has none.
	scopes map[string][]*Node
	// patches are put by Istio into a configuration that is not in the files.
	patches []*patch
}

func newScope(bootstrap *Node) *scope {
	s := &scope{bootstrap: bootstrap}
	s.add(bootstrap.get("static_resources"), typeStatic)
	return s
}

// add adds a resource by its type.
func (s *scope) add(n *Node, typeName string) {
	if n == nil {
		return
	}
	switch typeName {
	case typeStatic:
		for _, listener := range n.list("listeners") {
			s.add(listener, typeListener)
		}
		for _, cluster := range n.list("clusters") {
			s.add(cluster, typeCluster)
		}
	case typeListener:
		s.listeners = append(s.listeners, n)
	case typeHCM:
		s.hcms = append(s.hcms, n)
	case typeCluster:
		put(&s.clusters, n)
	case typeRoutes:
		put(&s.routes, n)
	case typeExtension:
		put(&s.extensions, n)
	case typeScopedRoutes:
		s.addScope("", n)
	}
}

// addScope adds a scope's routes under a name.
func (s *scope) addScope(name string, n *Node) {
	if s.scopes == nil {
		s.scopes = map[string][]*Node{}
	}
	s.scopes[name] = append(s.scopes[name], n)
}

// put adds a resource by its name.
func put(named *map[string]*Node, n *Node) {
	if *named == nil {
		*named = map[string]*Node{}
	}
	if name := n.text("name"); (*named)[name] == nil {
		(*named)[name] = n
	}
}

// join adds the resources of another scope.
func (s *scope) join(part *scope) {
	s.listeners = append(s.listeners, part.listeners...)
	s.hcms = append(s.hcms, part.hcms...)
	for _, cluster := range part.clusters {
		put(&s.clusters, cluster)
	}
	for _, routes := range part.routes {
		put(&s.routes, routes)
	}
	for _, extension := range part.extensions {
		put(&s.extensions, extension)
	}
	for name, scopes := range part.scopes {
		for _, of := range scopes {
			s.addScope(name, of)
		}
	}
	s.patches = append(s.patches, part.patches...)
}

// discovers says whether CDS may bring clusters that no file has.
func (s *scope) discovers() bool {
	return s.bootstrap.get("dynamic_resources", "cds_config") != nil || s.bootstrap.get("dynamic_resources", "cds_resources_locator") != nil
}

// typed returns the message in a typed_config, and the name of its type.
func typed(n *Node) (contents *Node, typeName string) {
	typeName = typeOf(n.text("@type"))
	if strings.HasSuffix(typeName, ".TypedStruct") && n.text("type_url") != "" {
		return n.get("value"), typeOf(n.text("type_url"))
	}
	return n, typeName
}

// connectionManager is an HTTP connection manager, with where it stands.
type connectionManager struct {
	*Node
	listener *Node  // nil where it stands alone
	chain    *Node  // the filter chain; nil where it stands alone
	patch    *patch // the patch that puts a filter into it, if no more of it is known
}

// connectionManagers returns all there are.
func (s *scope) connectionManagers() []connectionManager {
	var all []connectionManager
	for _, listener := range s.listeners {
		chains := listener.list("filter_chains")
		if byDefault := listener.get("default_filter_chain"); byDefault != nil {
			chains = append(chains[:len(chains):len(chains)], byDefault)
		}
		for _, chain := range chains {
			for _, filter := range chain.list("filters") {
				if contents, typeName := typed(filter.get("typed_config")); typeName == typeHCM && contents != nil {
					all = append(all, connectionManager{Node: contents, listener: listener, chain: chain})
				}
			}
		}
	}
	for _, alone := range s.hcms {
		all = append(all, connectionManager{Node: alone})
	}
	return append(all, s.patchedManagers()...)
}

// httpFilter returns the configuration of an entry of http_filters, and the name of its type: by ECDS if a file has it, else the
// default_config; nil if neither is known.
func (s *scope) httpFilter(entry *Node) (contents *Node, typeName string) {
	discovery := entry.get("config_discovery")
	if discovery == nil {
		return typed(entry.get("typed_config"))
	}
	if extension := s.extensions[entry.text("name")]; extension != nil {
		return typed(extension.get("typed_config"))
	}
	return typed(discovery.get("default_config"))
}

// routing is the routes of a connection manager, as far as the files have them.
type routing struct {
	configurations []*Node // one, but with scopes
	scoped         bool    // a request picks one of them, or none
	partial        bool    // there are, or may be, virtual hosts that no file has
}

// routing returns the routes of a connection manager.
func (s *scope) routing(m connectionManager) routing {
	r := routing{scoped: m.get("scoped_routes") != nil, partial: m.patch != nil}
	if !r.scoped {
		routes := m.get("route_config")
		if routes == nil {
			routes = s.routes[m.text("rds", "route_config_name")]
		}
		r.add(routes)
		return r
	}
	name := m.text("scoped_routes", "name")
	scopes := slices.Concat(m.list("scoped_routes", "scoped_route_configurations_list", "scoped_route_configurations"), s.scopes[name])
	if m.get("scoped_routes", "scoped_rds") != nil && name != "" {
		scopes = append(scopes, s.scopes[""]...)
	}
	r.partial = len(scopes) == 0
	for _, scope := range scopes {
		routes := scope.get("route_configuration")
		if routes == nil {
			routes = s.routes[scope.text("route_configuration_name")]
		}
		r.add(routes)
	}
	return r
}

func (r *routing) add(routes *Node) {
	if routes == nil || routes.get("vhds") != nil {
		r.partial = true
	}
	if routes != nil && !slices.Contains(r.configurations, routes) {
		r.configurations = append(r.configurations, routes)
	}
}

// routesOf returns the routes of a virtual host: a list, of which the first match counts, or the routes in a matcher tree,
// each of which has a match too.
func routesOf(virtualHost *Node) []*Node {
	matcher := virtualHost.get("matcher")
	if matcher == nil {
		return virtualHost.list("routes")
	}
	var all []*Node
	matcher.each(func(n *Node) {
		switch contents, typeName := typed(n); typeName {
		case typeRoute:
			all = append(all, contents)
		case typeRouteList:
			all = append(all, contents.list("routes")...)
		}
	})
	return all
}

// each calls visit for each mapping in a tree.
func (n *Node) each(visit func(*Node)) {
	if n == nil {
		return
	}
	if n.kind == mapping {
		visit(n)
	}
	for _, e := range n.entries {
		e.value.each(visit)
	}
	for _, item := range n.items {
		item.each(visit)
	}
}
