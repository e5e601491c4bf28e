package suite

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// plainFile is an ordinary bootstrap; %s is a list of HTTP filters.
const plainFile = `# Ours.
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
` + aListener + `              - match: {prefix: /}
                route: {cluster: checkout}
          http_filters:
%s` + aRouter + `  clusters:
  - name: checkout
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: checkout
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]
`

// configured makes the command write a gate into a file.
func configured(t *testing.T, text string, args ...string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, append([]string{"config", "--cluster", "checkout", "--variant", "module", "--into", file, "--write"}, args...)...)
	result, err := os.ReadFile(file)
	if err != nil ||
		!strings.Contains(string(result), "filter_name: healthgate") && !strings.Contains(string(result), `"filter_name": "healthgate"`) {
		t.Fatalf("%v: the gate is not in\n%s", err, result)
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
	for name, test := range map[string]struct {
		text string
		args []string
	}{
		"by gRPC": {plain, []string{"--grpc-service", "shop.v1.Checkout"}},
		"by HTTP": {plain, []string{"--http-check", "/up"}},
		"by HTTP over HTTP/2": {replaced("connect_timeout: 1s",
			"connect_timeout: 1s\n    "+upstreamHTTP("explicit_http_config: {http2_protocol_options: {}}")), []string{"--http-check", "/up"}},
		"JSON": {string(asJSON), []string{"--grpc-service", ""}},
		"an anchor": {replaced("route: {cluster: checkout}", "route: {cluster: &c checkout}", "- name: checkout", "- name: *c",
			"cluster_name: checkout", "cluster_name: *c"), []string{"--grpc-service", ""}},
		"a folded name":    {replaced("- name: checkout", "- name: >-\n      checkout"), []string{"--grpc-service", ""}},
		"an empty list":    {replaced("connect_timeout: 1s", "connect_timeout: 1s\n    health_checks: []"), []string{"--grpc-service", ""}},
		"a dash alone":     {replaced("- name: checkout", "-\n    name: checkout"), []string{"--grpc-service", ""}},
		"alt_stat_name":    {replaced("connect_timeout: 1s", "connect_timeout: 1s\n    alt_stat_name: till"), []string{"--grpc-service", ""}},
		"another domain":   {replaced(`domains: "*"`, "domains: [www.example.com]"), []string{"--grpc-service", ""}},
		"a tabbed comment": {replaced("  clusters:\n", "\t# Ours.\n  clusters:\n"), []string{"--grpc-service", ""}},
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

// otherFilters answer requests or change replies, before or after the gate: each would change a probe's 503.
var otherFilters = map[string]string{
	"Lua": `          - name: envoy.filters.http.lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code: {inline_string: "function envoy_on_response(h) h:headers():replace(':status', '200') end"}
`,
	"custom_response": `          - name: envoy.filters.http.custom_response
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.custom_response.v3.CustomResponse
              custom_response_matcher:
                matcher_list:
                  matchers:
                  - predicate:
                      single_predicate:
                        input:
                          name: status
                          typed_config: {"@type": type.googleapis.com/envoy.type.matcher.v3.HttpResponseStatusCodeClassMatchInput}
                        value_match: {exact: 5xx}
                    on_match:
                      action:
                        name: local
                        typed_config:
                          "@type": type.googleapis.com/envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy
                          status_code: 200
                          body: {inline_string: fine}
`,
	"ext_proc": `          - name: envoy.filters.http.ext_proc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: {envoy_grpc: {cluster_name: checkout}}
`,
	"fault": `          - name: envoy.filters.http.fault
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
              abort: {http_status: 418, percentage: {numerator: 100}}
`,
	"RBAC": `          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules: {action: ALLOW}
`,
}

// The route that `healthgate config` writes disables other filters: the probe gets the gate's answer, and other traffic passes them.
func TestConfigDisablesOtherFiltersOnTheProbeRoute(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	for name, filter := range otherFilters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(configured(t, fmt.Sprintf(plainFile, filter), "--grpc-service", "", "--path", "/healthz"))
			if err != nil {
				t.Fatal(err)
			}
			config, err := yaml.YAMLToJSON(text)
			if err != nil {
				t.Fatal(err)
			}
			envoy, err := testbed.StartEnvoy(t.Context(), t.TempDir(), testbed.RawJSON(config), variant.Options(testbed.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			s := &site{t: t, dir: t.TempDir()}
			s.use(envoy)
			get := func(path string) string {
				reply, err := http.Get("http://" + s.envoy.Ingress + path)
				if err != nil {
					t.Fatal(err)
				}
				defer reply.Body.Close()
				return reply.Status
			}
			s.awaitGauges("checkout", 0, 1) // nothing listens at its one host
			s.await(settle, func() error {
				if status := get("/healthz"); status != "503 Service Unavailable" {
					return fmt.Errorf("the probe is answered with %s", status)
				}
				if n := s.stat("healthgate.default.failed_cluster_unhealthy"); n == 0 {
					return fmt.Errorf("the gate has answered no probe")
				}
				return nil
			})
			// The filter still acts on other requests.
			if status := get("/app"); strings.HasPrefix(status, "503") {
				t.Errorf("the filter does not act on other requests: %s", status)
			}
		})
	}
}
