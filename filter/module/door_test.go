package module

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/module/fakeenvoy"
)

func TestMain(m *testing.M) {
	// Without the bootstrap extension: once, before there is one.
	if fakeenvoy.NewFilter(`{"clusters": ["service"]}`) != nil || len(fakeenvoy.Lines("4 healthgate: the bootstrap extension is missing")) != 1 {
		panic("a filter without the bootstrap extension is taken, or not told of:\n" + fakeenvoy.Log())
	}
	if !fakeenvoy.Bootstrap("") {
		panic("the bootstrap extension is refused")
	}
	fakeenvoy.ServerInitialized()
	os.Exit(m.Run())
}

// cluster sets the gauges of a cluster.
func cluster(name string, healthy, degraded, total uint64) {
	fakeenvoy.Gauge("cluster."+name+".membership_healthy", healthy)
	fakeenvoy.Gauge("cluster."+name+".membership_degraded", degraded)
	fakeenvoy.Gauge("cluster."+name+".membership_total", total)
	fakeenvoy.Gauge("cluster."+name+".membership_excluded", 0)
}

// startServing begins with an Envoy that has one healthy cluster and serves.
func startServing(t *testing.T) {
	t.Helper()
	fakeenvoy.Reset()
	fakeenvoy.Gauge("server.live", 1)
	fakeenvoy.Gauge(workersStarted, 1)
	cluster("service", 1, 0, 1)
	fakeenvoy.TimerFires()
}

func newFilter(t *testing.T, config string) *fakeenvoy.Filter {
	t.Helper()
	f := fakeenvoy.NewFilter(config)
	if f == nil {
		t.Fatalf("%s is refused:\n%s", config, fakeenvoy.Log())
	}
	t.Cleanup(f.Free)
	return f
}

func newRoute(t *testing.T, config string) *fakeenvoy.Route {
	t.Helper()
	r := fakeenvoy.NewRoute(config)
	if r == nil {
		t.Fatalf("%s is refused:\n%s", config, fakeenvoy.Log())
	}
	t.Cleanup(r.Free)
	return r
}

func probe(f *fakeenvoy.Filter) fakeenvoy.Request {
	return f.Ask(fakeenvoy.Request{Method: "GET", Path: "/"})
}

func wantDetails(t *testing.T, r fakeenvoy.Request, want string) {
	t.Helper()
	if r.Details != want {
		t.Errorf("got %d %q, want %q", r.Status, r.Details, want)
	}
}

