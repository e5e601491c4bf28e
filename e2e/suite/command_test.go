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

// command runs build/healthgate, and returns its output and its exit code: 0 all well, 1 problems found.
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
func lint(t *testing.T, config testbed.Configuration) []string {
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

// unknownCluster returns the reply details for a cluster that Envoy does not have.
func unknownCluster() string {
	if variant.Can(testbed.UnnoticedRemovals) == nil {
		return "healthgate_cluster_empty"
	}
	return "healthgate_cluster_unknown"
}

// expectLint expects one rule to be broken, or none.
func expectLint(t *testing.T, config testbed.Configuration, rule string) {
	t.Helper()
	want := []string{}
	if rule != "" {
		want = append(want, rule)
	}
	if got := lint(t, config); !slices.Equal(got, want) {
		t.Errorf("lint finds %q, want %q", got, want)
	}
}

// Findings of lint other than the pitfalls of docs/envoy-configuration.md, compared with what Envoy answers. The service is healthy.
func TestLintFindingsMatchEnvoysAnswers(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	gate := func(text string) []option { return []option{withGate(text)} }
	probeRoute := func(patch string) option {
		return withConfig(func(c *testbed.Bootstrap) { c.Patch(c.ProbeRoute(), patch) })
	}
	for name, test := range map[string]pitfall{
		"not-enabled":              {[]option{probeRoute(`typed_per_filter_config: null`)}, 503, "direct_response", "not-enabled"},
		"not-enabled, by its path": {gate(`{clusters: [service], path: /healthz}`), 503, "direct_response", "not-enabled"},
		"unknown-cluster":          {gate(`clusters: [servise]`), 503, unknownCluster(), "unknown-cluster"},
		"stat-name":                {[]option{withCluster(`alt_stat_name: shop`)}, 503, "healthgate_cluster_empty", "stat-name"},
		"stat-name, fixed": {append(gate(`clusters: [{name: service, stat_name: shop}]`), withCluster(`alt_stat_name: shop`)),
			200, "", ""},
		"leaks, with the filter": {[]option{probeRoute(`direct_response: {status: 200}`)}, 200, "", "leaks"},
		"leaks upstream":         {[]option{probeRoute(`route: {cluster: service}`)}, 200, "", "leaks"},
		"native-is-enough":       {gate(`clusters: [{name: service, min_healthy_percent: 50}]`), 200, "", "native-is-enough"},
		"panic": {gate(`clusters: [{name: service, min_healthy_percent: 30, min_healthy: 2}]`),
			503, "healthgate_cluster_unhealthy", "panic"},
		"no finding": {nil, 200, "", ""},
		"no finding for a stricter gate": {gate(`{clusters: [{name: service, min_healthy_percent: 90}], hold: {unhealthy_after: 1s}}`),
			200, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.meet(t)
		})
	}
}

// Without the filter, the probe's route answers by itself: with 200 although the service is down, or by asking a backend.
func TestProbeRouteWithoutTheFilterLeaks(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	absent := withConfig(func(c *testbed.Bootstrap) {
		c.RemoveGate()
		c.HCM().AccessLog[0].Filter = nil
	})
	for name, test := range map[string]struct {
		route   string // a patch of the probe's route
		status  int    // 0: any
		details string
	}{
		"a route with 200":            {`direct_response: {status: 200}`, 200, "direct_response"},
		"a route upstream":            {`route: {cluster: service}`, 0, "via_upstream"},
		"the reference configuration": {`{}`, 503, "direct_response"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Bootstrap) { c.Patch(c.ProbeRoute(), test.route) }), absent)
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

// A cluster without health checks passes after its only host has ended.
func TestUncheckedClusterPassesWithoutARunningHost(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	s := newSite(t, withCluster(`health_checks: null`))
	expectLint(t, s.config, "unchecked")
	s.backends[0].Kill()
	client := s.client("h2")
	s.await(settle, func() error {
		reply := s.mustDo(client, "POST", "/router.Router/None", nil, "content-type", "application/grpc")
		if reply.header.Get("grpc-status") != "14" {
			return fmt.Errorf("a call got %v", reply.header)
		}
		return nil
	})
	expect(t, "the probe", s.probe(client), 200, "ok\n", nil)
}

