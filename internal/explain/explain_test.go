package explain

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// fakeEnvoy is an Envoy with one gate: its admin, and the gate's listener. Cases in testdata set the exported fields.
type fakeEnvoy struct {
	Config    string             // the gate's configuration, in JSON; "" is an Envoy without a gate
	Disabled  bool               // no route enables the gate
	State     string             // of /server_info
	Count     []uint64           // the cluster's gauges: healthy, degraded, total
	Stats     map[string]*uint64 // more stats; null removes one
	Hosts     []map[string]any   // their health_status
	Unknown   bool               // Envoy has not the cluster, but one of a similar name
	Status    int                // of a probe's answer; 0 is a listener that does not answer
	Body      string             // of it
	Counters  string             // the gate's counters that a probe increases, spaced
	Counting  string             // Envoy's counters that a probe increases, spaced
	Namespace string             // of the gate's stats
	Socket    map[string]any     // the listener's transport_socket
	Unnamed   bool               // the listener has no name in the configuration
	Others    int                // probes of others, a second
	Updates   []map[string]any   // more entries of configs in the dump
	Dump      string             // the dump, if not "" instead of one with the gate
	Broken    bool               // admin answers 500

	mutex    sync.Mutex
	stats    map[string]uint64
	listener string    // where probes are answered
	began    time.Time // of the probes of others
	counted  uint64    // of these
	asked    []string  // paths
}

// newFakeEnvoy returns an Envoy with three healthy hosts, changed by a case in YAML.
func newFakeEnvoy(t *testing.T, change string) *fakeEnvoy {
	t.Helper()
	e := &fakeEnvoy{Config: `{"clusters": ["service"]}`, State: "LIVE", Hosts: []map[string]any{{}, {}, {}}, Status: 200, Counters: "ok",
		Namespace: "healthgate.", Counting: "http.ingress.downstream_rq_total"}
	decoder := yaml.NewDecoder(strings.NewReader(change))
	decoder.KnownFields(true)
	if err := decoder.Decode(e); err != nil && change != "" {
		t.Fatalf("%v in\n%s", err, change)
	}
	e.stats = map[string]uint64{"server.live": 1, "healthgate.default.healthy": 1, "healthgate.default.ok": 7, "healthgate.default.failed": 0,
		"http.ingress.downstream_rq_total": 3, "http.admin.downstream_rq_total": 9, "http.ingress.downstream_cx_drain_close": 0}
	if e.Count == nil {
		e.Count = []uint64{3, 0, 3}
	}
	for i, gauge := range []string{"healthy", "degraded", "total"} {
		e.stats["cluster.service.membership_"+gauge] = e.Count[i]
	}
	for name, value := range e.Stats {
		if delete(e.stats, name); value != nil {
			e.stats[name] = *value
		}
	}
	return e
}

func (e *fakeEnvoy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.asked = append(e.asked, r.URL.Path)
	if e.Broken {
		w.WriteHeader(500)
		return
	}
	switch r.URL.Path {
	case "/config_dump":
		fmt.Fprint(w, e.dump())
	case "/server_info":
		fmt.Fprintf(w, `{"version": "b579d0/1.39.1/Clean/RELEASE/BoringSSL", "state": %q, "uptime_current_epoch": "3600s"}`, e.State)
	case "/listeners":
		name := "ingress"
		if e.Unnamed {
			name = "0b6c1a52"
		}
		fmt.Fprintf(w, `{"listener_statuses": [{"name": %q, "local_address": %s}]}`, name, socket(e.listener))
	case "/stats":
		if e.began.IsZero() {
			e.began = time.Now()
		}
		if now := uint64(time.Since(e.began).Seconds() * float64(e.Others)); now > e.counted {
			e.stats["healthgate.default."+strings.Fields(e.Counters + " ok")[0]] += now - e.counted
			e.counted = now
		}
		e.stats["http.admin.downstream_rq_total"]++
		for name, value := range e.stats {
			fmt.Fprintf(w, "%s: %d\n", strings.Replace(name, "healthgate.", e.Namespace, 1), value)
		}
	case "/clusters":
		hosts := make([]string, len(e.Hosts))
		for i, health := range e.Hosts {
			hosts[i] = fmt.Sprintf(`{"address": %s, "health_status": %s}`, socket(fmt.Sprintf("10.0.0.%d:8080", i+1)), inJSON(health))
		}
		name := "service"
		if e.Unknown {
			name = "servise"
		}
		fmt.Fprintf(w, `{"cluster_statuses": [{"name": %q, "host_statuses": [%s]}]}`, name, strings.Join(hosts, ","))
	}
}

