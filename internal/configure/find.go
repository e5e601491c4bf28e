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
	listener value // none if it stands alone
}

// listenerNames are the names by which --listener finds it: its own, and its address.
func (m manager) listenerNames() (names []string) {
	if name := m.listener.text("name"); name != "" {
		names = append(names, name)
	}
	if address := m.listener.get("address", "socket_address"); address.Node != nil {
		names = append(names, net.JoinHostPort(address.text("address"), address.text("port_value")))
	}
	return names
}

// String describes it, so that one of several can be chosen.
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

// managers are the connection managers of a text, in the order of the file.
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

// isType says whether a type URL names a message, in whatever version.
func isType(url, message string) bool { return strings.HasSuffix(url, "."+message) }

// isKubernetes says whether a document is an object of Kubernetes.
func isKubernetes(v value) bool { return v.text("apiVersion") != "" && v.text("kind") != "" }

// bootstrapKeys are those by which a document is known for a bootstrap.
var bootstrapKeys = []string{"static_resources", "dynamic_resources", "admin", "node", "layered_runtime", "bootstrap_extensions"}

// bootstrap is the document that is one.
func (t *text) bootstrap() (value, bool) {
	for _, document := range t.top().items() {
		if !isKubernetes(document) && slices.ContainsFunc(bootstrapKeys, func(key string) bool { return document.get(key).Node != nil }) {
			return document, true
		}
	}
	return value{}, false
}

// listed are the resources of a kind in a text, in static_resources or in a list of resources for xDS.
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

// routeConfiguration is the one that a manager routes by, wherever in the file it stands.
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
		return value{}, nil, fmt.Errorf("the connection manager in line %d takes its routes by RDS (%s), which are not in this file",
			m.text.line(m.Line), name)
	}
	return value{}, nil, fmt.Errorf("the connection manager in line %d has no route_config", m.text.line(m.Line))
}

// virtualHost is the one that takes a probe by IP address, or the one of a name.
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

// domains are the domains of a virtual host. A list of one may be written as the one.
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

// isGate says whether an HTTP filter is Healthgate.
func isGate(filter value) bool {
	config := filter.get("typed_config")
	return filter.text("name") == "healthgate" || config.text("plugin_name") == "healthgate" || config.text("filter_name") == "healthgate" ||
		config.get("dynamic_module_config").text("name") == "healthgate"
}

// toDisable are the names of the filters that the probe's route has to disable.
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

// exactly is the value at a key that is no field of protobuf's.
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
