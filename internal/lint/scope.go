package lint

import (
	"maps"
	"slices"
	"strings"
)

// scope is the configuration of one Envoy, as far as it is in the files.
type scope struct {
	bootstrap   *Node // nil if only parts are known
	dumped      bool  // by a running Envoy, so it is complete
	allClusters bool  // a dump has all of Envoy's clusters
	listeners   []*Node
	hcms        []*Node // connection managers without a listener
	clusters    map[string]*Node
	routes      map[string]*Node   // route configurations by name
	extensions  map[string]*Node   // filters by ECDS (TypedExtensionConfig), by name
	scopes      map[string][]*Node // ScopedRouteConfiguration by the scopes' name in the connection manager; "" in a separate file
	patches     []*patch           // of Istio, for a configuration that is not in the files
}

func newScope() *scope {
	return &scope{clusters: map[string]*Node{}, routes: map[string]*Node{}, extensions: map[string]*Node{}, scopes: map[string][]*Node{}}
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
		put(s.clusters, n)
	case typeRoutes:
		put(s.routes, n)
	case typeExtension:
		put(s.extensions, n)
	case typeScopedRoutes:
		s.scopes[""] = append(s.scopes[""], n)
	case typeScopes:
		name := n.text("name")
		s.scopes[name] = append(s.scopes[name], n.list("scoped_route_configs")...)
	}
}

// put adds a resource by its name. Of two with one name the first counts.
func put(named map[string]*Node, n *Node) {
	if name := n.text("name"); named[name] == nil {
		named[name] = n
	}
}

// join adds the resources of another scope.
func (s *scope) join(part *scope) {
	s.listeners = append(s.listeners, part.listeners...)
	s.hcms = append(s.hcms, part.hcms...)
	for _, cluster := range part.clusters {
		put(s.clusters, cluster)
	}
	for _, routes := range part.routes {
		put(s.routes, routes)
	}
	for _, extension := range part.extensions {
		put(s.extensions, extension)
	}
	for name, scopes := range part.scopes {
		s.scopes[name] = append(s.scopes[name], scopes...)
	}
	s.patches = append(s.patches, part.patches...)
}

// resources returns all resources.
func (s *scope) resources() []*Node {
	all := slices.Concat(s.listeners, s.hcms)
	for _, named := range []map[string]*Node{s.routes, s.extensions, s.clusters} {
		all = slices.AppendSeq(all, maps.Values(named))
	}
	for _, scopes := range s.scopes {
		all = append(all, scopes...)
	}
	return all
}

// discovers reports whether clusters ("cds") or listeners ("lds") may come by xDS.
func (s *scope) discovers(what string) bool {
	dynamic := s.bootstrap.get("dynamic_resources")
	return dynamic.get(what+"_config") != nil || dynamic.get(what+"_resources_locator") != nil
}

// typed returns the message in a typed_config (of a TypedStruct: its value), and its type.
func typed(n *Node) (contents *Node, typeName string) {
	typeName = typeOf(n.text("@type"))
	if strings.HasSuffix(typeName, ".TypedStruct") && n.text("type_url") != "" {
		return n.get("value"), typeOf(n.text("type_url"))
	}
	return n, typeName
}

// connectionManager is an HTTP connection manager, with its place.
type connectionManager struct {
	*Node
	listener *Node  // nil if the file has only the connection manager
	chain    *Node  // the filter chain; nil without a listener
	patch    *patch // Istio's patch that adds a filter to it, if nothing else of it is known
}

// port returns the port of the listener, or nil.
func (m connectionManager) port() *Node {
	return m.listener.get("address", "socket_address", "port_value")
}

// connectionManagers returns all connection managers.
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
	for _, m := range s.hcms {
		all = append(all, connectionManager{Node: m})
	}
	return append(all, s.patchedManagers()...)
}

// httpFilter returns the configuration of an entry of http_filters, and its type: the one of ECDS if it is in the files, else the
// default_config; nil if neither is known. A matcher around a filter, which may skip it, is left out.
func (s *scope) httpFilter(entry *Node) (contents *Node, typeName string) {
	packed := entry.get("typed_config")
	if discovery := entry.get("config_discovery"); discovery != nil {
		packed = discovery.get("default_config")
		if extension := s.extensions[entry.text("name")]; extension != nil {
			packed = extension.get("typed_config")
		}
	}
	contents, typeName = typed(packed)
	if shortName(typeName) == "ExtensionWithMatcher" {
		return typed(contents.get("extension_config", "typed_config"))
	}
	return contents, typeName
}

// hasMatcher reports whether an entry of http_filters has a matcher around the filter.
func hasMatcher(entry *Node) bool {
	_, typeName := typed(entry.get("typed_config"))
	return shortName(typeName) == "ExtensionWithMatcher"
}

// routing has the route configurations of a connection manager, as far as they are in the files.
type routing struct {
	configurations []*Node // one, or several with scoped routes
	scoped         bool    // a request selects one of them, or none
	partial        bool    // there may be virtual hosts that are not in the files
}

// routing returns the routing of a connection manager.
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

// routesOf returns the routes of a virtual host: its list, in which the first match counts, or the routes in its matcher tree.
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
