package lint

import "strings"

// scope is one Envoy, as far as the files tell.
type scope struct {
	bootstrap   *Node // nil where only parts are known
	dumped      bool  // by a running Envoy: nothing else is to come
	allClusters bool  // a dump has all of Envoy's clusters
	listeners   []*Node
	hcms        []*Node // that stand alone
	clusters    map[string]*Node
	routes      map[string]*Node // route configurations by name
}

func newScope(bootstrap *Node) *scope {
	s := &scope{bootstrap: bootstrap}
	s.add(bootstrap.get("static_resources"), typeStatic)
	return s
}

// add takes a resource by its type.
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
	}
}

// put keeps a resource by its name.
func put(named *map[string]*Node, n *Node) {
	if *named == nil {
		*named = map[string]*Node{}
	}
	if name := n.text("name"); (*named)[name] == nil {
		(*named)[name] = n
	}
}

// join takes over what another scope has.
func (s *scope) join(part *scope) {
	s.listeners = append(s.listeners, part.listeners...)
	s.hcms = append(s.hcms, part.hcms...)
	for _, cluster := range part.clusters {
		put(&s.clusters, cluster)
	}
	for _, routes := range part.routes {
		put(&s.routes, routes)
	}
}

// discovers says whether clusters may come that no file has.
func (s *scope) discovers() bool {
	return s.bootstrap.get("dynamic_resources", "cds_config") != nil || s.bootstrap.get("dynamic_resources", "cds_resources_locator") != nil
}

// typed returns what a typed_config holds, and the name of its type.
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
	listener *Node // nil where it stands alone
	chain    *Node // the filter chain; nil where it stands alone
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
					all = append(all, connectionManager{contents, listener, chain})
				}
			}
		}
	}
	for _, alone := range s.hcms {
		all = append(all, connectionManager{Node: alone})
	}
	return all
}

// routeConfiguration returns that of a connection manager, or nil where no file has it.
func (s *scope) routeConfiguration(m connectionManager) *Node {
	if inline := m.get("route_config"); inline != nil {
		return inline
	}
	return s.routes[m.text("rds", "route_config_name")]
}