// A load balancer that only uses HTTP/2 has no protocol in common with the listener.
func TestListenerWithoutH2RefusesHTTP2(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	s := newSite(t, withConfig(func(c *testbed.Bootstrap) {
		c.TLS().CommonTlsContext.AlpnProtocols = []string{"http/1.1"}
	}))
	expectLint(t, s.config, "alpn")
	conn, err := tls.Dial("tcp", s.envoy.Ingress, &tls.Config{RootCAs: s.cert.Pool, NextProtos: []string{"h2"}})
	if err == nil {
		defer conn.Close()
		if protocol := conn.ConnectionState().NegotiatedProtocol; protocol == "h2" {
			t.Error("the connection uses h2")
		}
	}
}

// written returns the address of admin. With the contrib host its /config_dump has the configuration as it was
// written, for the golang extension.
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

// explained is a gate in the output of explain.
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

// With a probe and without one, explain reports the gate's answer and the reason.
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
			if last.Answer.Status != expect.status || last.Answer.Details != details || !strings.HasPrefix(last.Next, next) ||
				(next == "") != (last.Next == "") {
				t.Errorf("explain %v reports %+v, want %d %s", args, last, expect.status, details)
			}
		}
		if last.Answer.By != "probe" {
			t.Errorf("explain did not probe the gate: %+v", last)
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
		if !strings.HasPrefix(host.Why, "/failed_active_hc") ||
			!slices.ContainsFunc(s.backends, func(b *testbed.Backend) bool { return b.Address == host.Address }) {
			t.Errorf("a host that fails is %+v", host)
		}
	}
	s.setServing(2)
	s.post("/healthcheck/fail")
	agree(503, "healthgate_draining", "Envoy fails its health checks")
	s.post("/healthcheck/ok")
	agree(200, "healthgate_ok", "")
}

// Only a probe of the gate shows that its verdict is held or stale.
func TestExplainReportsHeldAndStaleVerdicts(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, withGate(`{"clusters": ["service"], "hold": {"unhealthy_after": "600s"}}`))
		admin, client := written(t, s), s.client("h2")
		s.setServing(1)
		s.awaitProbe(client, 200, settle)
		s.setServing(0)
		s.awaitGauges("service", 0, 1)
		if g := explain(t, admin, "--probe=false"); g.Answer.Status != 200 || g.Answer.Details != "healthgate_held" ||
			!strings.HasPrefix(g.Next, "hold delays the change") {
			t.Errorf("explain reports %+v", g)
		}
	})
	t.Run("stale", func(t *testing.T) {
		t.Parallel()
		needs(t, testbed.CheckAge)
		s := newSite(t, withGate(`{"clusters": ["service"], "stale_after": "1s"}`), withConfig(func(c *testbed.Bootstrap) {
			c.Patch(c.HealthCheck(), `{no_traffic_interval: null, no_traffic_healthy_interval: null}`)
		}))
		expectLint(t, s.config, "idle")
		s.awaitProbe(s.client("h2"), 503, settle)
		s.await(settle, func() error {
			if g := explain(t, written(t, s)); g.Answer.Status != 503 || g.Answer.Details != "healthgate_stale" ||
				!strings.HasPrefix(g.Next, "the data is older than stale_after") {
				return fmt.Errorf("explain reports %+v", g)
			}
			return nil
		})
	})
}

// The command's drain and alive with a real Envoy.
func TestCommandDrainsAnEnvoy(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it drains Envoy for good"))
	s.setServing(1)
	admin := s.adminAddress()
	if stdout, code := command(t, "alive", "--admin", admin); code != 0 || len(stdout) > 0 {
		t.Errorf("alive ended with %d: %s", code, stdout)
	}
	stdout, code := command(t, "drain", "--admin", admin, "--delay", "0.5s", "--timeout", "20s")
	if code != 0 || !strings.HasSuffix(string(stdout), "healthgate: drain: no request is left\n") {
		t.Errorf("drain ended with %d: %s", code, stdout)
	}
	expect(t, "the probe after the drain", s.probe(s.client("h2")), 503, "unavailable\n",
		map[string]string{"x-envoy-immediate-health-check-fail": "true"})
}
