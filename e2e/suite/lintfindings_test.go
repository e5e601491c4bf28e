package suite

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"

	"healthgate/e2e/testbed"
)

// If the healthy percentage is between the gate's minimum and Envoy's panic threshold, the gate passes, and calls go to dead hosts.
func TestGateBelowThePanicThresholdPassesWhileCallsFail(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for percent, test := range map[int]struct {
		rule   string
		status int
	}{30: {"panic", 200}, 50: {"", 503}} {
		t.Run(fmt.Sprint(percent, " %"), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, backends(3),
				withGate(fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy_percent": %d}], "response": {"details": true}}`, percent)))
			expectLint(t, s.config, test.rule)
			s.setServing(3)
			for _, backend := range s.backends[1:] {
				backend.Kill()
			}
			s.awaitHealthy(map[*testbed.Backend]bool{s.backends[0]: true, s.backends[1]: false, s.backends[2]: false})
			client := s.client("h2")
			s.awaitProbe(client, test.status, settle)
			s.awaitUnavailable(client) // two of three calls go to a dead host
			if reply := s.probe(client); reply.status != test.status {
				t.Errorf("while calls fail the probe is answered with %d, want %d", reply.status, test.status)
			}
		})
	}
}

// The golang extension finds a route's plugin by its name, and of two libraries with that name takes the one loaded last. The merged
// configuration is then one of another library, which the filter cannot use.
func TestOverrideIsNotUsedWithTwoLibraries(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.CountMerges) // the contrib host, which finds plugins as the golang extension does
	for name, rule := range map[string]string{"one": "", "two": "two-libraries"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := prepare(t, withRoute("/readyz", `{"path": "/readyz"}`),
				withSecondListener(`{"clusters": [{"name": "service", "min_healthy": 5}], "stat_prefix": "second"}`))
			if rule != "" {
				other := filepath.Join(s.dir, "other.so")
				if err := os.WriteFile(other, []byte(readFile(t, variant.Object())), 0o700); err != nil {
					t.Fatal(err)
				}
				written := s.config.GateFilterOf(s.config.StaticResources.Listeners[1]).(*golangv3.Config)
				written.LibraryId, written.LibraryPath = "healthgate-2", "/etc/envoy/healthgate-2.so"
				started := p.config.GateFilterOf(p.config.StaticResources.Listeners[1]).(*modulev3.DynamicModuleFilter)
				started.FilterName = "healthgate@healthgate-2@" + other
			}
			expectLint(t, s.config, rule)
			s.start(p)
			s.setServing(1)
			client := s.client("h2")
			s.awaitProbe(client, 200, settle) // the extension finds the filter itself by its library
			reply, err := s.do(client, http.MethodGet, "/readyz", nil)
			if passes := err == nil && reply.status == 200; passes != (rule == "") {
				t.Errorf("the route's probe got %+v, %v", reply, err)
			}
		})
	}
}

// A load balancer that only uses HTTP/2 has no protocol in common with the listener.
func TestListenerWithoutH2RefusesHTTP2(t *testing.T) {
	t.Parallel()
	s := newSite(t, withConfig(func(c *testbed.Bootstrap) { c.TLS().CommonTlsContext.AlpnProtocols = []string{"http/1.1"} }))
	expectLint(t, s.config, "alpn")
	if reply, err := s.do(s.client("h2"), http.MethodGet, "/", nil); err == nil && reply.protocol == "HTTP/2.0" {
		t.Errorf("the probe is answered with %d over HTTP/2", reply.status)
	}
}