// A configuration that comes is answered by what is true then, before the timer has fired.
func TestAnswersFollowTheGauges(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	wantDetails(t, probe(f), "healthgate_ok")
	cluster("service", 0, 0, 1)
	wantDetails(t, probe(f), "healthgate_ok") // nobody has looked
	fakeenvoy.TimerFires()
	r := probe(f)
	wantDetails(t, r, "healthgate_cluster_unhealthy")
	if r.Status != 503 || r.Text != "unavailable\n" || !strings.Contains(r.Headers, "cache-control: no-store\n") {
		t.Errorf("got %+v", r)
	}
	cluster("service", 0, 1, 1)
	fakeenvoy.TimerFires()
	if r := probe(f); r.Status != 200 || !strings.Contains(r.Headers, "x-envoy-degraded: true\n") {
		t.Errorf("got %+v", r)
	}
	fakeenvoy.Gauge("server.live", 0)
	fakeenvoy.TimerFires()
	if r := probe(f); r.Details != "healthgate_draining" || !strings.Contains(r.Headers, "x-envoy-immediate-health-check-fail: true\n") {
		t.Errorf("got %+v", r)
	}
	for name, want := range map[string]int64{
		"default.ok": 3, "default.failed": 2, "default.failed_cluster_unhealthy": 1, "default.failed_draining": 1, "default.failed_stale": 0,
		"default.transitions": 3, "default.healthy": 0, "default.grpc_check": -1,
	} {
		if got := f.Metric(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	if turned := fakeenvoy.Lines("2 healthgate: gate default turns from"); len(turned) != 3 {
		t.Errorf("the log has %q", turned)
	}
}

// server.live that is kept and 0 is a drain, also for whoever has never seen the 1.
func TestDrainFromTheStart(t *testing.T) {
	startServing(t)
	fakeenvoy.Gauge("server.live", 0)
	wantDetails(t, probe(newFilter(t, `{"clusters": ["service"]}`)), "healthgate_draining")
}

func TestRemovedClusterIsUnknownAtOnce(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": [{"name": "service", "min_healthy": 0}]}`)
	fakeenvoy.Cluster("another", true)
	wantDetails(t, probe(f), "healthgate_ok")
	fakeenvoy.Cluster("service", true) // its gauges stay
	wantDetails(t, probe(f), "healthgate_cluster_unknown")
	late := newFilter(t, `{"clusters": ["service"], "stat_prefix": "late"}`)
	wantDetails(t, probe(late), "healthgate_cluster_unknown")
	fakeenvoy.Cluster("service", false)
	fakeenvoy.TimerFires()
	wantDetails(t, probe(f), "healthgate_ok")
	wantDetails(t, probe(late), "healthgate_ok")
}

func TestManyRemovedClustersAreForgotten(t *testing.T) {
	s := &sampler{}
	asked := s.removed("asked")
	for i := range 3 * mostClusters {
		s.life(fmt.Sprint(i), true)
	}
	if len(s.clusters) > mostClusters {
		t.Errorf("%d are remembered", len(s.clusters))
	}
	if s.life("asked", true); asked.Get() != 1 {
		t.Error("the one that is asked for was forgotten")
	}
}

func TestConfigurationIsRefusedWithAllErrors(t *testing.T) {
	startServing(t)
	for config, want := range map[string]string{
		``:                              "filter_config: is required, with at least clusters: [service]",
		`{}`:                            "clusters: is required",
		`clusters: [service]`:           "filter_config: can't be read",
		`[]`:                            "filter_config: can't be read",
		`{"clusters": [], "paht": "/"}`: "clusters: is empty; name at least one cluster, or set drain: ignore for a gate that only says whether the main thread lives; paht: unknown key, did you mean path?",
	} {
		fakeenvoy.Reset()
		if f := fakeenvoy.NewFilter(config); f != nil {
			t.Errorf("%s is taken", config)
			f.Free()
		}
		if lines := fakeenvoy.Lines(""); len(lines) != 1 || !strings.HasPrefix(lines[0], "4 healthgate: "+want) {
			t.Errorf("%s: the log has %q", config, lines)
		}
	}
	fakeenvoy.Reset()
	if fakeenvoy.NewRoute(`{"paht": "/"}`) != nil || len(fakeenvoy.Lines("4 healthgate: paht: unknown key")) != 1 {
		t.Errorf("a bad route is taken, or not told of: %s", fakeenvoy.Log())
	}
}

// A Struct comes as JSON, a StringValue as it was written, and in Envoy 1.38 a route's Struct as it is on the wire.
func TestFormsOfAConfiguration(t *testing.T) {
	const config = `{"clusters": ["service"]}`
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(config), s); err != nil {
		t.Fatal(err)
	}
	wire, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unpack([]byte{1 << 3, 1}); err == nil { // a google.protobuf.Duration
		t.Errorf("another message is read as %v", got)
	}
	for _, form := range []string{config, "\n  { \"clusters\":\n [\"service\"] }\n", string(wire)} {
		if got, err := unpack([]byte(form)); err != nil || !proto.Equal(got, s) {
			t.Errorf("%q: got %v, %v", form, got, err)
		}
	}
}

func TestRouteOverridesItsFilter(t *testing.T) {
	startServing(t)
	cluster("other", 0, 0, 1)
	route := newRoute(t, `{"clusters": ["other"], "path": "/other", "stat_prefix": "other"}`)
	enables := newRoute(t, ``)
	f := newFilter(t, `{"clusters": ["service"]}`)
	at := func(route *fakeenvoy.Route, path string) fakeenvoy.Request {
		return f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: path})
	}
	wantDetails(t, at(enables, "/"), "healthgate_ok")
	wantDetails(t, at(route, "/other"), "healthgate_cluster_unhealthy")
	if at(route, "/").Answered {
		t.Error("the filter's path is answered on the route")
	}
	cluster("other", 1, 0, 1)
	fakeenvoy.TimerFires()
	wantDetails(t, at(route, "/other"), "healthgate_ok")
	if f.Metric("other.ok") != 1 || f.Metric("other.healthy") != 1 || f.Metric("default.ok") != 1 {
		t.Errorf("the stats are other's")
	}
}

