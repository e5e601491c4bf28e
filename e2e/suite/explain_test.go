package suite

import (
	"context"
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
	"sync"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// report is the whole of `healthgate explain`.
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

// begins says whether one of some texts begins so.
func begins(texts []string, with string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(text, with) })
}

// forwarded is admin of a site as a port-forward brings it to another machine, on which the gate's address is another's.
func forwarded(t *testing.T, admin, address string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: admin})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/listeners" {
			fmt.Fprintf(w, `{"listener_statuses": [{"name": "ingress", "local_address": {"socket_address": {"address": %q, "port_value": %s}}}]}`, host, port)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Another server's answer is not the gate's, whatever it is.
func TestExplainCountsTheGatesAnswerAlone(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "admin is not where it can be forwarded")
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
	// The same while a balancer probes the gate.
	balancing, stop := context.WithCancel(t.Context())
	var balancer sync.WaitGroup
	balancer.Go(func() {
		for balancing.Err() == nil {
			_, _ = s.do(s.client("http/1.1"), http.MethodGet, "/", nil)
			time.Sleep(500 * time.Millisecond) // as a balancer of some nodes does
		}
	})
	if r, code = explainAll(t, admin); code != 1 || r.Gates[0].Answer.Passing || r.Gates[0].Probe.Counted {
		t.Errorf("while others probe: exit code %d, and %+v", code, r.Gates[0])
	}
	s.await(settle, func() error { // a machine that stands still lets others' probes pile up
		if r, code = explainAll(t, written(t, s)); code != 1 || r.Gates[0].Answer.By != "probe" || r.Gates[0].Answer.Status != 503 || !r.Gates[0].Probe.Counted {
			return fmt.Errorf("its own answer while others probe: exit code %d, and %+v", code, r.Gates[0])
		}
		return nil
	})
	stop()
	balancer.Wait()
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
	if r, code = explainAll(t, admin); code != 0 || !r.Gates[0].Answer.Passing || r.Gates[0].Answer.By != "numbers" {
		t.Errorf("with the gate passing: exit code %d, and %+v", code, r.Gates[0])
	}
}

// A listener that nothing can connect to is a problem, with a next step; the numbers are reported all the same.
func TestExplainReportsAProbeThatFails(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "admin is not where it can be forwarded")
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
		if g := r.Gates[0]; code != 1 || g.Answer.Status != 200 || !begins(g.Problems, "the probe got no answer: ") || !strings.HasPrefix(g.Next, test.next) {
			t.Errorf("%s: exit code %d, and %+v", name, code, g)
		}
	}
}

// A listener that asks for a client certificate turns a probe away, as it does a balancer's.
func TestExplainReportsAListenerThatAsksForACertificate(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs a configuration of its own")
	s := newSite(t, withConfig(func(c *testbed.Config) {
		tls := testbed.Listener + ".filter_chains.0.transport_socket.typed_config"
		c.Set(tls+".require_client_certificate", true)
		c.Set(tls+".common_tls_context.validation_context", map[string]any{"trusted_ca": map[string]any{
			"filename": c.Get(tls + ".common_tls_context.tls_certificates.0.certificate_chain.filename")}})
	}))
	s.setServing(1)
	r, code := explainAll(t, written(t, s))
	if g := r.Gates[0]; code != 1 || g.Answer.Status != 200 || g.Answer.By != "numbers" || !begins(g.Problems, "the probe got no answer: ") || !strings.Contains(g.Next, "client certificate") {
		t.Errorf("exit code %d, and %+v", code, g)
	}
}

