package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// fakeEnvoy is an Envoy with one gate: its admin, and the gate's listener.
type fakeEnvoy struct {
	mutex    sync.Mutex
	plugin   string // the gate's configuration, in JSON
	enabled  bool   // the probe's route asks the gate
	state    string
	stats    map[string]uint64
	hosts    []string // their health_status in JSON; nil is an Envoy without the cluster
	answers  string   // the counters that a probe has grow, spaced; "" is a listener that does not answer
	status   int      // of a probe's answer
	body     string   // of it
	listener string   // where probes are answered
	broken   bool     // admin answers 500

	namespace string // of the gate's stats; "healthgate." by default
	counting  string // counters of Envoy's that a probe increases, spaced
	socket    string // the listener's transport_socket, in JSON
	unnamed   bool   // the listener has no name in the configuration
	others    int    // probes of others, a second
	began     time.Time
	counted   uint64 // of these
	updates   string // more entries of configs in the dump
}

// newFakeEnvoy has three healthy hosts.
func newFakeEnvoy(plugin string) *fakeEnvoy {
	e := &fakeEnvoy{plugin: plugin, enabled: true, state: "LIVE", hosts: []string{"{}", "{}", "{}"}, answers: "ok", status: 200,
		namespace: "healthgate.", counting: "http.ingress.downstream_rq_total"}
	e.stats = map[string]uint64{"server.live": 1, "healthgate.default.healthy": 1, "healthgate.default.ok": 7, "healthgate.default.failed": 0,
		"http.ingress.downstream_rq_total": 3, "http.admin.downstream_rq_total": 9, "http.ingress.downstream_cx_drain_close": 0}
	e.count(3, 0, 3)
	return e
}

func (e *fakeEnvoy) count(healthy, degraded, total uint64) {
	e.stats["cluster.service.membership_healthy"] = healthy
	e.stats["cluster.service.membership_degraded"] = degraded
	e.stats["cluster.service.membership_total"] = total
}

const failed = `{"failed_active_health_check": true}`

func (e *fakeEnvoy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.broken {
		w.WriteHeader(500)
		return
	}
	switch r.URL.Path {
	case "/config_dump":
		fmt.Fprint(w, e.dump())
	case "/server_info":
		fmt.Fprintf(w, `{"version": "b579d0/1.39.1/Clean/RELEASE/BoringSSL", "state": %q, "uptime_current_epoch": "3600s"}`, e.state)
	case "/listeners":
		name := "ingress"
		if e.unnamed {
			name = "0b6c1a52"
		}
		fmt.Fprintf(w, `{"listener_statuses": [{"name": %q, "local_address": %s}]}`, name, socket(e.listener))
	case "/stats":
		if e.began.IsZero() {
			e.began = time.Now()
		}
		if now := uint64(time.Since(e.began).Seconds() * float64(e.others)); now > e.counted {
			e.stats["healthgate.default."+strings.Fields(e.answers + " ok")[0]] += now - e.counted
			e.counted = now
		}
		e.stats["http.admin.downstream_rq_total"]++
		for name, value := range e.stats {
			fmt.Fprintf(w, "%s: %d\n", strings.Replace(name, "healthgate.", e.namespace, 1), value)
		}
	case "/clusters":
		hosts := make([]string, len(e.hosts))
		for i, health := range e.hosts {
			hosts[i] = fmt.Sprintf(`{"address": %s, "health_status": %s}`, socket(fmt.Sprintf("10.0.0.%d:8080", i+1)), health)
		}
		if e.hosts == nil {
			fmt.Fprint(w, `{"cluster_statuses": [{"name": "servise"}]}`)
			return
		}
		fmt.Fprintf(w, `{"cluster_statuses": [{"name": "service", "host_statuses": [%s]}]}`, strings.Join(hosts, ","))
	}
}

func socket(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`{"socket_address": {"address": %q, "port_value": %s}}`, host, port)
}

func (e *fakeEnvoy) dump() string {
	enabling := ""
	if e.enabled {
		enabling = `, "typed_per_filter_config": {"healthgate": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}}`
	}
	named := `"name": "ingress", `
	if e.unnamed {
		named = ""
	}
	if e.socket != "" {
		e.socket = `"transport_socket": ` + strings.TrimPrefix(strings.TrimSuffix(e.socket, ", "), `"transport_socket": `) + ", "
	}
	if e.plugin == "none" {
		return `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump"}` + e.updates + `]}`
	}
	return `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [{"listener": {` + named +
		`"filter_chains": [{` + e.socket + `"filters": [
		{"name": "hcm", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"name": "probe", "match": {"path": "/"}, "direct_response": {"status": 503}` + enabling + `}]}]},
		"http_filters": [{"name": "healthgate", "disabled": true, "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.Config",
		"library_id": "a", "library_path": "a", "plugin_name": "healthgate", "plugin_config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": ` + e.plugin + `}}}]}}]}]}}]}` + e.updates + `]}`
}

