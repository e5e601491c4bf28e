package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

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

// report is the output of `healthgate explain --output json`.
type report struct {
	Problems []struct{ What, Next string }
	Notes    []string
	Gates    []explained
}

// explained is a gate in the output of explain.
type explained struct {
	Next   string
	Answer struct {
		Status      int
		Details, By string
	}
	Clusters []struct {
		Reason         string
		Healthy, Total int
		Failing        []struct{ Address, Why string }
	}
	Probe             struct{ Counted bool }
	Problems, Unknown []string
}

func explain(t *testing.T, admin string, args ...string) (r report, code int) {
	t.Helper()
	stdout, code := command(t, append([]string{"explain", "--admin", admin, "--output", "json"}, args...)...)
	if err := json.Unmarshal(stdout, &r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return r, code
}

// explanation is what explain reports of the only gate. Empty texts are not compared, others are beginnings.
type explanation struct {
	code, status               int
	details, by, problem, next string
}

// explained returns the gate that explain reports, or an error if it differs from an explanation.
func (e explanation) explained(t *testing.T, admin string, args ...string) (explained, error) {
	t.Helper()
	r, code := explain(t, admin, args...)
	if len(r.Gates) != 1 {
		t.Fatalf("explain reports %+v", r)
	}
	g := r.Gates[0]
	begins := func(texts []string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(text, e.problem) })
	}
	if code != e.code || g.Answer.Status != e.status || !strings.HasPrefix(g.Answer.Details, e.details) ||
		!strings.HasPrefix(g.Answer.By, e.by) || e.problem != "" && !begins(append(g.Problems, g.Unknown...)) ||
		!strings.HasPrefix(g.Next, e.next) || e.code == 0 && (len(g.Problems) > 0 || (g.Next == "") != (e.next == "")) {
		return g, fmt.Errorf("explain %v ended with %d, want %+v; it reports %+v", args, code, e, g)
	}
	return g, nil
}

// mustExplain runs explain, and returns the gate.
func (s *site) mustExplain(admin string, want explanation, args ...string) explained {
	s.t.Helper()
	g, err := want.explained(s.t, admin, args...)
	if err != nil {
		s.t.Error(err)
	}
	return g
}

// forwarded returns the address of a port-forward to admin, on a machine where another server listens at the gate's address.
func forwarded(t *testing.T, admin, address string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: admin})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/listeners" {
			fmt.Fprintf(w, `{"listener_statuses": [{"name": "ingress", "local_address": {"socket_address": {"address": %q, "port_value": %s}}}]}`,
				host, port)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// explain does not take another server's answer for the gate's.
func TestExplainIgnoresAnotherServersAnswer(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it needs an admin interface that can be forwarded")
	s := newSite(t)
	client := s.client("h2")
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }))
	other.EnableHTTP2 = true
	other.StartTLS()
	t.Cleanup(other.Close)
	admin := forwarded(t, written(t, s), other.Listener.Addr().String())
	s.setServing(0)
	s.awaitProbe(client, 503, settle)
	s.mustExplain(admin, explanation{code: 1, status: 503, details: "healthgate_cluster_unhealthy", by: "numbers",
		problem: "a probe: another server answered"})
	// The same while a load balancer probes the gate.
	balancer := testbed.StartLoad(testbed.Pace{PerSecond: 2}, func(int) string {
		_, err := s.do(s.client("http/1.1"), http.MethodGet, "/", nil)
		return fmt.Sprint(err)
	})
	t.Cleanup(func() { _, _ = balancer.Stop() })
	if g := s.mustExplain(admin, explanation{code: 1, status: 503}); g.Probe.Counted {
		t.Errorf("while others probe its probe counts: %+v", g)
	}
	s.await(settle, func() error { // on a busy machine other probes may come at the same moment
		g, err := explanation{code: 1, status: 503, by: "probe"}.explained(t, written(t, s))
		if err == nil && !g.Probe.Counted {
			err = fmt.Errorf("its own answer while others probe: %+v", g)
		}
		return err
	})
	if outcome, err := balancer.Stop(); err != nil || outcome.Requests == 0 {
		t.Errorf("the load balancer has sent %d probes: %v", outcome.Requests, err)
	}
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
	s.mustExplain(admin, explanation{status: 200, by: "numbers"})
}