// `healthgate drain` is not taken back by /healthcheck/ok: the gate passes again, and each connection is closed after its reply.
func TestExplainNoticesAListenerThatDrainsForGood(t *testing.T) {
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
	if g := r.Gates[0]; code != 1 || g.Answer.Status != 200 || !begins(g.Problems, "the listener drains") || !strings.HasPrefix(g.Next, "restart Envoy") {
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

// Listeners that are configured otherwise than the reference's are asked as they are.
func TestExplainAsksAnyListener(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for name, change := range map[string]func(*testbed.Config){
		"without a name": func(c *testbed.Config) { c.Delete(testbed.Listener + ".name") },
		"another namespace": func(c *testbed.Config) {
			if variant.Name() == "module" {
				c.Set(testbed.Healthgate+".typed_config.dynamic_module_config", parse(`{"name": "healthgate", "metrics_namespace": "other"}`))
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

// An update that Envoy refuses is a problem, beside a gate that goes on and without one; so is an Envoy without a gate.
func TestExplainReportsWhatEnvoyRefuses(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withLDS())
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	if s.reload(`{"clusters": ["service"], "min_helthy": 1}`) {
		t.Fatal("the bad configuration was taken")
	}
	r, code := explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Gates) != 1 || !r.Gates[0].Answer.Passing || len(r.Problems) != 1 ||
		!strings.HasPrefix(r.Problems[0].What, `Envoy refused the newest configuration of listener "ingress" at `) ||
		!strings.Contains(r.Problems[0].What, "and keeps the one before") || !strings.Contains(r.Problems[0].What, "min_helthy") {
		t.Errorf("exit code %d, problems %+v, gates %+v", code, r.Problems, r.Gates)
	}
	s.write("lds", "envoy.config.listener.v3.Listener")
	s.awaitStat("listener_manager.total_listeners_active", 0)
	r, code = explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Gates) != 0 || len(r.Problems) == 0 || !strings.HasPrefix(r.Problems[len(r.Problems)-1].What, "no gate is in its active configuration") {
		t.Errorf("without a listener: exit code %d, problems %+v, gates %+v", code, r.Problems, r.Gates)
	}
	if s.reload(`{"clusters": ["service"], "min_helthy": 1}`) {
		t.Fatal("the bad configuration was taken")
	}
	r, code = explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Problems) != 2 || !strings.Contains(r.Problems[0].What, "and has no other: it does not listen there") || !strings.Contains(r.Problems[0].What, "min_helthy") {
		t.Errorf("with a refused one alone: exit code %d, problems %+v", code, r.Problems)
	}
}

// Routes that have not come leave a listener warming, and a cluster whose hosts were not checked yet leaves Envoy starting.
func TestExplainReportsWhatIsWarming(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withLDS())
	s.setServing(1)
	next := referenceConfig(t)
	next.UseCertificate(s.cert)
	next.Listen(0, 0)
	next.Delete(testbed.HCM + ".route_config")
	// The service is no control plane, and never sends routes.
	next.Set(testbed.HCM+".rds", parse(`{"route_config_name": "routes", "config_source": {"resource_api_version": "V3", "initial_fetch_timeout": "600s",
		"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "service"}}]}}}`))
	variant.Prepare(next)
	s.writeListener(next.Get(testbed.Listener))
	s.awaitStat("listener_manager.total_listeners_warming", 1)
	if r, code := explainAll(t, s.envoy.Admin); code != 0 || !slices.ContainsFunc(r.Notes, func(n string) bool {
		return strings.HasPrefix(n, `listener "ingress" is warming: a newer configuration waits`)
	}) {
		t.Errorf("beside one that serves: exit code %d, notes %q, problems %+v", code, r.Notes, r.Problems)
	}
	next.Set(testbed.Listener+".name", "another")
	s.writeListener(next.Get(testbed.Listener))
	s.awaitStat("listener_manager.total_listeners_active", 0)
	r, code := explainAll(t, s.envoy.Admin)
	if code != 1 || len(r.Problems) != 2 || !strings.HasPrefix(r.Problems[0].What, `listener "another" is warming: it does not listen yet`) ||
		!strings.HasPrefix(r.Problems[1].What, "no gate is in its active configuration") {
		t.Errorf("alone: exit code %d, problems %+v", code, r.Problems)
	}
}

// A cluster that Envoy does not have is unknown, in the answer and for the cluster alike.
func TestExplainHasOneReasonForAMissingCluster(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs a configuration of its own")
	s := newSite(t, withPlugin(`{"clusters": ["servise"]}`))
	s.awaitProbe(s.client("h2"), 503, settle)
	r, code := explainAll(t, written(t, s))
	g := r.Gates[0]
	if code != 1 || g.Answer.By != "probe" || g.Answer.Details != "healthgate_"+g.Clusters[0].Reason || !strings.HasPrefix(g.Next, `Envoy has no cluster "servise"`) ||
		!strings.HasSuffix(g.Next, "; did you mean service?") {
		t.Errorf("exit code %d, and %+v", code, g)
	}
}