// start has both listen, and returns a client of admin.
func (e *fakeEnvoy) start(t *testing.T) *envoyadmin.Client {
	t.Helper()
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mutex.Lock()
		defer e.mutex.Unlock()
		for _, counter := range strings.Fields(e.answers) {
			e.stats["healthgate.default."+counter]++
		}
		for _, counter := range strings.Fields(e.counting) {
			e.stats[counter]++
		}
		w.WriteHeader(e.status)
		fmt.Fprint(w, e.body)
	}))
	t.Cleanup(gate.Close)
	e.listener = gate.Listener.Addr().String()
	if e.status == 0 {
		gate.Close()
	}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	admin, err := envoyadmin.New(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return admin
}

const plain = `{"clusters": ["service"]}`

// explained has states of an Envoy with one gate, and the expected explanation.
var explained = map[string]struct {
	plugin string
	change func(e *fakeEnvoy)
	status int
	reason string // by the numbers
	asked  string // of the probe, if it differs
	next   string // how the next step begins
}{
	"all are healthy": {plain, func(*fakeEnvoy) {}, 200, "healthgate_ok", "", ""},
	"one is left":     {plain, func(e *fakeEnvoy) { e.count(1, 0, 3); e.hosts[0], e.hosts[1] = failed, failed }, 200, "healthgate_ok", "", ""},
	"none is left": {plain, func(e *fakeEnvoy) {
		e.count(0, 0, 3)
		e.hosts, e.answers = []string{failed, failed, failed}, "failed failed_cluster_unhealthy"
	}, 503, "healthgate_cluster_unhealthy", "", "the backends fail Envoy's health checks"},
	"degraded hosts serve": {plain, func(e *fakeEnvoy) { e.count(0, 2, 3) }, 200, "healthgate_ok", "", ""},
	"degraded hosts don't count": {`{"clusters": [{"name": "service", "degraded": "ignore"}]}`, func(e *fakeEnvoy) {
		e.count(0, 2, 3)
		e.answers = "failed failed_cluster_unhealthy"
	}, 503, "healthgate_cluster_unhealthy", "", "the backends fail"},
	"every host is degraded, and none counts": {`{"clusters": [{"name": "service", "degraded": "ignore"}]}`, func(e *fakeEnvoy) {
		e.count(0, 3, 3)
		e.answers = "failed failed_cluster_unhealthy"
	}, 503, "healthgate_cluster_unhealthy", "", `3 hosts of cluster "service" are degraded, which this gate does not count`},
	"fewer hosts than it needs": {`{"clusters": [{"name": "service", "min_healthy": 4}]}`, func(e *fakeEnvoy) {
		e.answers = "failed failed_cluster_unhealthy"
	}, 503, "healthgate_cluster_unhealthy", "", `all 3 hosts of cluster "service" are healthy, and the gate needs 4: add hosts`},
	"too few per cent": {`{"clusters": [{"name": "service", "min_healthy_percent": 50}]}`, func(e *fakeEnvoy) {
		e.count(1, 0, 3)
		e.answers = "failed failed_cluster_unhealthy"
	}, 503, "healthgate_cluster_unhealthy", "", "the backends fail"},
	"it drains": {plain, func(e *fakeEnvoy) {
		e.state, e.stats["server.live"], e.answers = "DRAINING", 0, "failed failed_draining"
	}, 503, "healthgate_draining", "", "Envoy fails its health checks"},
	"it drains, whatever hold says": {`{"clusters": ["service"], "hold": {"unhealthy_after": "10s"}}`, func(e *fakeEnvoy) {
		e.state, e.stats["server.live"], e.answers = "DRAINING", 0, "failed failed_draining"
	}, 503, "healthgate_draining", "", "Envoy fails its health checks"},
	"a drain is ignored": {`{"clusters": ["service"], "drain": "ignore"}`, func(e *fakeEnvoy) {
		e.state, e.stats["server.live"] = "DRAINING", 0
	}, 200, "healthgate_ok", "", ""},
	"a drain can't be seen": {plain, func(e *fakeEnvoy) {
		e.state = "DRAINING"
		delete(e.stats, "server.live")
	}, 200, "healthgate_ok", "", ""},
	"it has no hosts": {plain, func(e *fakeEnvoy) {
		e.count(0, 0, 0)
		e.hosts, e.answers = []string{}, "failed failed_cluster_empty"
	}, 503, "healthgate_cluster_empty", "", `cluster "service" has no hosts: its name does not resolve`},
	"no such cluster": {plain, func(e *fakeEnvoy) {
		e.count(0, 0, 0)
		e.hosts, e.answers = nil, "failed failed_cluster_empty"
	}, 503, "healthgate_cluster_empty", "", `Envoy has no cluster "service": the name is wrong, or CDS has removed it, as Envoy Gateway does while a service has no ready endpoint (scaled to 0); did you mean servise?`},
	"its gauges are left out": {plain, func(e *fakeEnvoy) {
		e.count(0, 0, 0)
		e.answers = "failed failed_cluster_empty"
	}, 503, "healthgate_cluster_empty", "", `cluster "service" has 3 hosts, and its gauges do not`},
	"the gauges of its only host are left out": {plain, func(e *fakeEnvoy) {
		e.count(0, 0, 0)
		e.hosts, e.answers = e.hosts[:1], "failed failed_cluster_empty"
	}, 503, "healthgate_cluster_empty", "", `cluster "service" has 1 hosts, and its gauges do not`},
	"by admin, no such cluster": {`{"clusters": ["service"], "source": "admin", "admin": {"address": "127.0.0.1:9901"}}`, func(e *fakeEnvoy) {
		e.hosts, e.answers = nil, "failed failed_cluster_unknown"
	}, 503, "healthgate_cluster_unknown", "", `Envoy has no cluster "service"`},
	"by admin, which counts hosts": {`{"clusters": ["service"], "source": "admin", "admin": {"address": "127.0.0.1:9901"}}`,
		func(e *fakeEnvoy) {
			e.hosts[0], e.hosts[1], e.hosts[2] = failed, failed, `{"eds_health_status": "UNHEALTHY"}`
			e.answers = "failed failed_cluster_unhealthy"
		}, 503, "healthgate_cluster_unhealthy", "", "the backends fail"},
	"held open": {`{"clusters": ["service"], "hold": {"unhealthy_after": "10s"}}`, func(e *fakeEnvoy) {
		e.count(0, 0, 3)
	}, 200, "healthgate_held", "healthgate_ok", "hold delays the change"},
	"held shut": {`{"clusters": ["service"], "hold": {"healthy_after": "10s"}}`, func(e *fakeEnvoy) {
		e.stats["healthgate.default.healthy"], e.answers = 0, "failed"
	}, 503, "healthgate_held", "", "hold delays the change"},
	"stale, which only the gate knows": {`{"clusters": ["service"], "stale_after": "10s"}`, func(e *fakeEnvoy) {
		e.answers, e.status = "failed failed_stale", 503
	}, 200, "healthgate_ok", "healthgate_stale", "the data is older than stale_after"},
	"its configuration is bad": {`{"clusters": []}`, func(e *fakeEnvoy) { e.answers = "" }, 503, "healthgate_error", "",
		"fix its configuration"},
}

