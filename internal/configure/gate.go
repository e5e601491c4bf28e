// Package configure adds a gate to an Envoy configuration, if the result reads back as the file with exactly the additions.
package configure

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
)

// Gate is the gate to add.
type Gate struct {
	Cluster  string   // the cluster's name in Envoy
	Path     string   // of the probe
	Module   bool     // for the dynamic module; else for the Go plugin
	Check    Check    // for a cluster that has no health checks; the zero Check adds none
	statName string   // the cluster's alt_stat_name
	disabled []string // the filters to disable on the probe's route
}

// Check is a health check of a cluster's hosts.
type Check struct {
	GRPC    bool   // by grpc.health.v1, which needs HTTP/2 to the hosts
	Service string // asked by gRPC; "" asks for the server as a whole
	Path    string // asked by an HTTP GET; "" is no HTTP check
}

// asked reports whether there is a check.
func (c Check) asked() bool { return c.GRPC || c.Path != "" }

// Validate returns an error if the filter would refuse the gate.
func (g Gate) Validate() error {
	if g.Check.Path != "" && !strings.HasPrefix(g.Check.Path, "/") {
		return fmt.Errorf("--http-check: %q does not start with /", g.Check.Path)
	}
	if g.Check.GRPC && g.Check.Path != "" {
		return errors.New("--grpc-service and --http-check exclude each other: remove one of them")
	}
	s, err := structpb.NewStruct(map[string]any{"path": g.Path, "clusters": []any{g.Cluster}})
	if err != nil {
		return err
	}
	variant := config.Plugin
	if g.Module {
		variant = config.Module
	}
	_, err = config.Decode(s, variant)
	return err
}

// quote returns a string as YAML, without quotes if that is safe.
func quote(s string) string {
	bare := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_./", r))
	})
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n", "/", ".inf", ".nan":
		bare = false
	}
	if bare && s[0] != '.' {
		return s
	}
	return strconv.Quote(s)
}

// The parts of a configuration below are lists of lines without indentation.

// filter returns the entry of http_filters.
func (g Gate) filter() []string {
	head := lines(`
- name: healthgate
  # Disabled except on routes that enable it: other traffic does not pass it.
  disabled: true
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.Config
    library_id: healthgate
    library_path: /etc/envoy/healthgate.so # yours
    plugin_name: healthgate
    plugin_config:
      "@type": type.googleapis.com/xds.type.v3.TypedStruct
`)
	if g.Module {
		head = lines(`
- name: healthgate
  # Disabled except on routes that enable it: other traffic does not pass it.
  disabled: true
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
    dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}
    filter_name: healthgate
    filter_config:
      "@type": type.googleapis.com/google.protobuf.Struct
`)
	}
	value := lines(`
value:
  # All keys: docs/configuration.md. The path must match the probe's route.
  path: %s
  clusters:
  - name: %s
`, quote(g.Path), quote(g.Cluster))
	if g.statName != "" {
		value = append(value, "    stat_name: "+quote(g.statName)+" # the cluster's alt_stat_name")
	}
	value = append(value, "    min_healthy: 1 # hosts that must be healthy for a 200")
	return append(head, indented(6, value)...)
}

const filterConfig = "type.googleapis.com/envoy.config.route.v3.FilterConfig"

// route returns the probe's route.
func (g Gate) route() []string {
	all := lines(`
# Health check route, answered by Healthgate. Without the filter Envoy itself answers 503; never forwarded.
- match: {path: %s}
  direct_response: {status: 503}
  typed_per_filter_config:
    healthgate: {"@type": %s, config: {}} # enables the filter
`, strconv.Quote(g.Path), filterConfig)
	if len(g.disabled) > 0 {
		all = append(all, "    # Disabled on this route: each could answer in the gate's place, or change its reply.")
	}
	for _, name := range g.disabled {
		all = append(all, fmt.Sprintf(`    %s: {"@type": %s, disabled: true}`, quote(name), filterConfig))
	}
	return all
}

