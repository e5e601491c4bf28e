package configure

import "strings"

// CanAct reports whether an HTTP filter of a type can answer a request in the gate's place or change the gate's reply: a local reply
// passes the encoders of every filter in the chain, before and after the one that sent it. An unknown type can.
func CanAct(typeName string) bool {
	kind, known := strings.CutPrefix(typeName, "envoy.extensions.filters.http.")
	return !known || !harmless[kind]
}

// harmless has the filters that only count, log, or set metadata, filter state and request headers; the router ends the chain.
var harmless = map[string]bool{
	"alternate_protocols_cache.v3.FilterConfig": true,
	"geoip.v3.Geoip":             true,
	"grpc_stats.v3.FilterConfig": true,
	"ip_tagging.v3.IPTagging":    true,
	"router.v3.Router":           true,
	"set_filter_state.v3.Config": true,
	"set_metadata.v3.Config":     true,
	"tap.v3.Tap":                 true,
}

// typeOfName returns the type of a filter without a typed_config, by its well-known name.
func typeOfName(name string) string {
	if name == "envoy.filters.http.router" || name == "envoy.router" {
		return "envoy.extensions.filters.http.router.v3.Router"
	}
	return ""
}