// What a probe is answered is said with its reason and the next step, by the numbers alone and when the gate is asked.
func TestAnswerIsExplained(t *testing.T) {
	t.Parallel()
	for name, test := range explained {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newFakeEnvoy(test.plugin)
			if e.status = 200; test.status >= 400 {
				e.status = 503
			}
			test.change(e)
			admin := e.start(t)
			report, err := Run(t.Context(), admin, false)
			if err != nil || len(report.Gates) != 1 {
				t.Fatalf("%v: %+v", err, report)
			}
			g := report.Gates[0]
			if g.Answer.Status != test.status || g.Answer.Details != test.reason || g.Answer.Passing != (test.status == 200) ||
				g.Answer.By != "numbers" {
				t.Errorf("by the numbers it is %+v", g.Answer)
			}
			if test.asked == "" && !strings.HasPrefix(g.Next, test.next) || (test.next == "") != (g.Next == "") && test.asked == "" {
				t.Errorf("the next step is %q", g.Next)
			}
			if report, err = Run(t.Context(), admin, true); err != nil {
				t.Fatal(err)
			}
			if g = report.Gates[0]; test.reason == "healthgate_error" {
				return
			}
			want := test.reason
			if test.asked != "" {
				want = test.asked
			}
			if g.Answer.Status != e.status || g.Answer.Details != want || g.Answer.By != "probe" || g.Probe == nil || g.Probe.Status != e.status {
				t.Errorf("asked, it is %+v, %+v", g.Answer, g.Probe)
			}
			if test.asked == "healthgate_stale" && !strings.HasPrefix(g.Next, test.next) {
				t.Errorf("the next step is %q", g.Next)
			}
		})
	}
}