// A listener that refuses connections is a problem with a next step; the numbers are reported all the same.
func TestExplainReportsAProbeWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it needs an admin interface that can be forwarded")
	s := newServingSite(t)
	s.awaitProbe(s.client("h2"), 200, settle)
	resets, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resets.Close() })
	go func() {
		for {
			conn, err := resets.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.Close()
			}
		}
	}()
	for address, next := range map[string]string{
		unusedAddress(t).String(): "nothing listens there",
		resets.Addr().String():    "the connection is closed without an answer",
	} {
		s.mustExplain(forwarded(t, written(t, s), address),
			explanation{code: 1, status: 200, problem: "the probe got no answer: ", next: next})
	}
}

// A listener that requires a client certificate refuses explain's probe, as it does a load balancer's.
func TestExplainReportsARequiredClientCertificate(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withConfig(func(c *testbed.Bootstrap) {
		ca := c.TLS().GetCommonTlsContext().GetTlsCertificates()[0].GetCertificateChain().GetFilename()
		c.Patch(c.TLS(),
			fmt.Sprintf(`{require_client_certificate: true, common_tls_context: {validation_context: {trusted_ca: {filename: %q}}}}`, ca))
	}))
	g := s.mustExplain(written(t, s), explanation{code: 1, status: 200, by: "numbers", problem: "the probe got no answer: "})
	if !strings.Contains(g.Next, "client certificate") {
		t.Errorf("the next step is %q", g.Next)
	}
}

// /healthcheck/ok does not undo `healthgate drain`: the gate passes again, but each connection is closed after its reply.
func TestExplainReportsAListenerThatStillDrains(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, asInTheImage(t), alone("it drains Envoy for good"))
	admin := written(t, s)
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.mustExplain(admin, explanation{status: 200})
	if out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=2s"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if g := s.mustExplain(admin, explanation{code: 1, status: 503, details: "healthgate_draining"}); !strings.Contains(g.Next,
		"only a restart ends it") {
		t.Errorf("while it drains the next step is %q", g.Next)
	}
	s.post("/healthcheck/ok")
	s.awaitProbe(client, 200, settle)
	s.mustExplain(admin, explanation{code: 1, status: 200, problem: "the listener drains", next: "restart Envoy"})
	s.post("/drain_listeners")
	s.await(settle, func() error {
		_, err := explanation{code: 1, status: 200, next: "restart Envoy: /drain_listeners has stopped its listeners"}.explained(t, admin)
		return err
	})
}

// explain also probes listeners that differ from the reference configuration's.
func TestExplainProbesAnyListener(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withConfig(func(c *testbed.Bootstrap) {
		c.Listener().Name = ""
		if variant.Name() == "module" {
			*c = *c.For(variant) // in the module's form, which has the namespace
			c.ModuleFilter().DynamicModuleConfig.MetricsNamespace = "other"
		}
	}))
	r, _ := explain(t, written(t, s))
	if g := r.Gates[0]; g.Answer.By != "probe" || g.Answer.Status != 200 || len(g.Problems) > 0 {
		t.Errorf("explain reports %+v", g)
	}
}