// Envoy defines no stats once the filter is made.
func TestRouteThatCameLateIsCountedByItsFilter(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	route := newRoute(t, `{"stat_prefix": "late", "grpc_services": ["a"]}`)
	for range 2 {
		wantDetails(t, f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: "/"}), "healthgate_ok")
	}
	if f.Metric("default.ok") != 2 || f.Metric("default.healthy") != 1 {
		t.Errorf("default.ok is %d", f.Metric("default.ok"))
	}
	if lines := fakeenvoy.Lines("3 healthgate: a route's configuration with stat_prefix late came after"); len(lines) != 1 {
		t.Errorf("the log has %s", fakeenvoy.Log())
	}
	failing := newRoute(t, `{"stat_prefix": "later", "clusters": ["other"]}`)
	wantDetails(t, f.Ask(fakeenvoy.Request{Route: failing, Method: "GET", Path: "/"}), "healthgate_cluster_empty")
	if f.Metric("default.failed") != 1 || f.Metric("default.healthy") != 1 {
		t.Errorf("default.healthy is %d: it is the filter's own gate's", f.Metric("default.healthy"))
	}
	const check = "\x00\x00\x00\x00\x00"
	r := f.Ask(fakeenvoy.Request{Route: route, Method: "POST", Path: "/grpc.health.v1.Health/Check", ContentType: "application/grpc", Body: check})
	if r.Trailers != "grpc-status: 0\n" {
		t.Errorf("got %+v", r)
	}
}

func TestRouteThatDoesNotFitItsFilterFails(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	route := newRoute(t, `{"require": 2, "path": "/two"}`)
	for _, path := range []string{"/two", "/"} {
		wantDetails(t, f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: path}), "healthgate_error")
	}
	if f.Metric("default.failed_error") != 2 || len(fakeenvoy.Lines("4 healthgate: a route's configuration can't be used")) != 1 {
		t.Errorf("the log has %s", fakeenvoy.Log())
	}
}

func TestConfigurationsThatComeAndGoLeaveNothing(t *testing.T) {
	startServing(t)
	gates, stats := len(envoy.gates), len(envoy.sampler.gauges)
	for i := range 50 {
		route := fakeenvoy.NewRoute(fmt.Sprintf(`{"clusters": ["r%d"], "stat_prefix": "r"}`, i))
		f := fakeenvoy.NewFilter(fmt.Sprintf(`{"clusters": ["f%d"], "stale_after": "3s"}`, i))
		f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: "/"})
		if i%2 == 0 {
			route.Free()
			f.Free()
		} else {
			f.Free()
			route.Free()
		}
	}
	fakeenvoy.TimerFires()
	envoy.sampler.pass(true)
	if len(envoy.gates) != gates || len(envoy.sampler.gauges) != stats || len(envoy.sampler.counters) != 0 {
		t.Errorf("%d gates, %d gauges, %d counters are left, of %d and %d", len(envoy.gates), len(envoy.sampler.gauges),
			len(envoy.sampler.counters), gates, stats)
	}
	if len(envoy.filters) != 0 || len(envoy.routes) != 0 {
		t.Errorf("%d filters and %d routes are left", len(envoy.filters), len(envoy.routes))
	}
}