func TestUnhealthyHostsAreListedWithTheReason(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	e.hosts = []string{
		"{}", failed, `{"failed_outlier_check": true}`, `{"eds_health_status": "DRAINING"}`, `{"failed_active_degraded_check": true}`,
		`{"failed_active_health_check": true, "active_hc_timeout": true}`, `{"failed_active_health_check": true, "pending_active_hc": true}`,
	}
	report, err := Run(t.Context(), e.start(t), false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, host := range report.Gates[0].Clusters[0].Failing {
		flag, _, _ := strings.Cut(host.Why, ":")
		got = append(got, host.Address+" "+flag)
	}
	want := []string{
		"10.0.0.2:8080 /failed_active_hc", "10.0.0.3:8080 /failed_outlier_check", "10.0.0.4:8080 /eds_status_unhealthy",
		"10.0.0.6:8080 /failed_active_hc/active_hc_timeout", "10.0.0.7:8080 /failed_active_hc/pending_active_hc",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// If something else in this Envoy answers the probe instead of the gate, that is a problem, whatever the host counts are.
func TestProbeThatTheGateDoesNotAnswerIsAProblem(t *testing.T) {
	t.Parallel()
	e := newFakeEnvoy(plain)
	e.enabled, e.answers, e.status = false, "", 503
	report, err := Run(t.Context(), e.start(t), true)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Findings) != 1 || report.Findings[0].Rule != "not-enabled" || report.Fine() {
		t.Errorf("lint found %v", report.Findings)
	}
	g := report.Gates[0]
	if len(g.Problems) != 1 || g.Problems[0] != "this Envoy answered the probe with 503, but not by the gate" || g.Probe.Counted ||
		!strings.HasPrefix(g.Next, "find the route, redirect or filter") {
		t.Errorf("got %+v", g)
	}
}

// Another server may listen at the listener's address on this machine: its answer is not the gate's.
func TestAnswerOfAnotherServerDoesNotCount(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		healthy uint64
		others  int
		status  int // of the other server
		fine    bool
	}{
		"200, and the gate fails":                        {0, 0, 200, false},
		"200, and the gate fails, others probe the gate": {0, 2, 200, false},
		"404, and the gate passes":                       {3, 0, 404, true},
		"404, and the gate passes, others probe it":      {3, 2, 404, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFakeEnvoy(plain)
			e.count(test.healthy, 0, 3)
			e.answers, e.counting, e.status, e.others = "", "", test.status, test.others
			report, err := Run(t.Context(), e.start(t), true)
			if err != nil {
				t.Fatal(err)
			}
			g := report.Gates[0]
			if report.Fine() != test.fine || g.Answer.By != "numbers" || g.Answer.Passing != (test.healthy > 0) || g.Probe.Counted ||
				len(g.Problems) > 0 {
				t.Errorf("fine: %v, and %+v, %+v", report.Fine(), g, g.Probe)
			}
			if !slices.ContainsFunc(g.Unknown, func(u string) bool {
				return strings.HasPrefix(u, "a probe: another server answered at ")
			}) {
				t.Errorf("it does not say whose answer it was: %q", g.Unknown)
			}
		})
	}
}

// While others probe the gate, its own answer is still known by a burst of probes.
func TestAnswerCountsWhileOthersProbe(t *testing.T) {
	t.Parallel()
	e := newFakeEnvoy(plain)
	e.others = 2
	report, err := Run(t.Context(), e.start(t), true)
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; g.Answer.By != "probe" || !g.Probe.Counted || !report.Fine() {
		t.Errorf("got %+v, %+v", g, g.Probe)
	}
}

// If others probe the gate all the time, its counters don't show whose probe was answered.
func TestAnswerIsUnknownWhileOthersProbeAllTheTime(t *testing.T) {
	t.Parallel()
	e := newFakeEnvoy(plain)
	e.count(0, 0, 3)
	e.others = 1000
	report, err := Run(t.Context(), e.start(t), true)
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; g.Answer.By != "numbers" || g.Answer.Passing || report.Fine() || len(g.Unknown) == 0 ||
		!strings.Contains(g.Unknown[len(g.Unknown)-1], "other clients probe it too often") {
		t.Errorf("got %+v, %+v", g, g.Probe)
	}
}

