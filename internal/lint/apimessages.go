package lint

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Beyond the types of its API, Envoy refuses messages for reasons that the API does not state in a form that programs read. Each was
// seen in Envoy v1.39.1; e2e/suite holds the cases in testdata/cases to a real one.

const (
	typeModuleConfig = "envoy.extensions.dynamic_modules.v3.DynamicModuleConfig"
	typeRouter       = "envoy.extensions.filters.http.router.v3.Router"
)

// refusals finds them in a message that fits the API's types.
func (a *api) refusals(n *Node, d protoreflect.MessageDescriptor) {
	if a.part || n.kind != mapping {
		return
	}
	a.extension(n, d)
	if field := d.Fields().ByName("dynamic_module_config"); field != nil && n.get("dynamic_module_config") == nil {
		a.fail(n, "dynamic_module_config is missing, which says where the module is%s: write dynamic_module_config: {name: healthgate}", refuses)
	}
	if field := d.Fields().ByName("typed_per_filter_config"); field != nil {
		for _, e := range n.pairs("typed_per_filter_config") {
			a.ofRoute(e)
		}
	}
	switch d.FullName() {
	case typeModuleConfig:
		if n.get("name") == nil && n.get("module") == nil {
			a.fail(n, "neither name nor module is given, which say where the module is%s: write name: healthgate", refuses)
		}
	case typeFilterConfig:
		if n.get("config") == nil && !n.isTrue("disabled") {
			a.fail(n, "a FilterConfig needs config or disabled: true%s: write config: {}, which enables the filter", refuses)
		}
	case typeRoutes:
		a.uniqueDomains(n)
	case typeHCM:
		a.terminal(n)
	case typeStatic:
		a.uniqueClusters(n)
	}
}

// byName are messages whose typed_config may be left out, or is not asked for at start.
var byName = map[protoreflect.FullName]bool{
	"envoy.config.cluster.v3.Cluster.CustomClusterType":                                         true,
	"envoy.config.overload.v3.OverloadAction":                                                   true,
	"envoy.config.core.v3.TypedExtensionConfig":                                                 true, // whose rules ask for it
	"envoy.config.core.v3.GrpcService.GoogleGrpc.CallCredentials.MetadataCredentialsFromPlugin": true,
}

// extension finds an extension of which only the name is given. Envoy finds them by their types.
func (a *api) extension(n *Node, d protoreflect.MessageDescriptor) {
	field := d.Fields().ByName("typed_config")
	if field == nil || field.Message() == nil || field.Message().FullName() != "google.protobuf.Any" || d.Fields().ByName("name") == nil ||
		!strings.HasPrefix(string(d.FullName()), "envoy.") || byName[d.FullName()] || n.get("config_discovery") != nil {
		return
	}
	if config := n.get("typed_config"); config != nil && len(config.entries) > 0 || n.isTrue("is_optional") {
		return
	}
	name := n.text("name")
	right := "write typed_config: {\"@type\": …}"
	if strings.HasSuffix(name, ".router") || name == "router" {
		right = "write typed_config: {\"@type\": type.googleapis.com/" + typeRouter + "}"
	}
	a.fail(n, "%s has no typed_config, by whose type Envoy finds an extension%s: %s", quoteKey(name), refuses, right)
}

// ofRoute finds the filter's message on a route, if the filter has another message for routes.
func (a *api) ofRoute(e entry) {
	contents, typeName := typed(e.value)
	at := e.value
	if typeName == typeFilterConfig {
		at = contents.get("config")
		contents, typeName = typed(at)
	}
	if of := routeMessage(typeName); of != "" && of != typeName && hasMore(contents) {
		a.fail(at, "%s is the filter's message, and a route's is another%s: write %s", typeName, refuses, of)
	}
}

// hasMore says whether a message has more than its type.
func hasMore(n *Node) bool {
	return slices.ContainsFunc(n.pairs(), func(e entry) bool { return e.key != "@type" && e.value.kind != null })
}