func socket(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`{"socket_address": {"address": %q, "port_value": %s}}`, host, port)
}

func inJSON(v any) string {
	text, _ := json.Marshal(v) // what YAML has
	return string(text)
}

func (e *fakeEnvoy) dump() string {
	if e.Dump != "" {
		return e.Dump
	}
	name, enabling, transport, updates := `"name": "ingress", `, "", "", ""
	if !e.Disabled {
		enabling = `, "typed_per_filter_config": {"healthgate": {
			"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}}`
	}
	if e.Unnamed {
		name = ""
	}
	if e.Socket != nil {
		transport = `"transport_socket": ` + inJSON(e.Socket) + ", "
	}
	for _, update := range e.Updates {
		updates += ", " + inJSON(update)
	}
	listeners := ""
	if e.Config != "" {
		listeners = `{"listener": {` + name + `"filter_chains": [{` + transport + `"filters": [{"name": "hcm", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
				{"name": "probe", "match": {"path": "/"}, "direct_response": {"status": 503}` + enabling + `}]}]},
			"http_filters": [{"name": "healthgate", "disabled": true, "typed_config": {
				"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.Config",
				"library_id": "a", "library_path": "a", "plugin_name": "healthgate",
				"plugin_config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": ` + e.Config + `}}}]}}]}]}}`
	}
	return `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [` + listeners + `]}` +
		updates + `]}`
}

