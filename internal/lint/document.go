package lint

import (
	"slices"
	"strings"
)

// The types of documents, and of what stands in them.
const (
	typeBootstrap    = "envoy.config.bootstrap.v3.Bootstrap"
	typeStatic       = "envoy.config.bootstrap.v3.Bootstrap.StaticResources"
	typeListener     = "envoy.config.listener.v3.Listener"
	typeCluster      = "envoy.config.cluster.v3.Cluster"
	typeRoutes       = "envoy.config.route.v3.RouteConfiguration"
	typeVirtualHost  = "envoy.config.route.v3.VirtualHost"
	typeRoute        = "envoy.config.route.v3.Route"
	typeEndpoints    = "envoy.config.endpoint.v3.ClusterLoadAssignment"
	typeExtension    = "envoy.config.core.v3.TypedExtensionConfig"
	typeScopedRoutes = "envoy.config.route.v3.ScopedRouteConfiguration"
	typeRouteList    = "envoy.config.route.v3.RouteList"
	typeHCM          = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)

// marks are keys by which a document without an @type is recognized: any of a line's will do. The first line that fits wins.
var marks = []struct {
	typeName string
	keys     []string
}{
	{typeBootstrap, []string{"static_resources", "dynamic_resources", "admin", "node", "layered_runtime", "overload_manager", "cluster_manager", "stats_config", "bootstrap_extensions"}},
	{typeRoutes, []string{"virtual_hosts"}},
	{typeListener, []string{"filter_chains", "default_filter_chain", "listener_filters", "api_listener"}},
	{typeHCM, []string{"http_filters"}},
	{typeCluster, []string{"load_assignment", "lb_policy", "eds_cluster_config", "health_checks", "cluster_type", "connect_timeout", "dns_lookup_family"}},
	{typeVirtualHost, []string{"domains"}},
	{typeRoute, []string{"match"}},
	{typeEndpoints, []string{"cluster_name"}},
	{typeStatic, []string{"listeners", "clusters"}},
}

// recognize returns the type of a document of Envoy's, or "".
func recognize(n *Node) string {
	if n.kind != mapping {
		return ""
	}
	if url := n.text("@type"); url != "" {
		return typeOf(url)
	}
	keys := map[string]bool{}
	for _, e := range n.entries {
		keys[underscored(e.key)] = true
	}
	for _, mark := range marks {
		for _, key := range mark.keys {
			if keys[key] {
				return mark.typeName
			}
		}
	}
	return ""
}

// underscored writes a key in JSON's form, staticResources, in protobuf's.
func underscored(key string) string {
	if !strings.ContainsFunc(key, func(r rune) bool { return r >= 'A' && r <= 'Z' }) {
		return key
	}
	return snake(key)
}

// document takes a document for what it is, and says whether it is anything at all.
func (l *linter) document(n *Node, s *scope) bool {
	switch {
	case n.kind == list: // an excerpt: the entries of listeners, clusters or routes
		known := false
		for _, item := range n.items {
			known = l.document(item, s) || known
		}
		return known
	case n.kind != mapping:
		return false
	case n.text("apiVersion") != "" && n.text("kind") != "":
		l.object(n)
		return true
	case n.get("configs") != nil && strings.HasPrefix(typeOf(n.get("configs").first().text("@type")), "envoy.admin."):
		l.dump(n)
		return true
	case n.get("resources") != nil && n.get("resources").kind == list:
		for _, resource := range n.list("resources") {
			if wrapped := resource.get("resource"); wrapped != nil { // envoy.service.discovery.v3.Resource
				resource = wrapped
			}
			l.document(resource, s)
		}
		return true
	}
	typeName := recognize(n)
	if typeName == "" {
		return false
	}
	l.found.check(n, typeName)
	if typeName == typeBootstrap {
		l.scopes = append(l.scopes, newScope(n))
		return true
	}
	s.add(n, typeName)
	return true
}

// first returns the first item of a list.
func (n *Node) first() *Node {
	if n == nil || len(n.items) == 0 {
		return nil
	}
	return n.items[0]
}