// An update that Envoy refuses is a problem, with or without an older gate; so is an Envoy without a gate. A listener warms as long as its
// routes have not arrived.
func TestExplainReportsARefusedOrWarmingUpdate(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newServingSite(t, withLDS())
	s.awaitProbe(s.client("h2"), 200, settle)
	expectParts := func(when string, code, gates int, of func(report) string, parts ...string) {
		t.Helper()
		r, got := explain(t, s.envoy.Admin)
		if got != code || len(r.Gates) != gates {
			t.Errorf("%s: exit code %d, and %+v", when, got, r)
		}
		for _, part := range parts {
			if !strings.Contains(of(r), part) {
				t.Errorf("%s: it reports %+v, want %q", when, r, part)
			}
		}
	}
	first := func(r report) string { return r.Problems[0].What }
	last := func(r report) string { return r.Problems[len(r.Problems)-1].What }
	refuse := func() {
		t.Helper()
		if s.reload(`{"clusters": ["service"], "min_helthy": 1}`) {
			t.Fatal("Envoy took the bad configuration")
		}
	}
	next := s.nextListener(`{"clusters": ["service"]}`, neverRouted).For(variant).Listener()
	s.writeListener(next)
	s.awaitStat("listener_manager.total_listeners_warming", 1)
	expectParts("warming beside one that serves", 0, 1, func(r report) string { return strings.Join(r.Notes, "\n") },
		`listener "ingress" is warming: a newer configuration waits`)
	refuse()
	expectParts("refused beside one that serves", 1, 1, first,
		`Envoy refused the newest configuration of listener "ingress" at `, "and keeps the one before", "min_helthy")
	next.Name = "another"
	s.writeListener(next)
	s.awaitStat("listener_manager.total_listeners_active", 0)
	expectParts("warming alone", 1, 0, first, `listener "another" is warming: it does not listen yet`)
	expectParts("warming alone", 1, 0, last, "no gate is in its active configuration")
	refuse()
	expectParts("refused alone", 1, 0, first, "and has no other, so it does not listen there", "min_helthy")
}

// For a cluster that Envoy does not have, the answer and the cluster have the same reason.
func TestExplainReportsAMissingCluster(t *testing.T) {
	t.Parallel()
	s := newSite(t, withGate(`{"clusters": ["servise"]}`))
	s.awaitProbe(s.client("h2"), 503, settle)
	g := s.mustExplain(written(t, s), explanation{code: 1, status: 503, by: "probe", next: `Envoy has no cluster "servise"`})
	if g.Answer.Details != "healthgate_"+g.Clusters[0].Reason || !strings.HasSuffix(g.Next, "; did you mean service?") {
		t.Errorf("explain reports %+v", g)
	}
}

// With a probe and without one, explain reports the gate's answer and the reason.
func TestExplainAgreesWithTheGate(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2), alone("it drains Envoy"))
	admin, client := written(t, s), s.client("h2")
	for _, step := range []struct {
		serving       int
		drain         string
		status        int
		details, next string
	}{
		{2, "ok", 200, "healthgate_ok", ""},
		{1, "ok", 200, "healthgate_ok", ""},
		{0, "ok", 503, "healthgate_cluster_unhealthy", "the backends fail Envoy's health checks"},
		{2, "fail", 503, "healthgate_draining", "Envoy fails its health checks"},
		{2, "ok", 200, "healthgate_ok", ""},
	} {
		s.setServing(step.serving)
		s.post("/healthcheck/" + step.drain)
		s.awaitProbe(client, step.status, settle)
		want := explanation{status: step.status, details: step.details, next: step.next}
		if step.status != 200 {
			want.code = 1
		}
		s.mustExplain(admin, want, "--probe=false")
		want.by = "probe"
		cluster := s.mustExplain(admin, want).Clusters[0]
		if cluster.Healthy != step.serving || cluster.Total != 2 || len(cluster.Failing) != 2-step.serving {
			t.Errorf("with %d hosts of two: %+v", step.serving, cluster)
		}
		for _, host := range cluster.Failing {
			if !strings.HasPrefix(host.Why, "/failed_active_hc") ||
				!slices.ContainsFunc(s.backends, func(b *testbed.Backend) bool { return b.Address == host.Address }) {
				t.Errorf("a host that fails is %+v", host)
			}
		}
	}
}

// Only a probe of the gate shows that its verdict is held or stale.
func TestExplainReportsHeldAndStaleVerdicts(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		s := newServingSite(t, withGate(`{"clusters": ["service"], "hold": {"unhealthy_after": "600s"}}`))
		admin, client := written(t, s), s.client("h2")
		s.awaitProbe(client, 200, settle)
		s.setServing(0)
		s.mustExplain(admin, explanation{status: 200, details: "healthgate_held", next: "hold delays the change"}, "--probe=false")
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
			_, err := explanation{code: 1, status: 503, details: "healthgate_stale", next: "the data is older than stale_after"}.explained(
				t, written(t, s))
			return err
		})
	})
}