// virtualHost returns a virtual host with only the probe's route.
func (g Gate) virtualHost(name string) []string {
	return append(lines(`
# Balancers and kubelets probe by IP address. This virtual host has only the probe's route.
- name: %s
  domains: ["*"]
  routes:
`, name), indented(2, g.route())...)
}

// extension returns the entry of bootstrap_extensions that the dynamic module needs.
func (g Gate) extension() []string {
	return lines(`
# Samples Envoy's gauges for the filter.
- name: healthgate
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension
    dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}
    extension_name: healthgate
`)
}

// healthCheck returns the entry of a cluster's health_checks.
func (c Check) healthCheck(http2 bool) []string {
	kind := "grpc_health_check: {}"
	switch {
	case c.Path != "" && http2:
		kind = "http_health_check: {path: " + quote(c.Path) + ", codec_client_type: HTTP2}"
	case c.Path != "":
		kind = "http_health_check: {path: " + quote(c.Path) + "}"
	case c.Service != "":
		kind = "grpc_health_check: {service_name: " + quote(c.Service) + "}"
	}
	return lines(`
- timeout: 1s
  interval: 5s
  interval_jitter: 1s
  # Without these, Envoy checks a cluster that has had no traffic yet only once a minute.
  no_traffic_interval: 5s
  no_traffic_healthy_interval: 5s
  unhealthy_threshold: 1 # one failure makes a host unhealthy
  healthy_threshold: 3 # three successes make it healthy; a new host needs one
  %s
`, kind)
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// http2 returns the entry of typed_extension_protocol_options that makes Envoy speak HTTP/2 to a cluster.
func http2() []string {
	return lines(`
%[1]s:
  "@type": type.googleapis.com/%[1]s
  explicit_http_config: {http2_protocol_options: {}}
`, httpOptions)
}

func lines(format string, args ...any) []string {
	return strings.Split(strings.Trim(fmt.Sprintf(format, args...), "\n"), "\n")
}

// Print returns a configuration with each part in its place. The other lines show the place.
func (g Gate) Print() string {
	var all []string
	add := func(by int, lines ...string) { all = append(all, indented(by, lines)...) }
	add(0, "# What to add for a gate of the cluster "+quote(g.Cluster)+". Parts marked \"add\" are new; the other lines show the place.")
	if g.Module {
		add(0, "bootstrap_extensions: # add")
		add(0, g.extension()...)
	}
	add(0, "static_resources:", "  listeners:", "  - filter_chains:", "    - filters:",
		"      - name: envoy.filters.network.http_connection_manager",
		"        typed_config:",
		`          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
		"          stat_prefix: ingress", "          route_config:", "            virtual_hosts:", "            - name: ingress",
		`              domains: ["*"]`, "              routes:", "              # add, first")
	add(14, g.route()...)
	add(18, "# add, for each other filter of yours that can answer or change a reply; --into finds them:",
		`# envoy.filters.http.lua: {"@type": `+filterConfig+`, disabled: true}`)
	add(10, "http_filters:", "# add, anywhere before the router")
	add(10, g.filter()...)
	add(10, "- name: envoy.filters.http.router", "  typed_config:",
		`    "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`)
	add(2, "clusters:", "- name: "+quote(g.Cluster))
	if g.Check.asked() {
		add(4, "# add, if the cluster has no health checks", "health_checks:")
	} else {
		add(4, "# add, if the cluster has no health checks. This one is for gRPC; --http-check PATH is for other services.", "health_checks:")
	}
	add(4, g.Check.healthCheck(false)...)
	if g.Check.Path == "" {
		add(4, "# add, if it is missing: gRPC needs HTTP/2", "typed_extension_protocol_options:")
		add(6, http2()...)
	}
	return strings.Join(all, "\n") + "\n"
}
