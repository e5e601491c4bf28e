package suite

import (
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// plainFile returns an ordinary bootstrap with more HTTP filters.
func plainFile(t *testing.T, filters string) string {
	t.Helper()
	return fill(readFile(t, "testdata/plain.yaml"), map[string]string{"filters": filters})
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
	plain := plainFile(t, "")
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
		"by HTTP over HTTP/2": {replaced("connect_timeout: 1s", `connect_timeout: 1s
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
      explicit_http_config: {http2_protocol_options: {}}}}`), []string{"--http-check", "/up"}},
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

// The route that `healthgate config` writes disables other filters: the probe gets the gate's answer, and other traffic passes them.
func TestConfigDisablesOtherFiltersOnTheProbeRoute(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	file := configured(t, plainFile(t, readFile(t, "testdata/filters.yaml")), "--grpc-service", "", "--path", "/healthz")
	s := startText(t, readFile(t, file))
	s.awaitGauges("checkout", 0, 1) // nothing listens at its one host
	if status := s.plainStatus("/healthz"); status != "503" || s.stat("healthgate.default.failed_cluster_unhealthy") != 1 {
		t.Errorf("the probe is answered with %s", status)
	}
	if status := s.plainStatus("/app"); status != "200" { // by Lua
		t.Errorf("the filters do not act on other requests: %s", status)
	}
}
