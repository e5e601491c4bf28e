package configure

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// manager is an HTTP connection manager, with its place.
type manager struct {
	value
	text     *text
	listener value // missing if the file has only the connection manager
}

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

// String describes a connection manager to the operator.
func (m manager) String() string {
	s := fmt.Sprintf("line %d", m.text.line(m.Line))
	if names := m.listenerNames(); len(names) > 0 {
		s += ", listener " + names[0]
	}
	if name := m.routeConfigName(); name != "" {
		s += ", route configuration " + name
	}
	return s
}

func (m manager) routeConfigName() string {
	if name := m.get("route_config").text("name"); name != "" {
		return name
	}
	return m.get("rds").text("route_config_name")
}

// managers returns the connection managers of a text, in the order of the file.
func (t *text) managers() (all []manager) {
	for _, document := range t.top().items() {
		if isKubernetes(document) {
			continue
		}
		var listener value
		document.each(func(v value) {
			if v.get("filter_chains").Node != nil || v.get("default_filter_chain").Node != nil {
				listener = v
			}
			if isType(v.text("@type"), "HttpConnectionManager") {
				all = append(all, manager{value: v, text: t, listener: listener})
			}
		})
	}
	return all
}

// isType reports whether a type URL names a message, in any version.
func isType(url, message string) bool { return strings.HasSuffix(url, "."+message) }

// isKubernetes reports whether a document is a Kubernetes object.
func isKubernetes(v value) bool { return v.text("apiVersion") != "" && v.text("kind") != "" }

// bootstrapKeys has the keys that identify a bootstrap.
var bootstrapKeys = []string{"static_resources", "dynamic_resources", "admin", "node", "layered_runtime", "bootstrap_extensions"}

// bootstrap returns the document that is a bootstrap.
func (t *text) bootstrap() (value, bool) {
	for _, document := range t.top().items() {
		if !isKubernetes(document) && slices.ContainsFunc(bootstrapKeys, func(key string) bool { return document.get(key).Node != nil }) {
			return document, true
		}
	}
	return value{}, false
}

// listed returns the resources of a type in a text: in static_resources, in a list of resources for xDS, or a document.
func (t *text) listed(key, message string) (all []value) {
	for _, document := range t.top().items() {
		if isKubernetes(document) {
			continue
		}
		all = append(all, document.get("static_resources", key).items()...)
		for _, resource := range document.get("resources").items() {
			if isType(resource.text("@type"), message) {
				all = append(all, resource)
			}
		}
		if isType(document.text("@type"), message) {
			all = append(all, document)
		}
	}
	return all
}

// routeConfiguration returns the route configuration of a connection manager, and the text that has it.
func (f *file) routeConfiguration(m manager) (value, *text, error) {
	if routes := m.get("route_config"); routes.there() {
		return routes, m.text, nil
	}
	name := m.get("rds").text("route_config_name")
	if name != "" {
		for _, t := range f.texts {
			for _, routes := range t.listed("", "RouteConfiguration") {
				if routes.text("name") == name {
					return routes, t, nil
				}
			}
		}
		return value{}, nil, fmt.Errorf("the connection manager in line %d gets its routes by RDS (%s), and this file does not have them",
			m.text.line(m.Line), name)
	}
	return value{}, nil, fmt.Errorf("the connection manager in line %d has no route_config", m.text.line(m.Line))
}

// virtualHost returns the virtual host of a name, or the one for the domain "*"; a missing value if there is none.
func virtualHost(routes value, name string) (value, error) {
	var names []string
	for _, one := range routes.get("virtual_hosts").items() {
		names = append(names, one.text("name"))
		if name != "" && one.text("name") == name || name == "" && slices.Contains(domains(one), "*") {
			return one, nil
		}
	}
	if name != "" {
		return value{}, fmt.Errorf("--virtual-host: there is no %q%s", name, suggestion(name, names))
	}
	return value{}, nil
}

// domains returns the domains of a virtual host. A single one may be written without a list.
func domains(virtualHost value) []string {
	list := virtualHost.get("domains")
	if one := virtualHost.text("domains"); one != "" {
		return []string{one}
	}
	var all []string
	for _, domain := range list.items() {
		all = append(all, domain.Value)
	}
	return all
}

// isGate reports whether an HTTP filter is Healthgate.
func isGate(filter value) bool {
	config := filter.get("typed_config")
	return filter.text("name") == "healthgate" || config.text("plugin_name") == "healthgate" || config.text("filter_name") == "healthgate" ||
		config.get("dynamic_module_config").text("name") == "healthgate"
}

// toDisable returns the names of the filters that the probe's route must disable.
func toDisable(m manager, routes, virtualHost value) (names []string) {
	for _, filter := range m.get("http_filters").items() {
		name := filter.text("name")
		config := filter.get("typed_config")
		typeName := config.text("type_url") // of a TypedStruct
		if typeName == "" {
			typeName = config.text("@type")
		}
		if typeName = typeName[strings.LastIndexByte(typeName, '/')+1:]; typeName == "" && filter.get("config_discovery").Node == nil {
			typeName = typeOfName(name)
		}
		off := filter.text("disabled") == "true" && routes.get("typed_per_filter_config").exactly(name).Node == nil &&
			virtualHost.get("typed_per_filter_config").exactly(name).Node == nil
		if name != "" && !off && CanAct(typeName) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// exactly returns the value at a key of a map, in which keys have one form.
func (v value) exactly(key string) value {
	if v.Node == nil {
		return value{}
	}
	for i := 0; i+1 < len(v.Content); i += 2 {
		if resolved(v.Content[i]).Value == key {
			return v.step(i + 1)
		}
	}
	return value{}
}
