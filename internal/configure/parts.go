// Package configure writes what a gate needs into an Envoy configuration.
package configure

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter"
)

// Wanted is the gate that is asked for.
type Wanted struct {
	Cluster     string // the cluster's name in Envoy
	Path        string // of the probe
	Stock       bool   // by a dynamic module of any Envoy; else by the golang extension of the contrib build
	GRPCService string // what the cluster's health check asks for by grpc.health.v1; "" asks for the server as a whole
}

// Check says what is wrong with it, by the plugin's own decoder.
func (w Wanted) Check() error {
	s, err := structpb.NewStruct(map[string]any{"path": w.Path, "clusters": []any{w.Cluster}})
	if err != nil {
		return err
	}
	door := filter.Contrib
	if w.Stock {
		door = filter.Stock
	}
	_, err = filter.Decode(s, door)
	return err
}

// quote writes a string as YAML: as it is where it is plain.
func quote(s string) string {
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_./", r))
	})
	if plain && s != "true" && s != "false" && s != "null" && s != "yes" && s != "no" && s != "on" && s != "off" && s != "/" {
		return s
	}
	return strconv.Quote(s)
}

// Each part is a list of lines without indentation.

func (w Wanted) filter() []string {
	if w.Stock {
		return lines(`
- name: healthgate
  # Off, but for the routes that turn it on: all other traffic never enters it.
  disabled: true
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
    dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}
    filter_name: healthgate
    filter_config:
      "@type": type.googleapis.com/google.protobuf.Struct
      value:
        # All keys: docs/configuration.md. The path must match the probe's route.
        path: %s
        clusters:
        - name: %s
          min_healthy: 1 # hosts that must be healthy for a 200
`, quote(w.Path), quote(w.Cluster))
	}
	return lines(`
- name: healthgate
  # Off, but for the routes that turn it on: all other traffic never enters Go.
  disabled: true
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.Config
    library_id: healthgate
    library_path: /etc/envoy/healthgate.so # yours
    plugin_name: healthgate
    plugin_config:
      "@type": type.googleapis.com/xds.type.v3.TypedStruct
      value:
        # All keys: docs/configuration.md. The path must match the probe's route.
        path: %s
        clusters:
        - name: %s
          min_healthy: 1 # hosts that must be healthy for a 200
`, quote(w.Path), quote(w.Cluster))
}

func (w Wanted) route() []string {
	return lines(`
# The probe. The filter answers it; should the filter ever not, this answers 503, and nothing goes upstream.
- match: {path: %s}
  direct_response: {status: 503}
  typed_per_filter_config:
    healthgate:
      "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
      config: {} # enables the filter
`, strconv.Quote(w.Path))
}

func (w Wanted) virtualHost() []string {
	return append(lines(`
# Balancers and kubelets probe by IP address; nothing but the probe comes here.
- name: probe
  domains: ["*"]
  routes:
`), indented(2, w.route())...)
}

func (w Wanted) extension() []string {
	return lines(`
# Reads Envoy's gauges for the filter.
- name: healthgate
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension
    dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}
    extension_name: healthgate
`)
}

func (w Wanted) healthChecks() []string {
	service := ""
	if w.GRPCService != "" {
		service = "service_name: " + quote(w.GRPCService)
	}
	return lines(`
health_checks:
- timeout: 1s
  interval: 5s
  interval_jitter: 1s
  # Without these, Envoy checks a cluster that has had no traffic yet once a minute only.
  no_traffic_interval: 5s
  no_traffic_healthy_interval: 5s
  unhealthy_threshold: 1 # one failure takes a host out
  healthy_threshold: 3 # three successes bring it back; the very first check of a host needs one
  grpc_health_check: {%s}
`, service)
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// http2 has a cluster speak it, as gRPC does.
func http2() []string {
	return lines(`
# gRPC is HTTP/2, to the service and in its checks.
typed_extension_protocol_options:
  %[1]s:
    "@type": type.googleapis.com/%[1]s
    explicit_http_config: {http2_protocol_options: {}}
`, httpOptions)
}

func lines(format string, args ...any) []string {
	return strings.Split(strings.Trim(fmt.Sprintf(format, args...), "\n"), "\n")
}

func indented(by int, lines []string) []string {
	all := make([]string, len(lines))
	for i, line := range lines {
		all[i] = strings.Repeat(" ", by) + line
	}
	return all
}

// Print is a configuration that has each part where it belongs. What stands around them is there to be read, and for lint.
func (w Wanted) Print() string {
	var all []string
	add := func(by int, lines ...string) { all = append(all, indented(by, lines)...) }
	add(0, "# What to add for a gate of the cluster "+quote(w.Cluster)+". What is marked \"add\" is new; all else shows where it belongs.")
	if w.Stock {
		add(0, "bootstrap_extensions: # add")
		add(0, w.extension()...)
	}
	add(0, "static_resources:", "  listeners:", "  - filter_chains:", "    - filters:", "      - name: envoy.filters.network.http_connection_manager",
		"        typed_config:", `          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
		"          stat_prefix: ingress", "          route_config:", "            virtual_hosts:", "            - name: ingress",
		`              domains: ["*"]`, "              routes:", "              # add, first")
	add(14, w.route()...)
	add(10, "http_filters:", "# add, first")
	add(10, w.filter()...)
	add(10, "- name: envoy.filters.http.router", "  typed_config:", `    "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`)
	add(2, "clusters:", "- name: "+quote(w.Cluster), "  # add, where nobody checks the cluster's hosts yet")
	add(4, w.healthChecks()...)
	add(4, "# add, where it is not there yet")
	add(4, http2()...)
	return strings.Join(all, "\n") + "\n"
}
