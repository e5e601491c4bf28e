package lint

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"healthgate/filter/config"
)

// The types of documents and of their parts.
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
	typeScopes       = "envoy.admin.v3.ScopedRoutesConfigDump.ScopedRouteConfigs" // no message: the scopes of one connection manager
	typeRouteList    = "envoy.config.route.v3.RouteList"
	typeHCM          = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)

// mark has the keys that identify a document without an @type. A weak key is used by other programs too: it counts only if the value has
// the form of Envoy's.
type mark struct{ typeName, strong, weak string }

// marks has the marks in the order in which they are tried.
var marks = []mark{
	{typeBootstrap, "static_resources dynamic_resources layered_runtime overload_manager stats_config bootstrap_extensions",
		"admin node cluster_manager"},
	{typeRoutes, "virtual_hosts", ""},
	{typeListener, "filter_chains default_filter_chain listener_filters api_listener", ""},
	{typeHCM, "http_filters", ""},
	{typeCluster, "load_assignment lb_policy eds_cluster_config cluster_type", "health_checks connect_timeout dns_lookup_family"},
	{typeVirtualHost, "", "domains"},
	{typeRoute, "", "match"},
	{typeEndpoints, "", "cluster_name"},
	{typeStatic, "", "listeners clusters"},
}

// recognize returns the type of a document, or "" if it is none of Envoy's.
func recognize(n *Node) string {
	if n.kind != mapping {
		return ""
	}
	if url := n.text("@type"); url != "" {
		return typeOf(url)
	}
	for _, m := range marks {
		for _, e := range n.entries {
			key := snake(e.key)
			if slices.Contains(strings.Fields(m.strong), key) && 2*fieldCount(n, messageType(m.typeName).Descriptor()) >= len(n.entries) ||
				slices.Contains(strings.Fields(m.weak), key) && m.fits(n, key, e.value) {
				return m.typeName
			}
		}
	}
	return ""
}

// fits reports whether a document has the form of a mark's type: a bootstrap by the value of a weak key, another by all of its keys.
func (m mark) fits(n *Node, key string, value *Node) bool {
	kind := messageType(m.typeName).Descriptor()
	field := fieldOf(kind, key)
	switch {
	case field.IsList() && value.kind != list && value.kind != mapping || !field.IsList() && field.Message() != nil &&
		value.kind != mapping && field.Message().FullName() != "google.protobuf.Duration":
		return false
	case m.typeName == typeBootstrap && len(value.entries) > 0:
		return fieldsOf(value, field.Message())
	case m.typeName == typeStatic:
		for _, e := range n.entries {
			of := kind.Fields().ByName(protoreflect.Name(snake(e.key)))
			if of == nil || slices.ContainsFunc(e.value.items, func(item *Node) bool { return !isResource(item, of.Message()) }) {
				return false
			}
		}
	}
	return fieldsOf(n, kind)
}

// isResource reports whether an item of a list is a listener, a cluster or a secret: most of its keys are fields.
func isResource(item *Node, kind protoreflect.MessageDescriptor) bool {
	return 2*fieldCount(item, kind) > len(item.entries) && (item.get("name") != nil || item.get("address") != nil)
}

// fieldCount returns how many keys of a mapping are fields of a message.
func fieldCount(n *Node, kind protoreflect.MessageDescriptor) (count int) {
	for _, e := range n.entries {
		if fieldOf(kind, e.key) != nil {
			count++
		}
	}
	return count
}

// fieldsOf reports whether each key of a mapping is a field of a message.
func fieldsOf(n *Node, kind protoreflect.MessageDescriptor) bool {
	return !slices.ContainsFunc(n.entries, func(e entry) bool { return e.key != "<<" && fieldOf(kind, e.key) == nil })
}

