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

	"healthgate/filter"
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
}

// newFakeEnvoy has three healthy hosts.
func newFakeEnvoy(plugin string) *fakeEnvoy {
	e := &fakeEnvoy{plugin: plugin, enabled: true, state: "LIVE", hosts: []string{"{}", "{}", "{}"}, answers: "ok", status: 200}
	e.stats = map[string]uint64{"server.live": 1, "healthgate.default.healthy": 1, "healthgate.default.ok": 7, "healthgate.default.failed": 0}
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
		fmt.Fprintf(w, `{"listener_statuses": [{"name": "ingress", "local_address": %s}]}`, socket(e.listener))
	case "/stats":
		for name, value := range e.stats {
			fmt.Fprintf(w, "%s: %d\n", name, value)
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
	return `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [{"listener": {"name": "ingress", "filter_chains": [{"filters": [
		{"name": "hcm", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"name": "probe", "match": {"path": "/"}, "direct_response": {"status": 503}` + enabling + `}]}]},
		"http_filters": [{"name": "healthgate", "disabled": true, "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.Config",
		"library_id": "a", "library_path": "a", "plugin_name": "healthgate", "plugin_config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": ` + e.plugin + `}}}]}}]}]}}]}]}`
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

// explained are states of an Envoy with one gate, and what is to be said of them.
var explained = map[string]struct {
	plugin string
	change func(e *fakeEnvoy)
	status int
	reason string // what the numbers say
	asked  string // what the gate says, where that is another
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
	"too few per cent": {`{"clusters": [{"name": "service", "min_healthy_percent": 50}]}`, func(e *fakeEnvoy) {
		e.count(1, 0, 3)
		e.answers = "failed failed_cluster_unhealthy"
	}, 503, "healthgate_cluster_unhealthy", "", "the backends fail"},
	"it drains": {plain, func(e *fakeEnvoy) {
		e.state, e.stats["server.live"], e.answers = "DRAINING", 0, "failed failed_draining"
	}, 503, "healthgate_draining", "", "Envoy was told to fail its health checks"},
	"it drains, whatever hold says": {`{"clusters": ["service"], "hold": {"unhealthy_after": "10s"}}`, func(e *fakeEnvoy) {
		e.state, e.stats["server.live"], e.answers = "DRAINING", 0, "failed failed_draining"
	}, 503, "healthgate_draining", "", "Envoy was told to fail its health checks"},
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
	}, 503, "healthgate_cluster_empty", "", `Envoy has no cluster "service": a wrong name, or CDS has removed it; did you mean servise?`},
	"its gauges are left out": {plain, func(e *fakeEnvoy) {
		e.count(0, 0, 0)
		e.answers = "failed failed_cluster_empty"
	}, 503, "healthgate_cluster_empty", "", `cluster "service" has 3 hosts, and its gauges don't say so`},
	"the gauges of its only host are left out": {plain, func(e *fakeEnvoy) {
		e.count(0, 0, 0)
		e.hosts, e.answers = e.hosts[:1], "failed failed_cluster_empty"
	}, 503, "healthgate_cluster_empty", "", `cluster "service" has 1 hosts, and its gauges don't say so`},
	"by admin, no such cluster": {`{"clusters": ["service"], "source": "admin", "admin": {"address": "127.0.0.1:9901"}}`, func(e *fakeEnvoy) {
		e.hosts, e.answers = nil, "failed failed_cluster_unknown"
	}, 503, "healthgate_cluster_unknown", "", "Envoy has no such cluster"},
	"by admin, which counts hosts": {`{"clusters": ["service"], "source": "admin", "admin": {"address": "127.0.0.1:9901"}}`, func(e *fakeEnvoy) {
		e.hosts[0], e.hosts[1], e.hosts[2] = failed, failed, `{"eds_health_status": "UNHEALTHY"}`
		e.answers = "failed failed_cluster_unhealthy"
	}, 503, "healthgate_cluster_unhealthy", "", "the backends fail"},
	"held open": {`{"clusters": ["service"], "hold": {"unhealthy_after": "10s"}}`, func(e *fakeEnvoy) {
		e.count(0, 0, 3)
	}, 200, "healthgate_held", "healthgate_ok", "hold has it wait"},
	"held shut": {`{"clusters": ["service"], "hold": {"healthy_after": "10s"}}`, func(e *fakeEnvoy) {
		e.stats["healthgate.default.healthy"], e.answers = 0, "failed"
	}, 503, "healthgate_held", "", "hold has it wait"},
	"stale, which only the gate knows": {`{"clusters": ["service"], "stale_after": "10s"}`, func(e *fakeEnvoy) {
		e.answers, e.status = "failed failed_stale", 503
	}, 200, "healthgate_ok", "healthgate_stale", "nobody has checked the clusters"},
	"its configuration is bad": {`{"clusters": []}`, func(e *fakeEnvoy) { e.answers = "" }, 503, "healthgate_error", "", "mend its configuration"},
}

