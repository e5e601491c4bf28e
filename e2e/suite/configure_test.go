package suite

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// plainFile is an ordinary bootstrap; %s is a list of HTTP filters.
const plainFile = `# Ours.
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts:
            - name: all
              domains: "*"
              routes:
              - match: {prefix: /}
                route: {cluster: checkout}
          http_filters:
%s          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: checkout
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: checkout
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]
`

// upstreamHTTP returns the cluster's protocol options.
func upstreamHTTP(options string) string {
	const message = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	return fmt.Sprintf(`typed_extension_protocol_options: {%s: {"@type": type.googleapis.com/%s, %s}}`, message, message, options)
}

// configured makes the command write a gate into a file.
func configured(t *testing.T, text string, args ...string) (file string) {
	t.Helper()
	file = writeConfig(t, text)
	command(t, append([]string{"config", "--cluster", "checkout", "--variant", "module", "--into", file, "--write"}, args...)...)
	if result := readFile(t, file); !regexp.MustCompile(`"?filter_name"?: "?healthgate`).MatchString(result) {
		t.Fatalf("the gate is not in\n%s", result)
	}
	return file
}

// Envoy accepts each kind of file after `healthgate config` has written a gate into it.
func TestEnvoyAcceptsFilesWrittenByConfig(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	plain := fmt.Sprintf(plainFile, "")
	replaced := func(oldNew ...string) string {
		text := plain
		for i := 0; i < len(oldNew); i += 2 {
			if !strings.Contains(text, oldNew[i]) {
				t.Fatalf("the file has no %q", oldNew[i])
			}
			text = strings.Replace(text, oldNew[i], oldNew[i+1], 1)
		}
		return text
	}
	asJSON, err := yaml.YAMLToJSON([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	byGRPC := []string{"--grpc-service", ""}
	for name, test := range map[string]struct {
		text string
		args []string
	}{
		"by gRPC": {plain, []string{"--grpc-service", "shop.v1.Checkout"}},
		"by HTTP": {plain, []string{"--http-check", "/up"}},
		"by HTTP over HTTP/2": {replaced("connect_timeout: 1s",
			"connect_timeout: 1s\n    "+upstreamHTTP("explicit_http_config: {http2_protocol_options: {}}")), []string{"--http-check", "/up"}},
		"JSON": {string(asJSON), byGRPC},
		"an anchor": {replaced("route: {cluster: checkout}", "route: {cluster: &c checkout}", "- name: checkout", "- name: *c",
			"cluster_name: checkout", "cluster_name: *c"), byGRPC},
		"a folded name":    {replaced("- name: checkout", "- name: >-\n      checkout"), byGRPC},
		"an empty list":    {replaced("connect_timeout: 1s", "connect_timeout: 1s\n    health_checks: []"), byGRPC},
		"a dash alone":     {replaced("- name: checkout", "-\n    name: checkout"), byGRPC},
		"alt_stat_name":    {replaced("connect_timeout: 1s", "connect_timeout: 1s\n    alt_stat_name: till"), byGRPC},
		"another domain":   {replaced(`domains: "*"`, "domains: [www.example.com]"), byGRPC},
		"a tabbed comment": {replaced("  clusters:\n", "\t# Ours.\n  clusters:\n"), byGRPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := configured(t, test.text, test.args...)
			if out, err := validated(t, file); err != nil {
				t.Errorf("%v: %s", err, testbed.Tail(out, 2))
			}
		})
	}
}

// otherFilters answer requests or change replies, before or after the gate: each would change a probe's 503. The lint cases have more.
const otherFilters = `          - name: envoy.filters.http.lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code: {inline_string: "function envoy_on_response(h) h:headers():replace(':status', '200') end"}
          - name: envoy.filters.http.ext_proc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: {envoy_grpc: {cluster_name: checkout}}
          - name: envoy.filters.http.fault
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
              abort: {http_status: 418, percentage: {numerator: 100}}
`

// The route that `healthgate config` writes disables other filters: the probe gets the gate's answer, and other traffic passes them.
func TestConfigDisablesOtherFiltersOnTheProbeRoute(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	file := configured(t, fmt.Sprintf(plainFile, otherFilters), "--grpc-service", "", "--path", "/healthz")
	s := startText(t, readFile(t, file))
	s.awaitGauges("checkout", 0, 1) // nothing listens at its one host
	if status := s.plainStatus("/healthz"); status != "503" || s.stat("healthgate.default.failed_cluster_unhealthy") != 1 {
		t.Errorf("the probe is answered with %s", status)
	}
	if status := s.plainStatus("/app"); status != "200" { // by Lua
		t.Errorf("the filters do not act on other requests: %s", status)
	}
}
