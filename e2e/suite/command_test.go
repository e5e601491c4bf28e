package suite

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

// command runs the command as users have it, and returns what it printed and its exit code: 0 fine, 1 something was found.
func command(t *testing.T, args ...string) (stdout []byte, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(testbed.Root(), "build", "healthgate"), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	exit := (*exec.ExitError)(nil)
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 1) {
		t.Fatalf("healthgate %v: %v (make command builds it)\n%s", args, err, stderr.String())
	}
	if exit != nil {
		return stdout, exit.ExitCode()
	}
	return stdout, 0
}

// lint returns the rules that a configuration breaks, each once.
func lint(t *testing.T, config *testbed.Config) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, config.JSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, _ := command(t, "lint", "--output", "json", file)
	var found []struct{ Rule, Message string }
	if err := json.Unmarshal(stdout, &found); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	rules := []string{}
	for _, f := range found {
		t.Logf("lint: %s [%s]", f.Message, f.Rule)
		if !slices.Contains(rules, f.Rule) {
			rules = append(rules, f.Rule)
		}
	}
	slices.Sort(rules)
	return rules
}

// unknownCluster is the details of a cluster that Envoy does not have.
func unknownCluster() string {
	if variant.Can(testbed.Ghosts) == nil {
		return "healthgate_cluster_empty"
	}
	return "healthgate_cluster_unknown"
}

// expectLint expects one rule to be broken, or none.
func expectLint(t *testing.T, config *testbed.Config, rule string) {
	t.Helper()
	want := []string{}
	if rule != "" {
		want = append(want, rule)
	}
	if got := lint(t, config); !slices.Equal(got, want) {
		t.Errorf("lint finds %q, want %q", got, want)
	}
}

// What lint says beyond the pitfalls of docs/envoy-configuration.md, as Envoy does it. The service is healthy throughout.
func TestLintSaysWhatEnvoyDoes(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	set := func(path string, value any) option { return withConfig(func(c *testbed.Config) { c.Set(path, value) }) }
	without := func(path string) option { return withConfig(func(c *testbed.Config) { c.Delete(path) }) }
	const enabling = testbed.Routes + ".0.typed_per_filter_config"
	for name, test := range map[string]pitfall{
		"not-enabled":                 {[]option{without(enabling)}, 503, "direct_response", "not-enabled"},
		"not-enabled, by its path":    {[]option{set(testbed.PluginConfig+".path", "/healthz")}, 503, "direct_response", "not-enabled"},
		"unknown-cluster":             {[]option{withPlugin(`{"clusters": ["servise"]}`)}, 503, unknownCluster(), "unknown-cluster"},
		"stat-name":                   {[]option{set(testbed.Cluster+".alt_stat_name", "shop")}, 503, "healthgate_cluster_empty", "stat-name"},
		"stat-name, mended":           {[]option{set(testbed.Cluster+".alt_stat_name", "shop"), withPlugin(`{"clusters": [{"name": "service", "stat_name": "shop"}]}`)}, 200, "", ""},
		"leaks, with the filter":      {[]option{set(testbed.Routes+".0.direct_response.status", 200)}, 200, "", "leaks"},
		"leaks upstream":              {[]option{without(testbed.Routes + ".0.direct_response"), set(testbed.Routes+".0.route", map[string]any{"cluster": "service"})}, 200, "", "leaks"},
		"native-is-enough":            {[]option{withPlugin(`{"clusters": [{"name": "service", "min_healthy_percent": 50}]}`)}, 200, "", "native-is-enough"},
		"panic":                       {[]option{withPlugin(`{"clusters": [{"name": "service", "min_healthy_percent": 30, "min_healthy": 2}]}`)}, 503, "healthgate_cluster_unhealthy", "panic"},
		"nothing, where it is plain":  {nil, 200, "", ""},
		"nothing, of a stricter gate": {[]option{withPlugin(`{"clusters": [{"name": "service", "min_healthy_percent": 90}], "hold": {"unhealthy_after": "1s"}}`)}, 200, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.meet(t)
		})
	}
}