// document reads a document by its type, and reports whether the type is known.
func (l *linter) document(n *Node, s *scope) bool {
	switch typeName := typeOf(n.text("@type")); {
	case n.kind == list && slices.ContainsFunc(n.items, isHTTPFilter): // an excerpt, as a list of listeners, clusters or routes is
		return l.document(&Node{position: n.position, kind: mapping, entries: []entry{{"http_filters", n}}}, s)
	case n.kind == list:
		known := false
		for _, item := range n.items {
			known = l.document(item, s) || known
		}
		return known
	case n.kind != mapping:
		return false
	case isObject(n):
		l.object(n)
	case isDump(n):
		l.dump(n)
	case l.dumpsBelow(n, 0):
	case n.get("resources") != nil && n.get("resources").kind == list:
		for _, resource := range n.list("resources") {
			if wrapped := resource.get("resource"); wrapped != nil { // envoy.service.discovery.v3.Resource
				resource = wrapped
			}
			l.document(resource, s)
		}
	case isHTTPFilter(n):
		return l.document(n.below("http_filters"), s)
	case typeName == "google.protobuf.Struct" || strings.HasSuffix(typeName, ".TypedStruct"):
		return n.get("value") != nil && l.document(n.get("value"), s)
	case isGatesOwn(n):
		l.checked = true
		l.gates++
		_, err := config.Decode(n.structure(), module)
		report(l.found, []*layer{{at: n, value: n}}, err, "this file is Healthgate's own configuration, and the filter refuses it")
	default:
		typeName = recognize(n)
		return typeName != "" && !strings.HasPrefix(typeName, "google.protobuf.") && l.message(n, typeName, s)
	}
	return true
}

// message reads a message of Envoy's API.
func (l *linter) message(n *Node, typeName string, s *scope) bool {
	l.checked = true
	isExcerpt := typeName == typeHCM && n.get("stat_prefix") == nil // http_filters, and the clusters that they need
	if isExcerpt {
		for _, cluster := range n.list("clusters") {
			(&api{found: l.found}).check(cluster, typeCluster)
			s.add(cluster, typeCluster)
		}
		n.entries = slices.DeleteFunc(n.entries, func(e entry) bool { return e.key == "clusters" })
	}
	(&api{found: l.found, part: isExcerpt}).check(n, typeName)
	if typeName == typeListener || typeName == typeHCM || typeName == typeStatic && n.get("listeners") != nil ||
		typeName == typeBootstrap && (n.get("static_resources") != nil || n.get("dynamic_resources") != nil) {
		l.gatePlace = cmp.Or(l.gatePlace, n)
	}
	if typeName == typeBootstrap {
		s = newScope()
		s.bootstrap = n
		l.scopes = append(l.scopes, s)
		n, typeName = n.get("static_resources"), typeStatic
	}
	s.add(n, typeName)
	return true
}

const adminPackage = "envoy.admin.v3."

// dumpedResource is where a part of a /config_dump has resources: in a list, whose items ?resource= returns one by one.
type dumpedResource struct {
	part, list, item string
	path             []string // from an item to the resource
	typeName         string
}

var dumpedResources = []dumpedResource{
	{"ClustersConfigDump", "static_clusters", "StaticCluster", []string{"cluster"}, typeCluster},
	{"ClustersConfigDump", "dynamic_active_clusters", "DynamicCluster", []string{"cluster"}, typeCluster},
	{"ClustersConfigDump", "dynamic_warming_clusters", "DynamicCluster", []string{"cluster"}, typeCluster},
	{"ListenersConfigDump", "static_listeners", "StaticListener", []string{"listener"}, typeListener},
	{"ListenersConfigDump", "dynamic_listeners", "DynamicListener", []string{"active_state", "listener"}, typeListener},
	{"RoutesConfigDump", "static_route_configs", "StaticRouteConfig", []string{"route_config"}, typeRoutes},
	{"RoutesConfigDump", "dynamic_route_configs", "DynamicRouteConfig", []string{"route_config"}, typeRoutes},
	{"EcdsConfigDump", "ecds_filters", "EcdsFilterConfig", []string{"ecds_filter"}, typeExtension},
	{"ScopedRoutesConfigDump", "inline_scoped_route_configs", "InlineScopedRouteConfigs", nil, typeScopes},
	{"ScopedRoutesConfigDump", "dynamic_scoped_route_configs", "DynamicScopedRouteConfigs", nil, typeScopes},
}