// dump takes what admin's /config_dump gives. Envoy has taken it, so it is not held to the API again.
func (l *linter) dump(n *Node) {
	s := &scope{dumped: true}
	for _, part := range n.list("configs") {
		switch typeName := typeOf(part.text("@type")); strings.TrimPrefix(typeName, "envoy.admin.v3.") {
		case "BootstrapConfigDump":
			s.bootstrap = part.get("bootstrap")
		case "ClustersConfigDump":
			s.allClusters = true
			s.addEach(part, typeCluster, "static_clusters", "cluster")
			s.addEach(part, typeCluster, "dynamic_active_clusters", "cluster")
			s.addEach(part, typeCluster, "dynamic_warming_clusters", "cluster")
		case "ListenersConfigDump":
			s.addEach(part, typeListener, "static_listeners", "listener")
			s.addEach(part, typeListener, "dynamic_listeners", "active_state", "listener")
		// What ?resource= gives one by one.
		case "ClustersConfigDump.StaticCluster", "ClustersConfigDump.DynamicCluster":
			s.add(part.get("cluster"), typeCluster)
		case "ListenersConfigDump.StaticListener":
			s.add(part.get("listener"), typeListener)
		case "ListenersConfigDump.DynamicListener":
			s.add(part.get("active_state", "listener"), typeListener)
		case "RoutesConfigDump.StaticRouteConfig", "RoutesConfigDump.DynamicRouteConfig":
			s.add(part.get("route_config"), typeRoutes)
		case "RoutesConfigDump":
			s.addEach(part, typeRoutes, "static_route_configs", "route_config")
			s.addEach(part, typeRoutes, "dynamic_route_configs", "route_config")
		case "EcdsConfigDump":
			s.addEach(part, typeExtension, "ecds_filters", "ecds_filter")
		case "EcdsConfigDump.EcdsFilterConfig":
			s.add(part.get("ecds_filter"), typeExtension)
		case "ScopedRoutesConfigDump":
			for _, of := range slices.Concat(part.list("inline_scoped_route_configs"), part.list("dynamic_scoped_route_configs")) {
				s.addScopes(of)
			}
		case "ScopedRoutesConfigDump.InlineScopedRouteConfigs", "ScopedRoutesConfigDump.DynamicScopedRouteConfigs":
			s.addScopes(part)
		}
	}
	l.scopes = append(l.scopes, s)
}

// addScopes adds what a dump has of one connection manager's scopes.
func (s *scope) addScopes(n *Node) {
	for _, one := range n.list("scoped_route_configs") {
		s.addScope(n.text("name"), one)
	}
}

// addEach adds what stands under keys of each entry of a list.
func (s *scope) addEach(n *Node, typeName, listKey string, keys ...string) {
	for _, item := range n.list(listKey) {
		if resource := item.get(keys...); resource != nil {
			s.add(resource, typeName)
		}
	}
}

// object takes an object of Kubernetes'.
func (l *linter) object(n *Node) {
	switch n.text("kind") {
	case "List":
		for _, item := range n.list("items") {
			if item.kind == mapping {
				l.object(item)
			}
		}
	case "EnvoyFilter":
		l.envoyFilter(n)
	case "ConfigMap":
		for _, e := range n.pairs("data") {
			if e.value.kind == text && strings.ContainsAny(e.value.scalar, ":{") {
				l.embedded(e.value)
			}
		}
	default:
		l.objects = append(l.objects, n)
	}
}

// embedded takes a text in a ConfigMap for Envoy's configuration, where it is one: a ConfigMap has other things too.
func (l *linter) embedded(value *Node) {
	at := place{file: value.file, line: value.line, column: value.column, fixed: true}
	if value.valueLine > 0 {
		indent, line := 0, value.valueLine
		for ; line <= len(value.file.starts); line++ {
			if full := value.file.line(line); strings.TrimSpace(full) != "" {
				indent = len(full) - len(strings.TrimLeft(full, " "))
				break
			}
		}
		at = place{file: value.file, line: value.valueLine - 1, column: indent}
	}
	documents, err := parse([]byte(value.scalar), at)
	if err != nil {
		return
	}
	s := &scope{}
	for _, document := range documents {
		if recognize(document) != "" || document.get("resources") != nil {
			l.document(document, s)
		}
	}
	l.parts = append(l.parts, s)
}