// What a probe's route does by itself is seen where the filter is not there: it says 200 of a service that is down, or asks a
// backend.
func TestLeaksAreSeenWithoutTheFilter(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	absent := withConfig(func(c *testbed.Config) {
		c.Set(testbed.HTTPFilters, c.Get(testbed.HTTPFilters).([]any)[1:])
		c.Delete(testbed.Routes + ".0.typed_per_filter_config")
		c.Delete(testbed.HCM + ".access_log.0.filter")
	})
	for name, test := range map[string]struct {
		change  func(*testbed.Config)
		status  int
		details string
	}{
		"a route that says 200": {func(c *testbed.Config) { c.Set(testbed.Routes+".0.direct_response.status", 200) }, 200, "direct_response"},
		"a route upstream": {func(c *testbed.Config) {
			c.Delete(testbed.Routes + ".0.direct_response")
			c.Set(testbed.Routes+".0.route", map[string]any{"cluster": "service"})
		}, 0, "via_upstream"},
		"the reference's": {func(*testbed.Config) {}, 503, "direct_response"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(p *plan) { p.gated = false }, withConfig(test.change), absent)
			s.await(settle, func() error {
				reply, err := s.do(s.client("h2"), "GET", "/", nil)
				if err == nil && test.status != 0 && reply.status != test.status {
					err = fmt.Errorf("the probe is answered with %d", reply.status)
				}
				return err
			})
			s.awaitLog(`"details":"`+test.details, settle)
		})
	}
}

// A cluster that nobody checks passes with its only host gone.
func TestUncheckedClusterPassesWithItsHostsGone(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	s := newSite(t, withConfig(func(c *testbed.Config) { c.Delete(testbed.Cluster + ".health_checks") }))
	expectLint(t, s.config, "unchecked")
	s.backends[0].Kill()
	client := s.client("h2")
	s.await(settle, func() error {
		if reply := s.mustDo(client, "POST", "/router.Router/None", nil, "content-type", "application/grpc"); reply.header.Get("grpc-status") != "14" {
			return fmt.Errorf("a call got %v", reply.header)
		}
		return nil
	})
	expect(t, "the probe", s.probe(client), 200, "ok\n", nil)
}

// A balancer that speaks HTTP/2 alone finds no protocol in common.
func TestListenerWithoutH2TurnsHTTP2Away(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	s := newSite(t, withConfig(func(c *testbed.Config) {
		c.Set(testbed.Listener+".filter_chains.0.transport_socket.typed_config.common_tls_context.alpn_protocols", []any{"http/1.1"})
	}))
	expectLint(t, s.config, "alpn")
	conn, err := tls.Dial("tcp", s.envoy.Ingress, &tls.Config{RootCAs: s.cert.Pool, NextProtos: []string{"h2"}})
	if err == nil {
		defer conn.Close()
		if protocol := conn.ConnectionState().NegotiatedProtocol; protocol == "h2" {
			t.Error("h2 is agreed on")
		}
	}
}

