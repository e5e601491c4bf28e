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

// report is the output of `healthgate explain --output json`.
type report struct {
	State    string
	Problems []struct{ What, Next string }
	Notes    []string
	Gates    []struct {
		Listener, Address, Next string
		Answer                  struct {
			Passing     bool
			Status      int
			Details, By string
		}
		Clusters []struct{ Reason string }
		Probe    *struct {
			Status  int
			Counted bool
			Error   string
		}
		Problems, Unknown []string
	}
	Findings []any
}

func explainAll(t *testing.T, admin string, args ...string) (r report, code int) {
	t.Helper()
	stdout, code := command(t, append([]string{"explain", "--admin", admin, "--output", "json"}, args...)...)
	if err := json.Unmarshal(stdout, &r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return r, code
}

// begins reports whether one of the texts has a prefix.
func begins(texts []string, with string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(text, with) })
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
	s := newSite(t, backends(1))
	client := s.client("h2")
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }))
	other.EnableHTTP2 = true
	other.StartTLS()
	t.Cleanup(other.Close)
	admin := forwarded(t, written(t, s), other.Listener.Addr().String())
	s.setServing(0)
	s.awaitProbe(client, 503, settle)
	r, code := explainAll(t, admin)
	if g := r.Gates[0]; code != 1 || g.Answer.Passing || g.Answer.By != "numbers" || g.Answer.Details != "healthgate_cluster_unhealthy" ||
		g.Probe == nil || g.Probe.Counted || g.Probe.Status != 200 || !begins(g.Unknown, "a probe: another server answered") {
		t.Errorf("exit code %d, and %+v", code, g)
	}
	// The same while a load balancer probes the gate.
	balancer := testbed.StartLoad(testbed.Pace{PerSecond: 2}, func(int) string {
		_, err := s.do(s.client("http/1.1"), http.MethodGet, "/", nil)
		return fmt.Sprint(err)
	})
	t.Cleanup(func() { _, _ = balancer.Stop() })
	if r, code = explainAll(t, admin); code != 1 || r.Gates[0].Answer.Passing || r.Gates[0].Probe.Counted {
		t.Errorf("while others probe: exit code %d, and %+v", code, r.Gates[0])
	}
	s.await(settle, func() error { // on a busy machine other probes may come at the same moment
		if r, code = explainAll(t, written(t, s)); code != 1 || r.Gates[0].Answer.By != "probe" || r.Gates[0].Answer.Status != 503 ||
			!r.Gates[0].Probe.Counted {
			return fmt.Errorf("its own answer while others probe: exit code %d, and %+v", code, r.Gates[0])
		}
		return nil
	})
	if outcome, err := balancer.Stop(); err != nil || outcome.Requests == 0 {
		t.Errorf("the load balancer has sent %d probes: %v", outcome.Requests, err)
	}
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
	if r, code = explainAll(t, admin); code != 0 || !r.Gates[0].Answer.Passing || r.Gates[0].Answer.By != "numbers" {
		t.Errorf("with the gate passing: exit code %d, and %+v", code, r.Gates[0])
	}
}

// A listener that refuses connections is a problem with a next step; the numbers are reported all the same.
func TestExplainReportsAProbeWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it needs an admin interface that can be forwarded")
	s := newSite(t)
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
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
	for name, test := range map[string]struct{ address, next string }{
		"refused": {closed.Addr().String(), "nothing listens there"},
		"reset":   {resets.Addr().String(), "the connection is closed without an answer"},
	} {
		r, code := explainAll(t, forwarded(t, written(t, s), test.address))
		if g := r.Gates[0]; code != 1 || g.Answer.Status != 200 || !begins(g.Problems, "the probe got no answer: ") ||
			!strings.HasPrefix(g.Next, test.next) {
			t.Errorf("%s: exit code %d, and %+v", name, code, g)
		}
	}
}

// A listener that requires a client certificate refuses explain's probe, as it does a load balancer's.
func TestExplainReportsARequiredClientCertificate(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	s := newSite(t, withConfig(func(c *testbed.Bootstrap) {
		ca := c.TLS().GetCommonTlsContext().GetTlsCertificates()[0].GetCertificateChain().GetFilename()
		c.Patch(c.TLS(),
			fmt.Sprintf(`{require_client_certificate: true, common_tls_context: {validation_context: {trusted_ca: {filename: %q}}}}`, ca))
	}))
	s.setServing(1)
	r, code := explainAll(t, written(t, s))
	if g := r.Gates[0]; code != 1 || g.Answer.Status != 200 || g.Answer.By != "numbers" || !begins(g.Problems, "the probe got no answer: ") ||
		!strings.Contains(g.Next, "client certificate") {
		t.Errorf("exit code %d, and %+v", code, g)
	}
}