// isRouteMessage says whether a message is for routes, by its name.
func isRouteMessage(name protoreflect.Name) bool {
	return strings.HasSuffix(string(name), "PerRoute") || name == "PerRouteConfig"
}

// routeMessage returns the message that a filter has for routes, by any message of the same package; "" if it has none.
func routeMessage(typeName string) string {
	if !strings.HasPrefix(typeName, "envoy.extensions.filters.http.") {
		return ""
	}
	kind := messageType(typeName)
	if kind == nil {
		return ""
	}
	messages := kind.Descriptor().ParentFile().Messages()
	for i := range messages.Len() {
		if isRouteMessage(messages.Get(i).Name()) {
			return string(messages.Get(i).FullName())
		}
	}
	return ""
}

// terminal finds a chain of HTTP filters that does not end with its router, or goes on behind it.
func (a *api) terminal(n *Node) {
	filters := n.list("http_filters")
	for i, f := range filters {
		contents, typeName := typed(f.get("typed_config"))
		last := i == len(filters)-1
		switch {
		case typeName == typeRouter && !last:
			a.fail(filters[i+1], "the filter %s stands after %s, which has to be the last%s: put it before that one",
				quoteKey(filters[i+1].text("name")), quoteKey(f.text("name")), refuses)
			return
		case last && f.isTrue("disabled") && typeName != "":
			a.fail(f.at("disabled"), "the last filter of the chain is disabled, and Envoy needs a router there%s: put {name: "+
				"envoy.filters.http.router, typed_config: {\"@type\": type.googleapis.com/%s}} behind it", refuses, typeRouter)
		case last && isNoTerminal(contents, typeName):
			a.fail(f, "the last filter of the chain is %s, which is no router%s: put {name: envoy.filters.http.router, typed_config: "+
				"{\"@type\": type.googleapis.com/%s}} behind it", quoteKey(f.text("name")), refuses, typeRouter)
		}
		ofRoute := isRouteMessage(protoreflect.Name(shortName(typeName))) && strings.HasPrefix(typeName, "envoy.extensions.filters.http.")
		if ofRoute && hasMore(contents) {
			a.fail(f.get("typed_config"), "%s is a message for routes, and the filter's is another%s", typeName, refuses)
		}
	}
}

// isNoTerminal says whether a filter is known not to be the end of a chain.
func isNoTerminal(contents *Node, typeName string) bool {
	switch shortName(typeName) {
	case "Router", "McpRouter", "TypedStruct", "":
		return false
	}
	return strings.HasPrefix(typeName, "envoy.extensions.filters.http.") && messageType(typeName) != nil &&
		!contents.isTrue("terminal_filter") && !isRouteMessage(protoreflect.Name(shortName(typeName)))
}

func shortName(typeName string) string { return typeName[strings.LastIndexByte(typeName, '.')+1:] }

// uniqueDomains finds a domain that is there twice. Envoy compares them in lower case.
func (a *api) uniqueDomains(n *Node) {
	known := map[string]*Node{}
	for _, virtualHost := range n.list("virtual_hosts") {
		for _, domain := range virtualHost.list("domains") {
			folded := strings.ToLower(domain.scalar)
			if first := known[folded]; first != nil && !isPlaceholder(folded) {
				a.fail(domain, "the domain %q is there twice (line %d)%s: leave one of them out", clip(domain.scalar), first.line, refuses)
			}
			known[folded] = domain
		}
	}
}

// uniqueClusters finds two clusters of one name.
func (a *api) uniqueClusters(n *Node) {
	known := map[string]*Node{}
	for _, cluster := range n.list("clusters") {
		name := cluster.text("name")
		if first := known[name]; first != nil && name != "" && !isPlaceholder(name) {
			a.fail(cluster.at("name"), "there are two clusters called %q (line %d)%s: leave one of them out", clip(name), first.line, refuses)
		}
		known[name] = cluster
	}
}