// The counters are many: they are passed over where stale_after asks for them, and otherwise once for a warning.
func TestCountersArePassedOverSeldom(t *testing.T) {
	startServing(t)
	_, before := fakeenvoy.Passes()
	f := newFilter(t, `{"clusters": ["service"]}`)
	for range 20 {
		fakeenvoy.TimerFires()
	}
	if _, after := fakeenvoy.Passes(); after != before {
		t.Errorf("%d passes over the counters that nobody asks for", after-before)
	}
	aging := newFilter(t, `{"clusters": ["service"], "stale_after": "4s", "stat_prefix": "aging"}`)
	for range 20 {
		fakeenvoy.TimerFires()
	}
	if _, after := fakeenvoy.Passes(); after != before+1 {
		t.Errorf("%d passes over the counters in no time", after-before)
	}
	wantDetails(t, probe(f), "healthgate_ok")
	wantDetails(t, probe(aging), "healthgate_ok")
}

func TestStaleCluster(t *testing.T) {
	startServing(t)
	fakeenvoy.Counter("cluster.service.health_check.attempt", 7)
	f := newFilter(t, `{"clusters": ["service"], "stale_after": "0.05s"}`)
	time.Sleep(60 * time.Millisecond) // nobody checks meanwhile
	fakeenvoy.TimerFires()
	wantDetails(t, probe(f), "healthgate_stale")
	fakeenvoy.Counter("cluster.service.health_check.attempt", 8)
	envoy.passCounters(time.Now())
	fakeenvoy.TimerFires()
	wantDetails(t, probe(f), "healthgate_ok")
}

func TestReportIsGoneFor(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"], "response": {"details": true}}`)
	r := f.Ask(fakeenvoy.Request{Method: "GET", Path: "/", Accept: "application/json"})
	if !strings.Contains(r.Text, `"service:membership"`) || !strings.Contains(r.Headers, "content-type: application/health+json\n") {
		t.Errorf("got %+v", r)
	}
	for _, accept := range []string{"", "*/*", "text/html"} {
		if r := f.Ask(fakeenvoy.Request{Method: "GET", Path: "/", Accept: accept}); r.Text != "ok\n" {
			t.Errorf("accept %q: got %+v", accept, r)
		}
	}
	if got := f.Metric("default.ok"); got != 4 {
		t.Errorf("ok is %d, want 4", got)
	}
}

func TestPanicPublishesAnError(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	g := envoy.gates[len(envoy.gates)-1]
	core := g.core
	g.core = nil
	fakeenvoy.TimerFires()
	g.core = core
	wantDetails(t, probe(f), "healthgate_error")
	if lines := fakeenvoy.Lines("4 healthgate: panic in a look at the clusters, answered with 503"); len(lines) != 1 {
		t.Errorf("the log has %s", fakeenvoy.Log())
	}
	if f.Metric("default.failed_error") != 1 {
		t.Error("it is not counted")
	}
	fakeenvoy.TimerFires()
	wantDetails(t, probe(f), "healthgate_ok")
}

// Of the gates with one prefix the newest writes the gauge.
func TestNewestGateOfAPrefixWritesItsGauge(t *testing.T) {
	startServing(t)
	old := newFilter(t, `{"clusters": ["service"]}`)
	cluster("other", 0, 0, 1)
	young := fakeenvoy.NewFilter(`{"clusters": ["other"]}`)
	cluster("service", 0, 0, 1)
	fakeenvoy.TimerFires()
	cluster("service", 1, 0, 1)
	fakeenvoy.TimerFires()
	if got := old.Metric("default.healthy"); got != 1 { // as it was when the younger came: the two are one in Envoy
		t.Errorf("healthy is %d", got)
	}
	if got := young.Metric("default.healthy"); got != 0 {
		t.Errorf("healthy of the younger is %d", got)
	}
	young.Free()
	if got := old.Metric("default.healthy"); got != 1 {
		t.Errorf("healthy is %d after the younger has gone", got)
	}
}

func TestLivenessGateAsksNothing(t *testing.T) {
	startServing(t)
	fakeenvoy.Gauge("server.live", 0)
	f := newFilter(t, `{"clusters": [], "drain": "ignore"}`)
	fakeenvoy.TimerFires()
	wantDetails(t, probe(f), "healthgate_ok")
	at := sampledAt()
	defer setSampledAt(at)
	setSampledAt(at - 6*time.Second)
	r := probe(f)
	wantDetails(t, r, "healthgate_stale")
	if f.Metric("default.failed_stale") != 1 || r.Status != 503 {
		t.Errorf("got %+v", r)
	}
}

