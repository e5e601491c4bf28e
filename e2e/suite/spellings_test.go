package suite

import (
	"fmt"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

const aCheck = "health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, %s}]"

// spellings are values by the YAML of a cluster that they go into. Some are right, some are wrong, and some only Envoy accepts.
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
	"ring_hash_lb_config: {}\nmaglev_lb_config: %s":            {"null", "{}"},
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
	strings.Replace(aCheck, "%s", "grpc_health_check: {}", 1) + "\n%s": {
		"",
		"http2_protocol_options: {}",
		upstreamHTTP("explicit_http_config: {http_protocol_options: {}}"),
		upstreamHTTP("explicit_http_config: {http2_protocol_options: {}}"),
		upstreamHTTP("use_downstream_protocol_config: {http2_protocol_options: {}}"),
	},
	"%s: true": {"respectDnsTtl", "respect_dns", "Respect_Dns_Ttl", "respect_dns_ttl: true\nrespect_dns_ttl",
		"respectDnsTtl: false\nrespect_dns_ttl", "!ignore x"},
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
	for part, of := range map[string]map[string][]string{"cluster": spellings, "value": spellingsOfGates} {
		for into, values := range of {
			for _, value := range values {
				text := fmt.Sprintf(into, value)
				file := writeConfig(t, fillBase(t, map[string]string{"checks": "", part: text}))
				out, err := validated(t, file)
				takes := err == nil
				if takes {
					taken++
				} else {
					refused++
				}
				if slip := slipFound(t, file); (slip == "") != takes {
					t.Errorf("%s: Envoy takes it: %v; lint says %q\n%s", text, takes, slip, testbed.Tail(out, 2))
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
	for _, f := range findings(t, file) {
		if f.Severity == "error" && (f.Rule == "api" || f.Rule == "config") {
			return f.Message
		}
	}
	return ""
}