// /healthcheck/ok does not undo `healthgate drain`: the gate passes again, but each connection is closed after its reply.
func TestExplainReportsAListenerThatStillDrains(t *testing.T) {
	t.Parallel()
	s := newSite(t, asInTheImage(t), alone("it drains Envoy for good"))
	s.setServing(1)
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	if r, code := explainAll(t, written(t, s)); code != 0 || len(r.Gates[0].Problems) > 0 {
		t.Errorf("before: exit code %d, and %+v", code, r.Gates[0])
	}
	if out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=2s"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, code := explainAll(t, written(t, s))
	if g := r.Gates[0]; code != 1 || g.Answer.Details != "healthgate_draining" || !strings.Contains(g.Next, "only a restart ends it") {
		t.Errorf("while it drains: exit code %d, and %+v", code, g)
	}
	s.post("/healthcheck/ok")
	s.awaitProbe(client, 200, settle)
	r, code = explainAll(t, written(t, s))
	if g := r.Gates[0]; code != 1 || g.Answer.Status != 200 || !begins(g.Problems, "the listener drains") ||
		!strings.HasPrefix(g.Next, "restart Envoy") {
		t.Errorf("after /healthcheck/ok: exit code %d, and %+v", code, g)
	}
	s.post("/drain_listeners")
	s.await(settle, func() error {
		r, code := explainAll(t, written(t, s))
		if g := r.Gates[0]; code != 1 || !strings.HasPrefix(g.Next, "restart Envoy: /drain_listeners has stopped its listeners") {
			return fmt.Errorf("after /drain_listeners: exit code %d, and %+v", code, g)
		}
		return nil
	})
}

// explain also probes listeners that differ from the reference configuration's.
func TestExplainProbesAnyListener(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, change := range map[string]func(*testbed.Bootstrap){
		"without a name": func(c *testbed.Bootstrap) { c.Listener().Name = "" },
		"another namespace": func(c *testbed.Bootstrap) {
			if variant.Name() == "module" {
				*c = *c.For(variant) // in the module's form, which has the namespace
				c.ModuleFilter().DynamicModuleConfig.MetricsNamespace = "other"
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(change))
			s.setServing(1)
			r, code := explainAll(t, written(t, s))
			if g := r.Gates[0]; g.Answer.By != "probe" || g.Answer.Status != 200 || len(g.Problems) > 0 || code > 1 {
				t.Errorf("exit code %d, and %+v, %+v", code, g, g.Probe)
			}
		})
	}
}

// An update that Envoy refuses is a problem, with or without an older gate; so is an Envoy without a gate.
func TestExplainReportsARefusedUpdate(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withLDS())
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	if s.reload(`{"clusters": ["service"], "min_helthy": 1}`) {
		t.Fatal("Envoy took the bad configuration")
	}
	r, code := explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Gates) != 1 || !r.Gates[0].Answer.Passing || len(r.Problems) != 1 ||
		!strings.HasPrefix(r.Problems[0].What, `Envoy refused the newest configuration of listener "ingress" at `) ||
		!strings.Contains(r.Problems[0].What, "and keeps the one before") || !strings.Contains(r.Problems[0].What, "min_helthy") {
		t.Errorf("exit code %d, problems %+v, gates %+v", code, r.Problems, r.Gates)
	}
	s.write("lds")
	s.awaitStat("listener_manager.total_listeners_active", 0)
	r, code = explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Gates) != 0 || len(r.Problems) == 0 ||
		!strings.HasPrefix(r.Problems[len(r.Problems)-1].What, "no gate is in its active configuration") {
		t.Errorf("without a listener: exit code %d, problems %+v, gates %+v", code, r.Problems, r.Gates)
	}
	if s.reload(`{"clusters": ["service"], "min_helthy": 1}`) {
		t.Fatal("Envoy took the bad configuration")
	}
	r, code = explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Problems) != 2 || !strings.Contains(r.Problems[0].What, "and has no other, so it does not listen there") ||
		!strings.Contains(r.Problems[0].What, "min_helthy") {
		t.Errorf("with a refused one alone: exit code %d, problems %+v", code, r.Problems)
	}
}

// A listener warms as long as its routes have not arrived.
func TestExplainReportsAWarmingListener(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withLDS())
	s.setServing(1)
	next := s.nextListener(`{"clusters": ["service"]}`, neverRouted).For(variant).Listener()
	s.writeListener(next)
	s.awaitStat("listener_manager.total_listeners_warming", 1)
	if r, code := explainAll(t, s.envoy.Admin); code != 0 || !slices.ContainsFunc(r.Notes, func(n string) bool {
		return strings.HasPrefix(n, `listener "ingress" is warming: a newer configuration waits`)
	}) {
		t.Errorf("beside one that serves: exit code %d, notes %q, problems %+v", code, r.Notes, r.Problems)
	}
	next.Name = "another"
	s.writeListener(next)
	s.awaitStat("listener_manager.total_listeners_active", 0)
	r, code := explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Problems) != 2 || !strings.HasPrefix(r.Problems[0].What, `listener "another" is warming: it does not listen yet`) ||
		!strings.HasPrefix(r.Problems[1].What, "no gate is in its active configuration") {
		t.Errorf("alone: exit code %d, problems %+v", code, r.Problems)
	}
}

// For a cluster that Envoy does not have, the answer and the cluster have the same reason.
func TestExplainReportsAMissingCluster(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	s := newSite(t, withGate(`{"clusters": ["servise"]}`))
	s.awaitProbe(s.client("h2"), 503, settle)
	r, code := explainAll(t, written(t, s))
	g := r.Gates[0]
	if code != 1 || g.Answer.By != "probe" || g.Answer.Details != "healthgate_"+g.Clusters[0].Reason ||
		!strings.HasPrefix(g.Next, `Envoy has no cluster "servise"`) ||
		!strings.HasSuffix(g.Next, "; did you mean service?") {
		t.Errorf("exit code %d, and %+v", code, g)
	}
}