func TestList(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"], "grpc_services": ["a.B"]}`)
	const path = "/grpc.health.v1.Health/List"
	r := f.Ask(fakeenvoy.Request{Method: "POST", Path: path, ContentType: "application/grpc", Body: "\x00\x00\x00\x00\x00"})
	want := "\x00\x00\x00\x00\x11" + "\x0a\x09\x0a\x03a.B\x12\x02\x08\x01" + "\x0a\x06\x0a\x00\x12\x02\x08\x01"
	if want = want[:4] + string(rune(len(want)-5)) + want[5:]; r.Data != want {
		t.Errorf("got %q, want %q", r.Data, want)
	}
	if f.Metric("default.grpc_check") != 1 || f.Metric("default.ok") != 0 {
		t.Error("it is not counted so")
	}
}

func TestWatchSeesEachChange(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"], "grpc_services": ["a.B"]}`)
	s := f.Open(fakeenvoy.Request{Method: "POST", Path: "/grpc.health.v1.Health/Watch", ContentType: "application/grpc", Body: "\x00\x00\x00\x00\x00"})
	defer s.Free()
	want := "\x00\x00\x00\x00\x02\x08\x01"
	for i := range 6 {
		cluster("service", uint64(i%2), 0, 1)
		fakeenvoy.TimerFires()
		s.Run()
		want += "\x00\x00\x00\x00\x02\x08" + string(rune(2-i%2))
	}
	if got := s.Request().Data; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if f.Metric("default.grpc_watchers") != 1 || f.Metric("default.grpc_watch") != 1 {
		t.Error("it is not counted so")
	}
}

func TestPace(t *testing.T) {
	for _, test := range []struct {
		took   time.Duration
		starts bool
		want   time.Duration
	}{
		{0, false, 50 * time.Millisecond},
		{time.Millisecond, false, 50 * time.Millisecond},
		{2 * time.Millisecond, false, 100 * time.Millisecond},
		{time.Minute, false, time.Second},
		{0, true, 2 * time.Millisecond},
		{15 * time.Millisecond, true, 15 * time.Millisecond},
		{time.Minute, true, time.Second},
	} {
		if got := next(test.took, test.starts); got != test.want {
			t.Errorf("after %v, starts %v: got %v, want %v", test.took, test.starts, got, test.want)
		}
	}
	for after, want := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Millisecond: 2 * time.Second, time.Minute: time.Minute} {
		if got := oldest(after); got != want {
			t.Errorf("stale_after %v: got %v, want %v", after, got, want)
		}
	}
}

func TestCountersArePassedOverFourTimesWithinTheAgeAllowed(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{0: time.Second, time.Second: time.Second, 4 * time.Second: time.Second, time.Minute: 15 * time.Second} {
		if got := countersEvery(after); got != want {
			t.Errorf("stale_after %v: got %v, want %v", after, got, want)
		}
	}
}

func TestWorkersThatHaveNotStartedAreWaitedForClosely(t *testing.T) {
	startServing(t)
	defer func() { envoy.starts = false }()
	envoy.starts = true
	fakeenvoy.Gauge(workersStarted, 0)
	if ms := fakeenvoy.TimerFires(); ms > 10 {
		t.Errorf("while Envoy starts: %d ms", ms)
	}
	fakeenvoy.Gauge(workersStarted, 1)
	if ms := fakeenvoy.TimerFires(); ms < 50 {
		t.Errorf("once it has started: %d ms", ms)
	}
	envoy.starts = true
	fakeenvoy.Remove(workersStarted) // nobody would ever see that they have
	if ms := fakeenvoy.TimerFires(); ms < 50 {
		t.Errorf("where the gauge is not kept: %d ms", ms)
	}
}

// A probe's path is C's, but for a report and for the first probe of a route's override.
func TestNoProbeCallsGo(t *testing.T) {
	source, err := os.ReadFile("probe.c")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`healthgate[A-Z]\w+`).FindAllString(string(source), -1)
	if !slices.Equal(calls, []string{"healthgateReport"}) {
		t.Errorf("probe.c calls %v", calls)
	}
}
