package lint

import (
	"slices"
	"strings"
)

// scope is the configuration of one Envoy, as far as it is in the files.
type scope struct {
	bootstrap   *Node // nil if only parts are known
	dumped      bool  // by a running Envoy, so it is complete
	allClusters bool  // a dump has all of Envoy's clusters
	resources   []resource
	listeners   []*Node
	hcms        []*Node // connection managers without a listener
	clusters    map[string]*Node
	routes      map[string]*Node   // route configurations by name
	extensions  map[string]*Node   // filters by ECDS (TypedExtensionConfig), by name
	scopes      map[string][]*Node // ScopedRouteConfiguration by the scopes' name in the connection manager; "" in a separate file
	patches     []*patch           // of Istio, for a configuration that is not in the files
	elsewhere   int                // how many filters may be gates, and are not checked
}

// resource is a message that has a name, or none, in a scope.
type resource struct {
	*Node
	typeName string
}

func newScope() *scope {
	return &scope{clusters: map[string]*Node{}, routes: map[string]*Node{}, extensions: map[string]*Node{}, scopes: map[string][]*Node{}}
}

// add adds a resource by its type. Of two with one name the first counts.
func (s *scope) add(n *Node, typeName string) {
	named := map[string]map[string]*Node{typeCluster: s.clusters, typeRoutes: s.routes, typeExtension: s.extensions}[typeName]
	name := n.text("name")
	switch {
	case n == nil:
	case typeName == typeStatic:
		for _, listener := range n.list("listeners") {
			s.add(listener, typeListener)
		}
		for _, cluster := range n.list("clusters") {
			s.add(cluster, typeCluster)
		}
	case typeName == typeScopes:
		for _, scope := range n.list("scoped_route_configs") {
			s.scopes[name] = append(s.scopes[name], scope)
			s.resources = append(s.resources, resource{scope, typeScopedRoutes})
		}
	default:
		switch {
		case typeName == typeListener:
			s.listeners = append(s.listeners, n)
		case typeName == typeHCM:
			s.hcms = append(s.hcms, n)
		case typeName == typeScopedRoutes:
			s.scopes[""] = append(s.scopes[""], n)
		case named == nil || named[name] != nil:
			return
		default:
			named[name] = n
		}
		s.resources = append(s.resources, resource{n, typeName})
	}
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

func (s *scope) connectionManagers() (all []connectionManager) {
	for _, listener := range s.listeners {
		for _, chain := range append(slices.Clone(listener.list("filter_chains")), listener.get("default_filter_chain")) {
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
	if contents, typeName = typed(packed); shortName(typeName) == "ExtensionWithMatcher" {
		return typed(contents.get("extension_config", "typed_config"))
	}
	return contents, typeName
}

// routing has the route configurations of a connection manager, as far as they are in the files.
type routing struct {
	configurations []*Node // one, or several with scoped routes
	scoped         bool    // a request selects one of them, or none
	partial        bool    // there may be virtual hosts that are not in the files
}

func (s *scope) routing(m connectionManager) routing {
	r := routing{scoped: m.get("scoped_routes") != nil, partial: m.patch != nil}
	add := func(routes *Node, name string) {
		if routes == nil {
			routes = s.routes[name]
		}
		r.partial = r.partial || routes == nil || routes.get("vhds") != nil
		if routes != nil && !slices.Contains(r.configurations, routes) {
			r.configurations = append(r.configurations, routes)
		}
	}
	if !r.scoped {
		add(m.get("route_config"), m.text("rds", "route_config_name"))
		return r
	}
	name := m.text("scoped_routes", "name")
	scopes := slices.Concat(m.list("scoped_routes", "scoped_route_configurations_list", "scoped_route_configurations"), s.scopes[name])
	if m.get("scoped_routes", "scoped_rds") != nil && name != "" {
		scopes = append(scopes, s.scopes[""]...)
	}
	r.partial = len(scopes) == 0
	for _, scope := range scopes {
		add(scope.get("route_configuration"), scope.text("route_configuration_name"))
	}
	return r
}

// routesOf returns the routes of a virtual host: its list, in which the first match counts, or the routes in its matcher tree.
func routesOf(virtualHost *Node) (all []*Node) {
	matcher := virtualHost.get("matcher")
	if matcher == nil {
		return virtualHost.list("routes")
	}
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

func routesIn(configuration *Node) (all []*Node) {
	for _, virtualHost := range configuration.list("virtual_hosts") {
		all = append(all, routesOf(virtualHost)...)
	}
	return all
}

// each calls visit for each node of a tree.
func (n *Node) each(visit func(*Node)) {
	if n == nil {
		return
	}
	visit(n)
	for _, e := range n.entries {
		e.value.each(visit)
	}
	for _, item := range n.items {
		item.each(visit)
	}
}