// dumpType returns the type of a part of a dump without its package, by its @type or its keys, or "".
func dumpType(part *Node) string {
	if typeName := typeOf(part.text("@type")); typeName != "" {
		name, isAdmin := strings.CutPrefix(typeName, adminPackage)
		if !isAdmin {
			name = ""
		}
		return name
	}
	for _, e := range part.pairs() {
		key := snake(e.key)
		if key == "bootstrap" {
			return "BootstrapConfigDump"
		}
		if i := slices.IndexFunc(dumpedResources, func(d dumpedResource) bool { return d.list == key }); i >= 0 {
			return dumpedResources[i].part
		}
	}
	return ""
}

// isDump returns whether a document is a whole dump, or one part of it.
func isDump(n *Node) bool {
	return slices.ContainsFunc(n.list("configs"), func(part *Node) bool { return dumpType(part) != "" }) ||
		typeOf(n.text("@type")) != "" && dumpType(n) != ""
}

// dumpsBelow reads the dumps in the output of Envoy Gateway's egctl: by namespace and proxy, or beside the objects that they were made of.
func (l *linter) dumpsBelow(n *Node, depth int) (found bool) {
	for _, e := range n.entries {
		switch {
		case e.value.kind == mapping && isDump(e.value):
			l.dump(e.value)
			found = true
		case e.value.kind == mapping && depth < 2 && recognize(n) == "":
			found = l.dumpsBelow(e.value, depth+1) || found
		}
	}
	if !found || depth > 0 {
		return found
	}
	for _, e := range n.entries {
		for _, item := range e.value.items {
			if isObject(item) {
				l.object(item)
			}
		}
	}
	return found
}

// rename gives the keys of a message their names in the API, if the text has JSON's: statsConfig.
func rename(n *Node, typeName string) {
	(&api{found: findings{}}).document(n, typeName)
}

// dump reads admin's /config_dump. Envoy has accepted it, so it is not checked against the API again.
func (l *linter) dump(n *Node) {
	s := newScope()
	s.dumped = true
	l.checked = true
	parts := n.list("configs")
	if len(parts) == 0 {
		parts = []*Node{n}
	}
	inJSON := slices.ContainsFunc(parts, func(part *Node) bool {
		return slices.ContainsFunc(slices.Concat(part.entries, part.pairs("bootstrap")), func(e entry) bool { return e.key != snake(e.key) })
	})
	for _, part := range parts {
		kind := dumpType(part)
		if inJSON && kind != "" {
			rename(part, adminPackage+kind)
		}
		switch kind {
		case "BootstrapConfigDump":
			l.gatePlace = cmp.Or(l.gatePlace, part)
			s.bootstrap = part.get("bootstrap")
		case "ClustersConfigDump":
			s.allClusters = true
		case "ListenersConfigDump":
			l.gatePlace = cmp.Or(l.gatePlace, part)
		}
		for _, d := range dumpedResources {
			items := part.list(d.list)
			if kind == d.part+"."+d.item {
				items = []*Node{part}
			} else if kind != d.part {
				continue
			}
			for _, item := range items {
				resource := item.get(d.path...)
				if inJSON && resource != nil && resource.text("@type") == "" { // otherwise renamed with the message around it
					rename(resource, d.typeName)
				}
				s.add(resource, d.typeName)
			}
			if kind != d.part {
				break // the two kinds of clusters share an item
			}
		}
	}
	l.scopes = append(l.scopes, s)
}

func isObject(n *Node) bool { return n.text("apiVersion") != "" && n.text("kind") != "" }