// The gate's own stats stand in the namespace that the dynamic module's configuration names.
func TestStatsOfAGateAreFoundInAnyNamespace(t *testing.T) {
	t.Parallel()
	for _, namespace := range []string{"healthgate.", "dynamicmodulescustom.", "", "a.b.", "dynamicmodulescustom.healthgate."} {
		t.Run(namespace, func(t *testing.T) {
			e := newFakeEnvoy(`{"clusters": ["service"], "hold": {"unhealthy_after": "10s"}}`)
			e.namespace = namespace
			e.count(0, 0, 3) // held, which the gauge shows
			admin := e.start(t)
			report, err := Run(t.Context(), admin, false)
			if err != nil || report.Gates[0].Answer.Details != "healthgate_held" {
				t.Errorf("%v: %+v", err, report.Gates[0].Answer)
			}
			e.answers = "failed failed_cluster_unhealthy"
			e.status = 503
			if report, err = Run(t.Context(), admin, true); err != nil ||
				report.Gates[0].Answer.Details != "healthgate_cluster_unhealthy" || !report.Gates[0].Probe.Counted {
				t.Errorf("%v: %+v", err, report.Gates[0].Answer)
			}
		})
	}
}

// If the gate has no stats, the numbers decide.
func TestNumbersDecideWithoutStatsOfTheGate(t *testing.T) {
	t.Parallel()
	e := newFakeEnvoy(plain)
	delete(e.stats, "healthgate.default.ok")
	delete(e.stats, "healthgate.default.failed")
	e.answers = ""
	report, err := Run(t.Context(), e.start(t), true)
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; g.Answer.By != "numbers" || g.Answer.Status != 200 || len(g.Unknown) != 1 ||
		!strings.HasPrefix(g.Unknown[0], "whether the gate answered the probe") {
		t.Errorf("got %+v", g)
	}
}

// A listener that was drained for good closes each connection, which balancers and clients pay for, though the gate passes.
func TestListenerThatDrainsIsAProblem(t *testing.T) {
	t.Parallel()
	e := newFakeEnvoy(plain)
	e.counting += " http.ingress.downstream_cx_drain_close"
	report, err := Run(t.Context(), e.start(t), true)
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; report.Fine() || !g.Answer.Passing || len(g.Problems) != 1 ||
		!strings.HasPrefix(g.Problems[0], "the listener drains") ||
		!strings.HasPrefix(g.Next, "restart Envoy") {
		t.Errorf("got %+v", g)
	}
	e.stats["server.live"], e.answers, e.status = 0, "failed failed_draining", 503
	if report, err = Run(t.Context(), e.start(t), true); err != nil || len(report.Gates[0].Problems) > 0 ||
		report.Gates[0].Answer.Details != "healthgate_draining" {
		t.Errorf("while it fails its health checks: %v, %+v", err, report.Gates[0])
	}
}

// A listener without a name is asked, and one whose transport socket is plain is asked without TLS.
func TestListenerIsProbedByItsProtocol(t *testing.T) {
	t.Parallel()
	const rawBuffer = `"typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}`
	for name, change := range map[string]func(*fakeEnvoy){
		"no name":           func(e *fakeEnvoy) { e.unnamed = true },
		"raw_buffer":        func(e *fakeEnvoy) { e.socket = `{"name": "plain", ` + rawBuffer + `}` },
		"raw_buffer's name": func(e *fakeEnvoy) { e.socket = `{"name": "envoy.transport_sockets.raw_buffer"}` },
		"raw_buffer in a tap": func(e *fakeEnvoy) {
			e.socket = `{"name": "tap", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap", "transport_socket": {"name": "plain", ` + rawBuffer + `}}}`
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFakeEnvoy(plain)
			change(e)
			report, err := Run(t.Context(), e.start(t), true)
			if err != nil {
				t.Fatal(err)
			}
			if g := report.Gates[0]; g.Answer.By != "probe" || !report.Fine() {
				t.Errorf("got %+v, %+v", g, g.Probe)
			}
		})
	}
}

const refusedListener = `, {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [{"name": "l1", %s
	"error_state": {"failed_configuration": {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l1", "filter_chains": [{"filters": [
	{"name": "hcm", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
	"http_filters": [{"name": "healthgate", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.Config", "plugin_name": "healthgate",
	"plugin_config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": {"clusters": ["service"], "min_helthy": 1}}}}]}}]}]},
	"last_update_attempt": "2026-05-04T09:12:44Z", "details": "a long text\nof it\n: Failed to parse"}}]}`