// written is admin of a site. Where the Envoy has the contrib host in the Go plugin's place, it is that but for the configuration,
// which is as it was written.
func written(t *testing.T, s *site) (address string) {
	t.Helper()
	if variant.Name() == "module" && !strings.HasPrefix(s.envoy.Admin, "unix:") {
		return s.envoy.Admin
	}
	admin, err := testbed.AdminAsWritten(s.envoy, s.config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(admin)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// explained is what explain says of a gate.
type explained struct {
	Answer struct {
		Status      int
		Details, By string
	}
	Clusters []struct {
		Healthy, Total int
		Failing        []struct{ Address, Why string }
	}
	Next string
}

func explain(t *testing.T, admin string, args ...string) explained {
	t.Helper()
	stdout, _ := command(t, append([]string{"explain", "--admin", admin, "--output", "json"}, args...)...)
	var report struct{ Gates []explained }
	if err := json.Unmarshal(stdout, &report); err != nil || len(report.Gates) != 1 {
		t.Fatalf("%v: %s", err, stdout)
	}
	return report.Gates[0]
}

// By the numbers alone, and when it asks the gate, explain says what the gate answers, and why.
func TestExplainAgreesWithTheGate(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2), alone("it drains Envoy"))
	admin, client := written(t, s), s.client("h2")
	agree := func(status int, details, next string) explained {
		t.Helper()
		expect := s.awaitProbe(client, status, settle)
		var last explained
		for _, args := range [][]string{{"--probe=false"}, nil} {
			last = explain(t, admin, args...)
			if last.Answer.Status != expect.status || last.Answer.Details != details || !strings.HasPrefix(last.Next, next) || (next == "") != (last.Next == "") {
				t.Errorf("explain %v says %+v, want %d %s", args, last, expect.status, details)
			}
		}
		if last.Answer.By != "probe" {
			t.Errorf("the gate was not asked: %+v", last)
		}
		return last
	}
	s.setServing(2)
	agree(200, "healthgate_ok", "")
	s.setServing(1)
	if g := agree(200, "healthgate_ok", ""); len(g.Clusters[0].Failing) != 1 || g.Clusters[0].Healthy != 1 || g.Clusters[0].Total != 2 {
		t.Errorf("with one host of two: %+v", g)
	}
	s.setServing(0)
	g := agree(503, "healthgate_cluster_unhealthy", "the backends fail Envoy's health checks")
	for _, host := range g.Clusters[0].Failing {
		if !strings.HasPrefix(host.Why, "/failed_active_hc") || !slices.ContainsFunc(s.backends, func(b *testbed.Backend) bool { return b.Address == host.Address }) {
			t.Errorf("a host that fails is %+v", host)
		}
	}
	s.setServing(2)
	s.post("/healthcheck/fail")
	agree(503, "healthgate_draining", "Envoy fails its health checks")
	s.post("/healthcheck/ok")
	agree(200, "healthgate_ok", "")
}

// What only the gate knows is known by asking it.
func TestExplainTellsWhatIsHeldAndWhatIsStale(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, withPlugin(`{"clusters": ["service"], "hold": {"unhealthy_after": "600s"}}`))
		admin, client := written(t, s), s.client("h2")
		s.setServing(1)
		s.awaitProbe(client, 200, settle)
		s.setServing(0)
		s.awaitGauges("service", 0, 1)
		if g := explain(t, admin, "--probe=false"); g.Answer.Status != 200 || g.Answer.Details != "healthgate_held" || !strings.HasPrefix(g.Next, "hold delays the change") {
			t.Errorf("explain says %+v", g)
		}
	})
	t.Run("stale", func(t *testing.T) {
		t.Parallel()
		needs(t, testbed.Aging)
		s := newSite(t, withPlugin(`{"clusters": ["service"], "stale_after": "1s"}`), withConfig(func(c *testbed.Config) {
			c.Delete(testbed.HealthCheck + ".no_traffic_interval")
			c.Delete(testbed.HealthCheck + ".no_traffic_healthy_interval")
		}))
		expectLint(t, s.config, "idle")
		s.awaitProbe(s.client("h2"), 503, settle)
		s.await(settle, func() error {
			if g := explain(t, written(t, s)); g.Answer.Status != 503 || g.Answer.Details != "healthgate_stale" || !strings.HasPrefix(g.Next, "the data is older than stale_after") {
				return fmt.Errorf("explain says %+v", g)
			}
			return nil
		})
	})
}

// drain and alive, of the command, with a real Envoy.
func TestCommandDrainsAnEnvoy(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it drains Envoy for good"))
	s.setServing(1)
	admin := s.envoy.Admin
	if path, unix := strings.CutPrefix(admin, "unix:"); unix {
		admin = "unix://" + path
	}
	if stdout, code := command(t, "alive", "--admin", admin); code != 0 || len(stdout) > 0 {
		t.Errorf("alive ended with %d: %s", code, stdout)
	}
	stdout, code := command(t, "drain", "--admin", admin, "--delay", "0.5s", "--timeout", "20s")
	if code != 0 || !strings.HasSuffix(string(stdout), "healthgate: drain: no request is left\n") {
		t.Errorf("drain ended with %d: %s", code, stdout)
	}
	expect(t, "the probe of a drain", s.probe(s.client("h2")), 503, "unavailable\n", map[string]string{"x-envoy-immediate-health-check-fail": "true"})
}