func (l *linter) object(n *Node) {
	switch kind := n.text("kind"); kind {
	case "List", "ConfigMapList", "SecretList", "EnvoyFilterList":
		for _, item := range n.list("items") {
			if item.kind == mapping {
				l.object(item)
			}
		}
	case "EnvoyFilter":
		l.checked = true
		l.envoyFilter(n)
	case "ConfigMap", "Secret":
		for _, field := range []string{"data", "stringData", "binaryData"} {
			for _, e := range n.pairs(field) {
				if e.value.kind == text {
					l.embedded(e.key, e.value, field == "binaryData" || field == "data" && kind == "Secret")
				}
			}
		}
	default:
		l.objects = append(l.objects, n)
		l.checked = l.checked || gatewayReads(n.text("kind"))
	}
}

var (
	// envoysKey matches a key of a ConfigMap that should have Envoy's configuration.
	envoysKey = regexp.MustCompile(`(?i)(envoy|bootstrap).*\.(ya?ml|json)$|^(lds|cds|rds|eds|listeners?|clusters?|routes?)\.(ya?ml|json)$`)
	// envoysText matches a text that is meant to be Envoy's configuration.
	envoysText = regexp.MustCompile(`(?m)^[ \t"-]*(static_resources|dynamic_resources|filter_chains|http_filters|virtual_hosts|` +
		`load_assignment|typed_config)\b`)
)

// embedded reads a text in a ConfigMap or a Secret, if it is Envoy's configuration.
func (l *linter) embedded(key string, value *Node, encoded bool) {
	content, at := []byte(value.scalar), embeddedAt(value)
	if encoded {
		var err error
		if content, err = base64.StdEncoding.DecodeString(value.scalar); err != nil {
			return
		}
		at = place{value.position, true}
	}
	expected := envoysKey.MatchString(key) || envoysText.Match(content)
	if !expected && !bytes.ContainsAny(content, ":{") {
		return
	}
	whole := "the value of " + quoteKey(key)
	known, err := l.documents(content, at, func(document *Node) bool {
		return expected || recognize(document) != "" || document.get("resources") != nil
	})
	if wrong := (*syntaxError)(nil); errors.As(err, &wrong) && expected {
		l.notRead(wrong, content, whole)
	}
	if err == nil && expected && !known {
		l.checked = true
		l.found.add(value, Warning, "unread", "%s is no configuration of Envoy, so nothing in it is checked: %s", whole, readable)
	}
}

// embeddedAt returns the place of a text in a value: line by line in a block scalar, else the place of its key.
func embeddedAt(value *Node) place {
	if value.valueLine == 0 {
		return place{value.position, true}
	}
	indent := 0
	for line := value.valueLine; line <= len(value.file.starts); line++ {
		if full := value.file.text(line); strings.TrimSpace(full) != "" {
			indent = len(full) - len(strings.TrimLeft(full, " "))
			break
		}
	}
	return place{position: value.file.at(value.valueLine-1, indent)}
}

// ownKeys has the keys of Healthgate's own configuration.
var ownKeys = strings.Fields("path clusters require drain hold response grpc_services stat_prefix stale_after source admin")

// isHTTPFilter reports whether a document is an entry of http_filters.
func isHTTPFilter(n *Node) bool {
	_, typeName := typed(n.get("typed_config"))
	return n.get("name") != nil && strings.HasPrefix(typeName, httpFilters)
}

// isGatesOwn reports whether a document is Healthgate's own configuration: its clusters are names, or have keys that Envoy's have not.
func isGatesOwn(n *Node) bool {
	clusters := n.get("clusters")
	if clusters == nil || clusters.kind != list || n.get("listeners") != nil {
		return false
	}
	hasOwnKey := func(item *Node) bool {
		return slices.ContainsFunc(item.entries, func(e entry) bool {
			return e.value.kind != null &&
				slices.Contains([]string{"min_healthy", "min_healthy_percent", "stat_name", "degraded", "excluded"}, e.key)
		})
	}
	isOther := func(e entry) bool { return !slices.Contains(ownKeys, e.key) }
	isNoName := func(item *Node) bool { return item.kind != text }
	return slices.ContainsFunc(clusters.items, hasOwnKey) || len(n.entries) > 1 && !slices.ContainsFunc(n.entries, isOther) ||
		len(clusters.items) > 0 && !slices.ContainsFunc(clusters.items, isNoName)
}