// Whatever keeps a gate from being there is said, with a next step, and never fine.
func TestMissingRefusedAndWarmingGatesAreProblems(t *testing.T) {
	for name, test := range map[string]struct {
		plugin, state, updates string
		problems               []string // how each begins
		notes                  []string
	}{
		"no gate": {"none", "LIVE", "", []string{"no gate is in its active configuration"}, nil},
		"not yet": {"none", "PRE_INITIALIZING", "", []string{"Envoy is PRE_INITIALIZING: its listeners are not open yet",
			"no gate is in"}, nil},
		"not yet open": {plain, "INITIALIZING", "", []string{"Envoy is INITIALIZING"}, nil},
		"refused": {"none", "LIVE", fmt.Sprintf(refusedListener, ""),
			[]string{`Envoy refused the newest configuration of listener "l1" at 2026-05-04T09:12:44Z, and has no other, so it does not listen there: Failed to parse (the gate in it: min_helthy: `, "no gate is in"}, nil},
		"an update refused": {plain, "LIVE", fmt.Sprintf(refusedListener, `"active_state": {"listener": {"name": "l1"}},`),
			[]string{`Envoy refused the newest configuration of listener "l1" at 2026-05-04T09:12:44Z, and keeps the one before: `}, nil},
		"warming": {"none", "LIVE", `, {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [{"name": "l1", "warming_state": {"listener": {"name": "l1"}}}]}`,
			[]string{`listener "l1" is warming: it does not listen yet`, "no gate is in"}, nil},
		"an update warms": {plain, "LIVE", `, {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [{"name": "l1", "active_state": {"listener": {"name": "l1"}}, "warming_state": {"listener": {"name": "l1"}}}]}`,
			nil, []string{`listener "l1" is warming: a newer configuration waits`}},
		"its cluster warms": {plain, "LIVE", `, {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_warming_clusters": [{"cluster": {"name": "service"}}]}`,
			[]string{`cluster "service" is warming: Envoy does not use it yet`}, nil},
		"another cluster warms": {plain, "LIVE", `, {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_warming_clusters": [{"cluster": {"name": "other"}}]}`, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFakeEnvoy(test.plugin)
			e.state, e.updates = test.state, test.updates
			report, err := Run(t.Context(), e.start(t), false)
			if err != nil {
				t.Fatal(err)
			}
			if report.Fine() != (len(test.problems)+len(report.Findings) == 0) || len(report.Problems) != len(test.problems) ||
				len(report.Notes) != len(test.notes) {
				t.Fatalf("problems %q, notes %q", report.Problems, report.Notes)
			}
			for i, want := range test.problems {
				if !strings.HasPrefix(report.Problems[i].What, want) || report.Problems[i].Next == "" {
					t.Errorf("problem %+v, want %q", report.Problems[i], want)
				}
			}
			for i, want := range test.notes {
				if !strings.HasPrefix(report.Notes[i], want) {
					t.Errorf("note %q, want %q", report.Notes[i], want)
				}
			}
		})
	}
}

// Refused updates of other kinds than listeners are known by counters alone, which do not say whether the newest was: a note.
func TestRefusedUpdatesAreNoted(t *testing.T) {
	e := newFakeEnvoy(plain)
	e.stats["http.ingress.rds.r1.update_rejected"], e.stats["cluster_manager.cds.update_rejected"] = 2, 0
	report, err := Run(t.Context(), e.start(t), false)
	if err != nil || len(report.Notes) != 1 || !strings.HasPrefix(report.Notes[0], "http.ingress.rds.r1.update_rejected is 2: ") ||
		!report.Fine() {
		t.Errorf("%v: %q", err, report.Notes)
	}
}