// What a probe is answered is said with its reason and the next step, by the numbers alone and when the gate is asked.
func TestAnswerIsExplained(t *testing.T) {
	for name, test := range explained {
		t.Run(name, func(t *testing.T) {
			e := newFakeEnvoy(test.plugin)
			if e.status = 200; test.status >= 400 {
				e.status = 503
			}
			test.change(e)
			admin := e.start(t)
			report, err := Look(t.Context(), admin, Options{})
			if err != nil || len(report.Gates) != 1 {
				t.Fatalf("%v: %+v", err, report)
			}
			g := report.Gates[0]
			if g.Answer.Status != test.status || g.Answer.Details != test.reason || g.Answer.Passing != (test.status == 200) || g.Answer.By != "numbers" {
				t.Errorf("by the numbers it is %+v", g.Answer)
			}
			if test.asked == "" && !strings.HasPrefix(g.Next, test.next) || (test.next == "") != (g.Next == "") && test.asked == "" {
				t.Errorf("the next step is %q", g.Next)
			}
			if report, err = Look(t.Context(), admin, Options{Probe: true}); err != nil {
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

func TestHostsThatFailAreNamedWithTheReason(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	e.hosts = []string{
		"{}", failed, `{"failed_outlier_check": true}`, `{"eds_health_status": "DRAINING"}`, `{"failed_active_degraded_check": true}`,
		`{"failed_active_health_check": true, "active_hc_timeout": true}`, `{"failed_active_health_check": true, "pending_active_hc": true}`,
	}
	report, err := Look(t.Context(), e.start(t), Options{})
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

// A gate that nobody asks, and one whose probes somebody else answers.
func TestGateThatIsNotAskedIsSaid(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	e.enabled, e.answers, e.status = false, "", 503
	report, err := Look(t.Context(), e.start(t), Options{Probe: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Findings) != 1 || report.Findings[0].Rule != "not-enabled" || report.Fine() {
		t.Errorf("lint found %v", report.Findings)
	}
	if next := report.Gates[0].Next; !strings.HasPrefix(next, "the gate was not asked: another route, filter or redirect has answered with 503") {
		t.Errorf("the next step is %q", next)
	}
}

// Envoy defines no stats for a route that comes to a dynamic module's filter later: its answers are counted by the filter's.
func TestRouteThatIsCountedByItsFilterWasAsked(t *testing.T) {
	e := newFakeEnvoy("")
	// Of an older filter, that knew the route.
	e.stats["healthgate.late.ok"], e.stats["healthgate.late.failed"] = 3, 4
	served := []lint.Served{{Prefixes: []string{"late", "default"}, Path: "/"}}
	served[0].Config, _ = filter.Decode(&structpb.Struct{Fields: map[string]*structpb.Value{
		"clusters": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("service")}}),
	}}, filter.Stock)
	admin := e.start(t)
	seen, err := observe(t.Context(), admin, served)
	if err != nil {
		t.Fatal(err)
	}
	g := seen.judge(served[0])
	g.Address = e.listener
	if seen.ask(t.Context(), admin, served[0], &g); g.Answer.Details != "healthgate_ok" || g.Answer.By != "probe" || g.Next != "" {
		t.Errorf("it is %+v, next %q", g.Answer, g.Next)
	}
}

// What the gate says of itself, where details are on, is since when.
func TestReportSaysSinceWhen(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"], "response": {"details": true}}`)
	e.body = `{"status": "pass", "since": "2026-05-04T09:12:44Z"}`
	report, err := Look(t.Context(), e.start(t), Options{Probe: true})
	if err != nil || report.Gates[0].Answer.Since != "2026-05-04T09:12:44Z" {
		t.Errorf("%v: %+v", err, report.Gates[0].Answer)
	}
	if !report.Fine() || report.Version != "1.39.1" || report.Uptime != "1h0m0s" {
		t.Errorf("got %+v", report)
	}
}

func TestListenerThatCantBeReachedIsSaid(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	e.status = 0
	report, err := Look(t.Context(), e.start(t), Options{Probe: true})
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; g.Probe == nil || !strings.Contains(g.Probe.Error, "refused") || g.Answer.By != "numbers" {
		t.Errorf("got %+v, %+v", g.Answer, g.Probe)
	}
	for name, test := range map[string]struct{ admin, listener, want string }{
		"every address":               {"127.0.0.1:9901", "0.0.0.0:8443", "127.0.0.1:8443"},
		"every address, IPv6":         {"unix:///admin.sock", "[::]:8443", "[::1]:8443 127.0.0.1:8443"},
		"every address, IPv6, remote": {"10.1.2.3:9901", "[::]:8443", "10.1.2.3:8443"},
		"every address of another":    {"10.1.2.3:9901", "0.0.0.0:8443", "10.1.2.3:8443"},
		"every address, by localhost": {"localhost:9901", "0.0.0.0:8443", "127.0.0.1:8443"},
		"one":                         {"127.0.0.1:9901", "10.1.2.3:8443", "10.1.2.3:8443"},
		"a socket":                    {"127.0.0.1:9901", "/run/envoy.sock", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := reachable(test.admin, test.listener); strings.Join(got, " ") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// As in a container without IPv6: nobody answers at ::1.
func TestListenerOfEveryAddressIsAskedByIPv4Too(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	admin := e.start(t)
	_, port, _ := net.SplitHostPort(e.listener)
	e.listener = "[::]:" + port
	report, err := Look(t.Context(), admin, Options{Probe: true})
	if err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; g.Answer.By != "probe" || g.Probe.Error != "" || !strings.Contains(g.Probe.URL, "127.0.0.1:"+port) {
		t.Errorf("got %+v, %+v", g.Answer, g.Probe)
	}
}

func TestWatchTellsEachChangeOnce(t *testing.T) {
	e := newFakeEnvoy(`{"clusters": ["service"]}`)
	admin := e.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // less than maxAge
	defer cancel()
	told := make(chan string)
	done := make(chan error)
	go func() {
		done <- Watch(ctx, admin, 10*time.Millisecond, func(c Change) error {
			if _, err := json.Marshal(c); err != nil || c.At.IsZero() {
				t.Errorf("%v: %+v", err, c)
			}
			told <- c.String()
			return nil
		})
	}()
	expect := func(lines ...string) {
		t.Helper()
		for _, want := range lines {
			select {
			case got := <-told:
				if got != want {
					t.Errorf("told %q, want %q", got, want)
				}
			case <-ctx.Done():
				t.Fatalf("not told: %q", want)
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
		"cluster service host 10.0.0.2:8080: serves, or is gone, was /failed_active_hc: it fails Envoy's health check")
	set(func() {
		e.plugin, e.stats["listener_manager.listener_modified"] = `{"clusters": ["service"], "stat_prefix": "other"}`, 1
	})
	expect(gate+": gone, was 503 healthgate_cluster_unhealthy", gate+" cluster service: gone, was 0 healthy and 0 degraded of 3 hosts",
		"gate other (ingress/): 503 healthgate_cluster_unhealthy", "gate other (ingress/) cluster service: 0 healthy and 0 degraded of 3 hosts")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case got := <-told:
		t.Errorf("and then told %q", got)
	}
}
