package lint

import (
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Envoy also refuses messages for reasons that its API's types and validation rules do not state. Each was seen in Envoy v1.39.1;
// e2e/suite compares testdata/cases with a real Envoy.

const (
	typeRouter  = "envoy.extensions.filters.http.router.v3.Router"
	httpFilters = "envoy.extensions.filters.http."
)

// refusals reports these reasons in a message that fits the API's types.
func (a *api) refusals(n *Node, d protoreflect.MessageDescriptor) {
	if a.part {
		return
	}
	a.extension(n, d)
	if d.Fields().ByName("dynamic_module_config") != nil && n.get("dynamic_module_config") == nil {
		a.fail(n, "dynamic_module_config is missing, by which Envoy finds the module%s: write dynamic_module_config: {name: healthgate}", refuses)
	}
	if d.Fields().ByName("typed_per_filter_config") != nil {
		for _, e := range n.pairs("typed_per_filter_config") { // the filter's message on a route, if the filter has another for routes
			contents, typeName, _ := routeConfig(e.value)
			if right := routeMessage(typeName); right != "" && right != typeName && hasMore(contents) {
				a.fail(contents, "%s configures the filter, not a route%s: write %s", typeName, refuses, right)
			}
		}
	}
	if check := refused[d.FullName()]; check != nil {
		check(a, n)
	}
}

// refused has the checks of single messages.
var refused = map[protoreflect.FullName]func(a *api, n *Node){
	"envoy.extensions.dynamic_modules.v3.DynamicModuleConfig": func(a *api, n *Node) {
		if n.get("name") == nil && n.get("module") == nil {
			a.fail(n, "name and module are missing, by one of which Envoy finds the module%s: write name: healthgate", refuses)
		}
	},
	typeFilterConfig: func(a *api, n *Node) {
		if n.get("config") == nil && !n.isTrue("disabled") {
			a.fail(n, "a FilterConfig needs config or disabled: true%s: write config: {}, which enables the filter", refuses)
		}
	},
	typeRoutes: func(a *api, n *Node) {
		var domains []*Node
		for _, virtualHost := range n.list("virtual_hosts") {
			domains = append(domains, virtualHost.list("domains")...)
		}
		a.unique(domains, "domain")
	},
	typeListener: (*api).listener,
	typeCluster:  (*api).cluster,
	typeHCM: func(a *api, n *Node) {
		a.terminal(n)
		a.unique(n.list("upgrade_configs"), "upgrade", "upgrade_type")
	},
	typeStatic: func(a *api, n *Node) { a.unique(n.list("clusters"), "cluster", "name") },
	"envoy.config.bootstrap.v3.LayeredRuntime": func(a *api, n *Node) { a.unique(n.list("layers"), "runtime layer", "name") },
	"envoy.type.matcher.v3.RegexMatcher": func(a *api, n *Node) {
		if _, err := syntax.Parse(n.text("regex"), syntax.Perl); err != nil && !isPlaceholder(n.text("regex")) {
			a.fail(n.at("regex"), "%s%s", err, refuses)
		}
	},
	"envoy.config.route.v3.WeightedCluster": func(a *api, n *Node) {
		sum := 0.0
		for _, cluster := range n.list("clusters") {
			sum += cluster.number(0, "weight")
		}
		if sum == 0 && n.get("total_weight") == nil {
			a.fail(n, "the weights of weighted_clusters add up to 0%s: write weight", refuses)
		}
	},
	typeTLS: func(a *api, n *Node) {
		if !slices.ContainsFunc(n.pairs("common_tls_context"), func(e entry) bool {
			return strings.Contains(e.key, "tls_certificate") && len(e.value.items)+len(e.value.entries) > 0
		}) {
			a.fail(n, "a listener with TLS needs a certificate%s: write common_tls_context: {tls_certificates: "+
				"[{certificate_chain: {filename: …}, private_key: {filename: …}}]}", refuses)
		}
	},
}

// mayLackConfig has the messages whose typed_config is optional, or is needed after the start only.
var mayLackConfig = []protoreflect.FullName{
	"envoy.config.cluster.v3.Cluster.CustomClusterType", "envoy.config.overload.v3.OverloadAction",
	"envoy.config.core.v3.TypedExtensionConfig", // its validation reports it
	"envoy.config.core.v3.GrpcService.GoogleGrpc.CallCredentials.MetadataCredentialsFromPlugin",
}

// extension reports an extension without a typed_config, by whose type Envoy finds it.
func (a *api) extension(n *Node, d protoreflect.MessageDescriptor) {
	field := d.Fields().ByName("typed_config")
	if field == nil || field.Message() == nil || field.Message().FullName() != "google.protobuf.Any" || d.Fields().ByName("name") == nil ||
		!strings.HasPrefix(string(d.FullName()), "envoy.") || slices.Contains(mayLackConfig, d.FullName()) ||
		n.get("config_discovery") != nil || len(n.pairs("typed_config")) > 0 || n.isTrue("is_optional") {
		return
	}
	name, right := n.text("name"), "write typed_config: {\"@type\": …}"
	if strings.HasSuffix(name, ".router") || name == "router" {
		right = "write typed_config: {\"@type\": type.googleapis.com/" + typeRouter + "}"
	}
	a.fail(n, "the extension %s has no typed_config, by whose type Envoy finds it%s: %s", quoteKey(name), refuses, right)
}

// hasMore reports whether a message has fields besides its type.
func hasMore(n *Node) bool {
	return slices.ContainsFunc(n.pairs(), func(e entry) bool { return e.key != "@type" && e.value.kind != null })
}

// isRouteMessage reports whether a message is for routes, by its name.
func isRouteMessage(name string) bool {
	return strings.HasSuffix(name, "PerRoute") || name == "PerRouteConfig"
}

// routeMessage returns the message that an HTTP filter has for routes, by any message of the same package; "" if it has none.
func routeMessage(typeName string) string {
	if kind := messageType(typeName); kind != nil && strings.HasPrefix(typeName, httpFilters) {
		messages := kind.Descriptor().ParentFile().Messages()
		for i := range messages.Len() {
			if isRouteMessage(string(messages.Get(i).Name())) {
				return string(messages.Get(i).FullName())
			}
		}
	}
	return ""
}

// terminal reports a filter chain that does not end with its router.
func (a *api) terminal(n *Node) {
	const router = "{name: envoy.filters.http.router, typed_config: {\"@type\": type.googleapis.com/" + typeRouter + "}}"
	filters := n.list("http_filters")
	for i, f := range filters {
		contents, typeName := typed(f.get("typed_config"))
		last, ofRoute := i == len(filters)-1, isRouteMessage(shortName(typeName))
		isHTTP := strings.HasPrefix(typeName, httpFilters)
		switch {
		case typeName == typeRouter && !last:
			a.fail(filters[i+1], "the filter %s is after %s, which must be the last%s: move it before that one",
				quoteKey(filters[i+1].text("name")), quoteKey(f.text("name")), refuses)
			return
		case last && f.isTrue("disabled") && typeName != "":
			a.fail(f.at("disabled"), "the last filter of the chain is disabled, and Envoy needs a router there%s: add %s after it", refuses, router)
		case last && isHTTP && !ofRoute && messageType(typeName) != nil && !contents.isTrue("terminal_filter") &&
			!slices.Contains([]string{"Router", "McpRouter"}, shortName(typeName)):
			a.fail(f, "the last filter of the chain is %s, which is no router%s: add %s after it", quoteKey(f.text("name")), refuses, router)
		}
		if ofRoute && isHTTP && hasMore(contents) {
			a.fail(f.get("typed_config"), "%s configures a route, not the filter%s", typeName, refuses)
		}
	}
}

func shortName(typeName string) string { return typeName[strings.LastIndexByte(typeName, '.')+1:] }

// listener reports filter chains that a filter_chain_matcher cannot select, because it needs unique names, and HTTP/3 over TCP.
func (a *api) listener(n *Node) {
	chains := n.list("filter_chains")
	if n.get("filter_chain_matcher") != nil {
		a.unique(chains, "filter chain", "name")
		for _, chain := range chains {
			if chain.text("name") == "" {
				a.fail(chain, "a filter chain without a name cannot be selected by filter_chain_matcher%s: write name", refuses)
			}
		}
	}
	for _, chain := range append(slices.Clone(chains), n.get("default_filter_chain")) {
		for _, filter := range chain.list("filters") {
			codec := filter.get("typed_config", "codec_type")
			if codec.text() == "HTTP3" && n.get("udp_listener_config") == nil {
				a.fail(codec, "HTTP3 needs a listener over UDP%s: write codec_type: AUTO, or udp_listener_config: {quic_options: {}}", refuses)
			}
		}
	}
}

// cluster reports hosts that do not fit the type of discovery.
func (a *api) cluster(n *Node) {
	hosts, _ := endpoints(n)
	switch kind := n.text("type"); {
	case n.get("cluster_type") != nil:
	case kind == "EDS" && n.get("eds_cluster_config") == nil:
		a.fail(n.at("type"), "a cluster of type EDS needs eds_cluster_config%s", refuses)
	case kind == "LOGICAL_DNS" && len(hosts) != 1:
		a.fail(n.at("load_assignment"), "a cluster of type LOGICAL_DNS needs exactly one endpoint, and this one has %d%s: write type: STRICT_DNS",
			len(hosts), refuses)
	case kind == "" || kind == "STATIC":
		for _, host := range hosts {
			address := host.get("endpoint", "address", "socket_address")
			at := address.get("address")
			if _, err := netip.ParseAddr(at.text()); err != nil && at != nil && address.get("resolver_name") == nil &&
				!isPlaceholder(at.text()) && !placeholderWord.MatchString(at.text()) {
				a.fail(at, "a cluster of type STATIC needs IP addresses, and %q is a name%s: write type: STRICT_DNS", clip(at.text()), refuses)
			}
		}
	}
}

// unique reports a name that two items of a list have. Envoy compares domains in lower case.
func (a *api) unique(items []*Node, kind string, key ...string) {
	known := map[string]*Node{}
	for _, item := range items {
		at, name := item.at(key...), foldIf(kind == "domain")(item.text(key...))
		if first := known[name]; first != nil && name != "" && !isPlaceholder(name) {
			a.fail(at, "the %s %q is there twice (line %d)%s: remove one of them", kind, clip(name), first.line, refuses)
		}
		known[name] = at
	}
}