// What a cluster is says why it is empty, and how long recovery takes.
func TestNextStepDependsOnTheCluster(t *testing.T) {
	for name, test := range map[string]struct {
		cluster string // its configuration, in JSON
		hosts   []string
		want    string
	}{
		"an aggregate": {`{"name": "service", "cluster_type": {"name": "envoy.clusters.aggregate"}}`, nil,
			`cluster "service" is an aggregate, which has no hosts itself: name its parts`},
		"EDS": {`{"name": "service", "type": "EDS"}`, nil,
			`cluster "service" has no hosts: EDS has none, which is normal for a service scaled to 0`},
		"DNS": {`{"name": "service", "type": "STRICT_DNS"}`, nil, `cluster "service" has no hosts: its name does not resolve`},
		"static": {`{"name": "service", "type": "STATIC"}`, nil,
			`cluster "service" has no hosts: its load_assignment has no endpoints`},
		"checked idly": {`{"name": "service", "health_checks": [{"interval": "5s", "healthy_threshold": 3}]}`, []string{failed},
			`only once in 1m0s until it has traffic, and 3 checks must pass, so recovery takes up to 3m0s`},
		"checked idly too": {`{"name": "service", "health_checks": [{"interval": "5s", "no_traffic_interval": "10s", "healthy_threshold": 2}]}`,
			[]string{failed}, `recovery takes up to 20s`},
		"checked": {`{"name": "service", "health_checks": [{"interval": "5s", "no_traffic_interval": "5s", "healthy_threshold": 3}]}`,
			[]string{failed}, `whether this machine reaches it`},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFakeEnvoy(plain)
			e.updates = `, {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "static_clusters": [{"cluster": ` +
				test.cluster + `}]}`
			e.hosts = append([]string{}, test.hosts...)
			e.count(0, 0, uint64(len(test.hosts)))
			report, err := Run(t.Context(), e.start(t), false)
			if err != nil || !strings.Contains(report.Gates[0].Next, test.want) {
				t.Errorf("%v: %q, want %q", err, report.Gates[0].Next, test.want)
			}
			if name == "checked" && strings.Contains(report.Gates[0].Next, "recovery") {
				t.Errorf("%q", report.Gates[0].Next)
			}
		})
	}
}

// Envoy defines no stats for a route that is created after the dynamic module's filter: the filter's stats count its answers.
func TestRouteCountedByItsFilterHasAnswered(t *testing.T) {
	e := newFakeEnvoy("")
	// Of an older filter, that knew the route.
	e.stats["healthgate.late.ok"], e.stats["healthgate.late.failed"] = 3, 4
	served := []lint.Served{{Prefixes: []string{"late", "default"}, Path: "/"}}
	served[0].Config, _ = config.Decode(&structpb.Struct{Fields: map[string]*structpb.Value{
		"clusters": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("service")}}),
	}}, config.Module)
	admin := e.start(t)
	seen, err := observe(t.Context(), admin, &dump{served: served})
	if err != nil {
		t.Fatal(err)
	}
	gates := []Gate{seen.evaluate(served[0])}
	gates[0].Address = e.listener
	if seen.probe(t.Context(), admin, gates); gates[0].Answer.Details != "healthgate_ok" || gates[0].Answer.By != "probe" ||
		gates[0].Next != "" {
		t.Errorf("it is %+v, next %q", gates[0].Answer, gates[0].Next)
	}
}

// What the gate says of itself, where details are on, is since when.
func TestReportHasTheTimeOfTheLastChange(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"], "response": {"details": true}}`)
	e.body = `{"status": "pass", "since": "2026-05-04T09:12:44Z"}`
	report, err := Run(t.Context(), e.start(t), true)
	if err != nil || report.Gates[0].Answer.Since != "2026-05-04T09:12:44Z" {
		t.Errorf("%v: %+v", err, report.Gates[0].Answer)
	}
	if !report.Fine() || report.Version != "1.39.1" || report.Uptime != "1h0m0s" {
		t.Errorf("got %+v", report)
	}
}

