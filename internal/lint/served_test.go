package lint

import (
	"fmt"
	"slices"
	"testing"
)

// dumped is a dump of a gate, with a virtual host and a route that each override something.
func dumped(filter, perRoute, ofHost, ofRoute string) []byte {
	level := func(says string) string {
		return fmt.Sprintf(`"typed_per_filter_config": {"healthgate": {
			"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": `+perRoute+`}}`, says)
	}
	return fmt.Appendf(nil, `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [
		{"listener": {"name": "ingress", "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], %s,
			"routes": [{"match": {"path": "/"}, "direct_response": {"status": 503}, %s}]}]},
		"http_filters": [{"name": "healthgate", "disabled": true, "typed_config": %s}]}}]}]}}]}]}`, level(ofHost), level(ofRoute), filter)
}

// Envoy gives a dynamic module the most specific level of a route alone, and the golang extension merges each into the wider one.
func TestLevelsAreMergedAsTheVariantDoes(t *testing.T) {
	for name, test := range map[string]struct {
		filter, perRoute string
		healthy          uint64
		prefixes         []string
	}{
		"plugin": {
			`{"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.Config",
			"library_id": "a", "library_path": "a", "plugin_name": "healthgate",
			"plugin_config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": {"clusters": ["a"]}}}`,
			`{"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute",
			"plugins_config": {"healthgate": {"config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": %s}}}}`,
			7, []string{"route"},
		},
		"module": {
			`{"@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
			"dynamic_module_config": {"name": "healthgate"}, "filter_name": "healthgate",
			"filter_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"clusters": ["a"]}}}`,
			`{"@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
			"dynamic_module_config": {"name": "healthgate"}, "filter_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": %s}}`,
			1, []string{"route", "default"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dump := dumped(test.filter, test.perRoute, `{"clusters": [{"name": "a", "min_healthy": 7}]}`, `{"stat_prefix": "route"}`)
			served, _, err := Live("dump", dump)
			if err != nil || len(served) != 1 || served[0].Config == nil {
				t.Fatalf("%v: %+v", err, served)
			}
			if got := served[0].Config.Clusters[0].Rule.MinHealthy; got != test.healthy {
				t.Errorf("min_healthy is %d, want %d", got, test.healthy)
			}
			if got := served[0].Prefixes; !slices.Equal(got, test.prefixes) {
				t.Errorf("its answers are counted by %q, want %q", got, test.prefixes)
			}
		})
	}
}

func TestTextThatIsNotADumpIsAnError(t *testing.T) {
	for _, text := range []string{"", "<html></html>", `{"error": "no"}`, `{"static_resources": {`, "a: b"} {
		if served, found, err := Live("f", []byte(text)); err == nil || served != nil || found != nil {
			t.Errorf("%q is read: %v, %v", text, served, found)
		}
	}
}
