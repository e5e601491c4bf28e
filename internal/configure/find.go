package configure

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// text is a configuration of Envoy: a file, or a value of a ConfigMap in it.
type text struct {
	*document
	original *document
	path     []int // to the value of a ConfigMap in the file; nil for the file itself
	first    int   // the line of the file before its first line
}

// line returns the line in the file.
func (t *text) line(line int) int { return t.first + line }

// documents returns the documents of a text that are not Kubernetes objects.
func (t *text) documents() []value {
	return slices.DeleteFunc(t.at(nil).items(), func(v value) bool { return v.text("apiVersion") != "" && v.text("kind") != "" })
}

// manager is an HTTP connection manager, with its place.
type manager struct {
	value
	in       *text
	listener value // missing if the file has only the connection manager
}

// managers returns the connection managers of a text, in the order of the file.
func (t *text) managers() (all []manager) {
	for _, document := range t.documents() {
		var listener value
		document.each(func(v value) {
			if v.get("filter_chains").Node != nil || v.get("default_filter_chain").Node != nil {
				listener = v
			}
			if v.isType("HttpConnectionManager") {
				all = append(all, manager{v, t, listener})
			}
		})
	}
	return all
}

// isType reports whether a value has a type, in any version.
func (v value) isType(message string) bool { return strings.HasSuffix(v.text("@type"), "."+message) }

// listenerNames returns the names by which --listener selects it: the listener's name, and its address.
func (m manager) listenerNames() (names []string) {
	if name := m.listener.text("name"); name != "" {
		names = append(names, name)
	}
	if address := m.listener.get("address", "socket_address"); address.Node != nil {
		names = append(names, net.JoinHostPort(address.text("address"), address.text("port_value")))
	}
	return names
}

func (m manager) routeConfigName() string {
	if name := m.text("route_config", "name"); name != "" {
		return name
	}
	return m.text("rds", "route_config_name")
}

// String describes a connection manager to the operator.
func (m manager) String() string {
	s := fmt.Sprintf("line %d", m.in.line(m.Line))
	if names := m.listenerNames(); len(names) > 0 {
		s += ", listener " + names[0]
	}
	if name := m.routeConfigName(); name != "" {
		s += ", route configuration " + name
	}
	return s
}

// bootstrapKeys has the keys that identify a bootstrap.
var bootstrapKeys = []string{"static_resources", "dynamic_resources", "admin", "node", "layered_runtime", "bootstrap_extensions"}

// bootstrap returns the document that is a bootstrap.
func (t *text) bootstrap() (value, bool) {
	for _, document := range t.documents() {
		if slices.ContainsFunc(bootstrapKeys, func(key string) bool { return document.get(key).Node != nil }) {
			return document, true
		}
	}
	return value{}, false
}

// listed returns the resources of a type in a text: in static_resources, in a list of resources for xDS, or a document.
func (t *text) listed(key, message string) (all []value) {
	for _, document := range t.documents() {
		all = append(all, document.items("static_resources", key)...)
		for _, resource := range append(document.items("resources"), document) {
			if resource.isType(message) {
				all = append(all, resource)
			}
		}
	}
	return all
}

// routeConfiguration returns the route configuration of a connection manager, and the text that has it.
func (w *writer) routeConfiguration(m manager) (value, *text, error) {
	if routes := m.get("route_config"); routes.there() {
		return routes, m.in, nil
	}
	name := m.text("rds", "route_config_name")
	if name == "" {
		return value{}, nil, fmt.Errorf("the connection manager in line %d has no route_config", m.in.line(m.Line))
	}
	for _, t := range w.texts {
		for _, routes := range t.listed("", "RouteConfiguration") {
			if routes.text("name") == name {
				return routes, t, nil
			}
		}
	}
	return value{}, nil, fmt.Errorf("the connection manager in line %d gets its routes by RDS (%s), and this file does not have them",
		m.in.line(m.Line), name)
}

// virtualHost returns the virtual host of a name, or the one for the domain "*"; a missing value if there is none.
func virtualHost(routes value, name string) (value, error) {
	var names []string
	for _, one := range routes.items("virtual_hosts") {
		names = append(names, one.text("name"))
		if name != "" && one.text("name") == name || name == "" && isForAll(one) {
			return one, nil
		}
	}
	if name != "" {
		return value{}, fmt.Errorf("--virtual-host: there is no %q%s", name, suggestion(name, names))
	}
	return value{}, nil
}

// isForAll reports whether a virtual host has the domain "*". A single one may be written without a list.
func isForAll(virtualHost value) bool {
	return virtualHost.text("domains") == "*" ||
		slices.ContainsFunc(virtualHost.items("domains"), func(domain value) bool { return domain.Value == "*" })
}

// isGate reports whether an HTTP filter is Healthgate.
func isGate(filter value) bool {
	config := filter.get("typed_config")
	return slices.Contains([]string{filter.text("name"), config.text("plugin_name"), config.text("filter_name"),
		config.text("dynamic_module_config", "name")}, "healthgate")
}

// toDisable returns the names of the filters that the probe's route must disable.
func toDisable(m manager, routes, virtualHost value) (names []string) {
	for _, filter := range m.items("http_filters") {
		name := filter.text("name")
		off := filter.text("disabled") == "true" && routes.get("typed_per_filter_config").exactly(name).Node == nil &&
			virtualHost.get("typed_per_filter_config").exactly(name).Node == nil
		if name != "" && !off && canAct(filter) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// harmless has the HTTP filters that only count, log, or set metadata, filter state and request headers; the router ends the chain.
var harmless = []string{"alternate_protocols_cache.v3.FilterConfig", "geoip.v3.Geoip", "grpc_stats.v3.FilterConfig",
	"ip_tagging.v3.IPTagging", "router.v3.Router", "set_filter_state.v3.Config", "set_metadata.v3.Config", "tap.v3.Tap"}

// canAct reports whether an HTTP filter can answer a request in the gate's place or change the gate's reply: a local reply passes the
// encoders of every filter in the chain, before and after the one that sent it. One of an unknown type can.
func canAct(filter value) bool {
	url := filter.text("typed_config", "type_url") // of a TypedStruct
	if url == "" {
		url = filter.text("typed_config", "@type")
	}
	typeName := url[strings.LastIndexByte(url, '/')+1:]
	if name := filter.text("name"); typeName == "" && filter.get("config_discovery").Node == nil {
		return name != "envoy.filters.http.router" && name != "envoy.router"
	}
	kind, known := strings.CutPrefix(typeName, "envoy.extensions.filters.http.")
	return !known || !slices.Contains(harmless, kind)
}