func TestListenerThatCantBeReachedIsAProblem(t *testing.T) {
	t.Parallel()
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	e.status = 0
	report, err := Run(t.Context(), e.start(t), true)
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; g.Probe == nil || !strings.Contains(g.Probe.Error, "refused") || g.Answer.By != "numbers" ||
		len(g.Problems) != 1 ||
		!strings.HasPrefix(g.Next, "nothing listens there") || report.Fine() {
		t.Errorf("got %+v, %+v", g, g.Probe)
	}
	e.stats["listener_manager.listener_stopped"] = 1
	if report, err = Run(t.Context(), e.start(t), true); err != nil ||
		!strings.HasPrefix(report.Gates[0].Next, "restart Envoy: /drain_listeners has stopped its listeners") {
		t.Errorf("%v: %+v", err, report.Gates[0])
	}
	for name, test := range map[string]struct{ admin, listener, want string }{
		"every address":               {"127.0.0.1:9901", "0.0.0.0:8443", "127.0.0.1:8443"},
		"every address, IPv6":         {"unix:///admin.sock", "[::]:8443", "[::1]:8443 127.0.0.1:8443"},
		"every address, IPv6, remote": {"10.1.2.3:9901", "[::]:8443", "10.1.2.3:8443"},
		"every address of another":    {"10.1.2.3:9901", "0.0.0.0:8443", "10.1.2.3:8443"},
		"every address, by localhost": {"localhost:9901", "0.0.0.0:8443", "127.0.0.1:8443"},
		"one":                         {"127.0.0.1:9901", "10.1.2.3:8443", "10.1.2.3:8443"},
		"a socket":                    {"127.0.0.1:9901", "/dev/null", "/dev/null"},
		"an abstract socket":          {"127.0.0.1:9901", "@envoy", "@envoy"},
		"a socket of another machine": {"127.0.0.1:9901", "/nowhere/envoy.sock", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := reachable(test.admin, test.listener); strings.Join(got, " ") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// As in a container without IPv6: no server answers at ::1.
func TestListenerOfEveryAddressIsAlsoProbedByIPv4(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	admin := e.start(t)
	_, port, _ := net.SplitHostPort(e.listener)
	e.listener = "[::]:" + port
	report, err := Run(t.Context(), admin, true)
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; g.Answer.By != "probe" || g.Probe.Error != "" || !strings.Contains(g.Probe.URL, "127.0.0.1:"+port) {
		t.Errorf("got %+v, %+v", g.Answer, g.Probe)
	}
}

func TestWatchReportsEachChangeOnce(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	admin := e.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // less than maxAge
	defer cancel()
	reported := make(chan string)
	done := make(chan error)
	go func() {
		done <- Watch(ctx, admin, 10*time.Millisecond, func(c Change) error {
			if _, err := json.Marshal(c); err != nil || c.At.IsZero() {
				t.Errorf("%v: %+v", err, c)
			}
			reported <- c.String()
			return nil
		})
	}()
	expect := func(lines ...string) {
		t.Helper()
		for _, want := range lines {
			select {
			case got := <-reported:
				if got != want {
					t.Errorf("reported %q, want %q", got, want)
				}
			case <-ctx.Done():
				t.Fatalf("not reported: %q", want)
			}
		}
	}
	set := func(change func()) {
		e.mutex.Lock()
		defer e.mutex.Unlock()
		change()
	}
	const gate = "gate default (ingress/)"
	expect(gate+": 200 healthgate_ok", gate+" cluster service: 3 healthy and 0 degraded of 3 hosts")
	set(func() { e.count(0, 0, 3); e.hosts[1] = failed })
	expect(gate+": 503 healthgate_cluster_unhealthy, was 200 healthgate_ok",
		gate+" cluster service: 0 healthy and 0 degraded of 3 hosts, was 3 healthy and 0 degraded of 3 hosts",
		"cluster service host 10.0.0.2:8080: /failed_active_hc: it fails Envoy's health check")
	set(func() { e.broken = true })
	expect("admin: admin at " + admin.Address() + ": /server_info is answered with 500 Internal Server Error, was answers")
	set(func() { e.broken, e.hosts[1] = false, "{}" })
	expect("admin: answers, was admin at "+admin.Address()+": /server_info is answered with 500 Internal Server Error",
		"cluster service host 10.0.0.2:8080: healthy, or removed, was /failed_active_hc: it fails Envoy's health check")
	set(func() {
		e.plugin, e.stats["listener_manager.listener_modified"] = `{"clusters": ["service"], "stat_prefix": "other"}`, 1
	})
	expect(gate+": gone, was 503 healthgate_cluster_unhealthy", gate+" cluster service: gone, was 0 healthy and 0 degraded of 3 hosts",
		"gate other (ingress/): 503 healthgate_cluster_unhealthy", "gate other (ingress/) cluster service: 0 healthy and 0 degraded of 3 hosts")
	set(func() {
		e.updates = fmt.Sprintf(refusedListener, `"active_state": {"listener": {"name": "l1"}},`)
		e.stats["listener_manager.lds.update_rejected"] = 1
	})
	refused := (&refusal{name: "l1", at: "2026-05-04T09:12:44Z", details: "Failed to parse", replaces: true}).problem().What
	select {
	case got := <-reported:
		if !strings.HasPrefix(got, "problem: "+refused) {
			t.Errorf("reported %q, want the problem %q", got, refused)
		}
	case <-ctx.Done():
		t.Fatal("the refusal is not reported")
	}
	set(func() {
		e.updates = ""
		e.stats["listener_manager.listener_modified"] = 2
	})
	select {
	case got := <-reported:
		if !strings.HasPrefix(got, "no longer a problem: "+refused) {
			t.Errorf("reported %q, want the end of the problem", got)
		}
	case <-ctx.Done():
		t.Fatal("the end of the refusal is not reported")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case got := <-reported:
		t.Errorf("and then reported %q", got)
	}
}
