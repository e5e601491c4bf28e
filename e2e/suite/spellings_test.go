package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

// spelledCluster is a bootstrap; %s is a part of its cluster.
const spelledCluster = `static_resources:
  clusters:
  - name: a
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: a
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]
    %s
`

// aListener is the beginning of a bootstrap; routes and http_filters must follow.
const aListener = `static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: i
          route_config:
            virtual_hosts:
            - name: v
              domains: "*"
              routes:
`

const aRouter = `          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

// spelledGate is a bootstrap; %s is the configuration of its gate.
const spelledGate = `bootstrap_extensions:
- name: healthgate
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension
    dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}
    extension_name: healthgate
` + aListener + `              - match: {path: "/"}
                direct_response: {status: 503}
                typed_per_filter_config: {healthgate: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}
          http_filters:
          - name: healthgate
            disabled: true
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
              dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}
              filter_name: healthgate
              filter_config:
                "@type": type.googleapis.com/google.protobuf.Struct
                value:
                  %s
` + aRouter

const aCheck = "health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, %s}]"

// upstreamHTTP returns the cluster's protocol options.
func upstreamHTTP(options string) string {
	const message = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	return fmt.Sprintf(`typed_extension_protocol_options: {%s: {"@type": type.googleapis.com/%s, %s}}`, message, message, options)
}

// spellings are values by the YAML that they go into. Some are right, some are wrong, and some only Envoy accepts.
var spellings = map[string][]string{
	"type: %s": {"strict_dns", "Strict_Dns", "STRICT-DNS", "strictdns", "1", `"1"`, `" STATIC"`, "01", "1.0", "0x1", "-1", "99", "null", "~",
		`""`, "true"},
	"respect_dns_ttl: %s": {"True", "yes", "On", "y", "off", `"true"`, "'false'", "1", `"1"`, "0", "null", `""`, `!!bool "true"`, "t", "truE",
		"2", `"on"`},
	"per_connection_buffer_limit_bytes: %s": {"5", `"5"`, "5.0", "5e0", "0x10", `"0x10"`, "010", "0o10", "0b1", "1_000", "+5", "-1",
		"4294967296", `" 5"`, "5.5", "1e3", ".inf", ".nan", "null", `""`, "abc", "true", "{value: 5}", "{value: x}"},
	"cleanup_interval: %s": {"1s", "1.5s", "0.0000000001s", "1", `"1"`, "1m", "1ms", "-1s", `" 1s"`, ".5s", "1e1s", "+1s", "315576000001s",
		"1S", "{seconds: 1}", "{minutes: 1}", "null"},
	"alt_stat_name: %s": {"abc", "5", "5.5", "true", "null", `"5"`, "0x10", "1_000", "2026-11-26", "[]", "{}", "4294967296", "yes"},
	"outlier_detection: %s": {"null", "", "5", `""`, `{consecutive_5xx: "5"}`, "{consecutive_5xx: 5.0}", "{consecutive_5xx: {value: 5}}", "[]",
		"[{consecutive_5xx: 5}]"},
	"health_checks: %s": {"null", "[]", "x", "{}", "[null]"},
	"dns_resolvers: %s": {"{socket_address: {address: 1.2.3.4, port_value: 53}}", "[{socket_address: {address: 1.2.3.4, port_value: 53}}]",
		"1.2.3.4"},
	"metadata: %s": {"[]", "{filter_metadata: {}}", "{filter_metadata: {x: null}}", "{filter_metadata: null}",
		"{filter_metadata: {x: {a: [1, null, {}], c: 5.5}}}", "{filter_metadata: {x: 5}}"},
	"common_lb_config: {healthy_panic_threshold: {value: %s}}": {"50", `"50"`, "1e1", "101", "x"},
	"ring_hash_lb_config: {}\n    maglev_lb_config: %s":        {"null", "{}"},
	"transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: %s}": {
		"{a: 1}",
		`{"@type": foo.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}`,
		`{"@type": envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}`,
		`{"@type": type.googleapis.com/udpa.type.v1.TypedStruct, value: {x: 1},
      type_url: type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}`,
	},
	strings.Replace(aCheck, "%s", "tcp_health_check: {send: {binary: %s}}", 1): {`"AAA="`, `"AAA"`, `"_-8="`, `"+/8"`, `"!!"`, "1234"},
	strings.Replace(aCheck, "%s", "http_health_check: {path: /, expected_statuses: [{start: 200, end: %s}]}", 1): {`"201"`,
		"9223372036854775807", "201.5"},
	strings.Replace(aCheck, "%s", "grpc_health_check: {}", 1) + "\n    %s": {
		"",
		"http2_protocol_options: {}",
		upstreamHTTP("explicit_http_config: {http_protocol_options: {}}"),
		upstreamHTTP("explicit_http_config: {http2_protocol_options: {}}"),
		upstreamHTTP("use_downstream_protocol_config: {http2_protocol_options: {}}"),
	},
	"%s: true": {"respectDnsTtl", "respect_dns", "Respect_Dns_Ttl", "respect_dns_ttl: true\n    respect_dns_ttl",
		"respectDnsTtl: false\n    respect_dns_ttl", "!ignore x"},
}

// spellingsOfGates are the same for a gate's configuration, which Envoy passes on as YAML types it.
var spellingsOfGates = map[string][]string{
	"{clusters: [a], drain: %s}":                         {"fail", `"ignore"`, "yes", "1", "null"},
	"{clusters: [a], require: %s}":                       {"all", "1", `"1"`, "1.0", "0x1", "01", "1_0", "2", "null", "1e0"},
	"{clusters: [a], response: {details: %s}}":           {"true", `"true"`, "yes", "ON", "1", "null"},
	"{clusters: [a], response: {healthy: {status: %s}}}": {"204", `"200"`, "200.0", "0xC8", "4294967296"},
	"{clusters: [a], response: {healthy: {body: %s}}}":   {"ok", "5", "5.5", "true", "null", "yes"},
	"{clusters: [a], stale_after: %s}":                   {"5s", `"5s"`, "5", "1.5s", "5m", "0", "null", "0.0s", "1e1s"},
	"{clusters: [a], stat_prefix: %s}":                   {"default", "5", "a.b", "5.5", "1_0", "a b"},
	"{clusters: [a], grpc_services: %s}":                 {"[]", "null", "[x]", "x", "[5]", "[5.5]"},
	"{clusters: [a], %s}": {"hold: null", "hold: {}", "hold: x", "!ignore x: y", "x: null",
		"path: /, path: /a"},
	"{clusters: %s}": {"[a]", "[{name: a}]", "a", "[{name: a, min_healthy: 1.0}]", `[{name: a, min_healthy: "1"}]`,
		"[{name: a, min_healthy_percent: 50.0}]", "[5]", "[5.5]", "[yes]", "null", "[a, null]"},
}

// lint reports an error by its rules api and config exactly if Envoy refuses the value. Envoy's own parser decides, not its documentation.
func TestLintAcceptsExactlyWhatEnvoyAccepts(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	taken, refused := 0, 0
	for base, of := range map[string]map[string][]string{spelledCluster: spellings, spelledGate: spellingsOfGates} {
		for into, values := range of {
			for _, value := range values {
				file := filepath.Join(t.TempDir(), "envoy.yaml")
				if err := os.WriteFile(file, []byte(fmt.Sprintf(base, fmt.Sprintf(into, value))), 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := validated(t, file)
				takes := err == nil
				if takes {
					taken++
				} else {
					refused++
				}
				if slip := slipFound(t, file); (slip == "") != takes {
					t.Errorf("%s: Envoy takes it: %v; lint says %q\n%s", fmt.Sprintf(into, value), takes, slip, testbed.Tail(out, 2))
				}
			}
		}
	}
	if t.Logf("Envoy takes %d and refuses %d", taken, refused); taken < 80 || refused < 80 {
		t.Error("too few cases")
	}
}

// slipFound returns the first error that lint finds in a file by its rules api and config.
func slipFound(t *testing.T, file string) string {
	t.Helper()
	stdout, _ := command(t, "lint", "--output", "json", file)
	var found []struct{ Severity, Rule, Message string }
	if err := json.Unmarshal(stdout, &found); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	for _, f := range found {
		if f.Severity == "error" && (f.Rule == "api" || f.Rule == "config") {
			return f.Message
		}
	}
	return ""
}

// validated makes Envoy validate a configuration with the module.
func validated(t *testing.T, file string) (log string, err error) {
	t.Helper()
	envoy, err := testbed.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	validate := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "--config-path", file)
	validate.Env = append(os.Environ(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+filepath.Join(testbed.Root(), "build"))
	out, err := validate.CombinedOutput()
	return string(out), err
}