// start has both listen, and returns a client of admin.
func (e *fakeEnvoy) start(t *testing.T) *envoyadmin.Client {
	t.Helper()
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mutex.Lock()
		defer e.mutex.Unlock()
		for _, counter := range strings.Fields(e.Counters) {
			e.stats["healthgate.default."+counter]++
		}
		for _, counter := range strings.Fields(e.Counting) {
			e.stats[counter]++
		}
		w.WriteHeader(e.Status)
		fmt.Fprint(w, e.Body)
	}))
	t.Cleanup(gate.Close)
	e.listener = gate.Listener.Addr().String()
	if e.Status == 0 {
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

var update = flag.Bool("update", false, "write what Run reports into testdata")

// Each case in testdata is an Envoy, and the report of it: by the numbers alone, and with probes.
func TestReports(t *testing.T) {
	const file = "testdata/cases.txtar"
	cases, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("cases", func(t *testing.T) {
		for i := 0; i < len(cases.Files); i += 2 {
			t.Run(cases.Files[i].Name, func(t *testing.T) {
				t.Parallel()
				e := newFakeEnvoy(t, string(cases.Files[i].Data))
				admin := e.start(t)
				got := reported(t, e, admin, false) + "with probes, " + reported(t, e, admin, true)
				if want := &cases.Files[i+1].Data; *update {
					*want = []byte(got)
				} else if got != string(*want) {
					t.Errorf("got\n%swant\n%s", got, *want)
				}
			})
		}
	})
	if *update {
		if err := os.WriteFile(file, txtar.Format(cases), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// reported returns the report of an Envoy as text, without times and ports.
func reported(t *testing.T, e *fakeEnvoy, admin *envoyadmin.Client, probe bool) string {
	t.Helper()
	r, err := Run(t.Context(), admin, probe)
	if err != nil {
		return fmt.Sprintf("error: %s, asked %q\n", strings.ReplaceAll(err.Error(), admin.Address(), "ADMIN"), e.asked)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("fine: %v; %s up %s", r.Fine(), r.Version, r.Uptime)
	for _, problem := range r.Problems {
		line("problem %s\n  next %s", problem.What, problem.Next)
	}
	for _, note := range r.Notes {
		line("note %s", note)
	}
	for _, g := range r.Gates {
		line("%d %s by %s since %q", g.Answer.Status, g.Answer.Details, g.Answer.By, g.Answer.Since)
		for _, c := range g.Clusters {
			line("  %s needs %s: %s", c.Name, c.Needs, c.Reason)
			for _, host := range c.Failing {
				line("    %s %s", host.Address, host.Why)
			}
		}
		if g.Probe != nil {
			line("  probe %s, counted: %v, error: %q", g.Probe.URL, g.Probe.Counted, g.Probe.Error)
		}
		for _, problem := range g.Problems {
			line("  problem %s", problem)
		}
		for _, unknown := range g.Unknown {
			line("  unknown %s", unknown)
		}
		if g.Next != "" {
			line("  next %s", g.Next)
		}
	}
	for _, finding := range r.Findings {
		line("lint %s", finding.Rule)
	}
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(b.String(), "LISTENER")
}

// Envoy defines no stats for a route that is created after the dynamic module's filter: the filter's stats count its answers.
func TestRouteCountedByItsFilterHasAnswered(t *testing.T) {
	// late is of an older filter, that knew the route.
	e := newFakeEnvoy(t, "stats: {healthgate.late.ok: 3, healthgate.late.failed: 4}")
	served := lint.Served{Prefixes: []string{"late", "default"}, Path: "/"}
	clusters, _ := structpb.NewStruct(map[string]any{"clusters": []any{"service"}})
	served.Config, _ = config.Decode(clusters, config.Module)
	admin := e.start(t)
	seen, err := readNumbers(t.Context(), admin, &dump{served: []lint.Served{served}})
	if err != nil {
		t.Fatal(err)
	}
	gates := []Gate{seen.evaluate(served)}
	gates[0].Address = e.listener
	if seen.probe(t.Context(), admin, gates); gates[0].Answer.Details != "healthgate_ok" || gates[0].Answer.By != "probe" ||
		gates[0].Next != "" {
		t.Errorf("it is %+v, next %q", gates[0].Answer, gates[0].Next)
	}
}

func TestAddressesOfAListenerFromHere(t *testing.T) {
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
	e := newFakeEnvoy(t, "")
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
	e := newFakeEnvoy(t, "")
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
	const gate, cluster = "gate default (ingress/)", "gate default (ingress/) cluster service"
	const fails = "/failed_active_hc: it fails Envoy's health check"
	broken := "admin at " + admin.Address() + ": /server_info is answered with 500 Internal Server Error"
	refused := `Envoy refused the newest configuration of listener "l1" at 2026-05-04T09:12:44Z, and keeps the one before: Failed to parse`
	for _, step := range []struct {
		change func()
		want   []string
	}{
		{func() {}, []string{gate + ": 200 healthgate_ok", cluster + ": 3 healthy and 0 degraded of 3 hosts"}},
		{func() {
			e.stats["cluster.service.membership_healthy"] = 0
			e.Hosts[1] = map[string]any{"failed_active_health_check": true}
		}, []string{gate + ": 503 healthgate_cluster_unhealthy, was 200 healthgate_ok",
			cluster + ": 0 healthy and 0 degraded of 3 hosts, was 3 healthy and 0 degraded of 3 hosts",
			"cluster service host 10.0.0.2:8080: " + fails}},
		{func() { e.Broken = true }, []string{"admin: " + broken + ", was answers"}},
		{func() { e.Broken, e.Hosts[1] = false, map[string]any{} }, []string{"admin: answers, was " + broken,
			"cluster service host 10.0.0.2:8080: healthy, or removed, was " + fails}},
		{func() {
			e.Config, e.stats["listener_manager.listener_modified"] = `{"clusters": ["service"], "stat_prefix": "other"}`, 1
		}, []string{gate + ": gone, was 503 healthgate_cluster_unhealthy", cluster + ": gone, was 0 healthy and 0 degraded of 3 hosts",
			"gate other (ingress/): 503 healthgate_cluster_unhealthy",
			"gate other (ingress/) cluster service: 0 healthy and 0 degraded of 3 hosts"}},
		{func() {
			e.Updates = []map[string]any{{"dynamic_listeners": []any{map[string]any{"name": "l1", "active_state": 1, "error_state": map[string]any{
				"last_update_attempt": "2026-05-04T09:12:44Z", "details": "a long text\nof it\n: Failed to parse"}}}}}
			e.stats["listener_manager.lds.update_rejected"] = 1
		}, []string{"problem: " + refused + "; next: fix the configuration: Envoy's log has the reason"}},
		{func() { e.Updates, e.stats["listener_manager.listener_modified"] = nil, 2 }, []string{"no longer a problem: " + refused}},
	} {
		e.mutex.Lock()
		step.change()
		e.mutex.Unlock()
		for _, want := range step.want {
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
