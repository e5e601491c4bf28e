package dynamicmodule

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

	"healthgate/filter/dynamicmodule/fakeenvoy"
	"healthgate/filter/version"
)

// loadLog is the log of Envoy after it has loaded the module twice.
var loadLog string

func TestVersionIsLoggedOnce(t *testing.T) {
	if want := "2 healthgate: " + version.String() + ", dynamic module\n"; loadLog != want {
		t.Errorf("the log has %q, want %q", loadLog, want)
	}
}

func TestMain(m *testing.M) {
	if !fakeenvoy.Load() || !fakeenvoy.Load() {
		panic("the module refuses to load")
	}
	loadLog = fakeenvoy.Log()
	// Without the bootstrap extension: once, before there is one.
	if fakeenvoy.NewFilter(`{"clusters": ["service"]}`) != nil || len(fakeenvoy.Lines("4 healthgate: the bootstrap extension is missing")) != 1 {
		panic("a filter without the bootstrap extension is taken, or not told of:\n" + fakeenvoy.Log())
	}
	if !fakeenvoy.Bootstrap("") {
		panic("the bootstrap extension is refused")
	}
	startSampling = func() {}
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

// tick lets the main thread run, and makes a pass.
func tick() {
	fakeenvoy.TimerFires()
	shared.tick()
}

// startServing begins with an Envoy that has one healthy cluster and serves.
func startServing(t *testing.T) {
	t.Helper()
	fakeenvoy.Reset()
	shared.sampler.clusters.reset()
	shared.pace = pace{}
	fakeenvoy.Gauge("server.live", 1)
	fakeenvoy.Gauge(workersStarted, 1)
	cluster("service", 1, 0, 1)
	cluster("other", 0, 0, 1)
	shared.sampler.pass(true)
	tick()
}

// reset forgets all clusters, as if Envoy had not started yet.
func (c *clusters) reset() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.reported, c.before, c.final = nil, nil, false
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
	wantDetails(t, probe(f), "healthgate_ok") // no pass since
	tick()
	r := probe(f)
	wantDetails(t, r, "healthgate_cluster_unhealthy")
	if r.Status != 503 || r.Text != "unavailable\n" || !strings.Contains(r.Headers, "cache-control: no-store\n") {
		t.Errorf("got %+v", r)
	}
	cluster("service", 0, 1, 1)
	tick()
	if r := probe(f); r.Status != 200 || !strings.Contains(r.Headers, "x-envoy-degraded: true\n") {
		t.Errorf("got %+v", r)
	}
	fakeenvoy.Gauge("server.live", 0)
	tick()
	if r := probe(f); r.Details != "healthgate_draining" || !strings.Contains(r.Headers, "x-envoy-immediate-health-check-fail: true\n") {
		t.Errorf("got %+v", r)
	}
	for name, want := range map[string]int64{
		"default.ok": 3, "default.failed": 2, "default.failed_cluster_unhealthy": 1, "default.failed_draining": 1, "default.failed_stale": 0,
		"default.transitions": 3, "default.healthy": 0, "default.nothing": -1,
	} {
		if got := f.Metric(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	if turned := fakeenvoy.Lines("2 healthgate: gate default changed from"); len(turned) != 3 {
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
	tick()
	wantDetails(t, probe(f), "healthgate_ok")
	wantDetails(t, probe(late), "healthgate_ok")
}

func TestConfigurationIsRefusedWithAllErrors(t *testing.T) {
	startServing(t)
	for config, want := range map[string]string{
		``:                              "filter_config: is required, with at least clusters: [service]",
		`{}`:                            "clusters: is required",
		`clusters: [service]`:           "filter_config: can't be read",
		`[]`:                            "filter_config: can't be read",
		`{"clusters": [], "paht": "/"}`: "clusters: is empty; name at least one cluster, or set drain: ignore for a gate that fails only if Envoy's main thread hangs; paht: unknown key, did you mean path?",
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
	tick()
	wantDetails(t, at(route, "/other"), "healthgate_ok")
	if f.Metric("other.ok") != 1 || f.Metric("other.healthy") != 1 || f.Metric("default.ok") != 1 {
		t.Errorf("the stats are other's")
	}
}

// Envoy defines no stats once the filter is made.
func TestRouteThatCameLateIsCountedByItsFilter(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	probe(f)
	route := newRoute(t, `{"stat_prefix": "late", "grpc_services": ["a"]}`)
	for range 2 {
		wantDetails(t, f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: "/"}), "healthgate_ok")
	}
	if f.Metric("default.ok") != 3 || f.Metric("default.healthy") != 1 {
		t.Errorf("default.ok is %d", f.Metric("default.ok"))
	}
	if lines := fakeenvoy.Lines("3 healthgate: a route override with stat_prefix late came after"); len(lines) != 1 {
		t.Errorf("the log has %s", fakeenvoy.Log())
	}
	failing := newRoute(t, `{"stat_prefix": "later", "clusters": ["other"]}`)
	wantDetails(t, f.Ask(fakeenvoy.Request{Route: failing, Method: "GET", Path: "/"}), "healthgate_cluster_unhealthy")
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
	gates, active, stats := len(shared.gates), len(shared.active), len(shared.sampler.gauges)
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
	tick()
	if len(shared.gates) != gates || len(shared.active) != active || len(shared.sampler.gauges) != stats {
		t.Errorf("%d gates, %d active and %d gauges are left, of %d, %d and %d", len(shared.gates), len(shared.active), len(shared.sampler.gauges),
			gates, active, stats)
	}
	if len(shared.filters) != 0 || len(shared.routes) != 0 || len(shared.prefixes) != 0 {
		t.Errorf("%d filters, %d routes and %d prefixes are left", len(shared.filters), len(shared.routes), len(shared.prefixes))
	}
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
	wantDetails(t, probe(f), "healthgate_ok")
	g := shared.active[len(shared.active)-1]
	core := g.core
	g.core = nil
	g.evaluate(0)
	g.core = core
	wantDetails(t, probe(f), "healthgate_error")
	if lines := fakeenvoy.Lines("4 healthgate: panic in an evaluation, answered with 503"); len(lines) != 1 {
		t.Errorf("the log has %s", fakeenvoy.Log())
	}
	if f.Metric("default.failed_error") != 1 {
		t.Error("it is not counted")
	}
	g.evaluate(0)
	wantDetails(t, probe(f), "healthgate_ok")
}

// The stats of the prefix "default" are there whatever filters there are; those of another prefix are its filter's own.
func TestStatsOfTheDefaultPrefixAreShared(t *testing.T) {
	startServing(t)
	one, two := newFilter(t, `{"clusters": ["service"]}`), newFilter(t, `{"clusters": ["service"]}`)
	other, another := newFilter(t, `{"clusters": ["service"], "stat_prefix": "x"}`), newFilter(t, `{"clusters": ["service"], "stat_prefix": "x"}`)
	for _, f := range []*fakeenvoy.Filter{one, two, other, another} {
		wantDetails(t, probe(f), "healthgate_ok")
	}
	if got := one.Metric("default.ok"); got != 2 {
		t.Errorf("default.ok is %d, want 2", got)
	}
	if got, unset := other.Metric("x.ok"), one.Metric("x.ok"); got != 1 || unset != -1 {
		t.Errorf("x.ok is %d and %d, want it of its filters only", got, unset)
	}
}

// Of the gates with one prefix the newest writes the gauge.
func TestNewestGateOfAPrefixWritesItsGauge(t *testing.T) {
	startServing(t)
	old := newFilter(t, `{"clusters": ["service"]}`)
	young := fakeenvoy.NewFilter(`{"clusters": ["other"]}`)
	probe(young)
	probe(old) // its gate is created later
	for i := range uint64(2) {
		cluster("service", i, 0, 1)
		tick()
		if got := old.Metric("default.healthy"); got != 0 {
			t.Errorf("healthy is %d: the older gate has written it", got)
		}
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
	tick()
	wantDetails(t, probe(f), "healthgate_ok")
	defer tick()
	setSampledAt(sinceBoot() - 6*time.Second)
	wantDetails(t, probe(f), "healthgate_ok") // a process that was stopped goes on so
	deadline := time.Now().Add(10 * time.Second)
	r := probe(f)
	for r.Status == 200 && time.Now().Before(deadline) {
		r = probe(f)
	}
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
		tick()
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

// A probe's path is C's, but for a gate's first probe and for a report.
func TestNoProbeCallsGo(t *testing.T) {
	for file, want := range map[string][]string{"probe.c": {"healthgateReport"}, "gate.c": {"healthgateFirstProbe"}, "age.c": nil, "metric.c": nil, "stream.c": nil} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if calls := regexp.MustCompile(`healthgate[A-Z]\w+`).FindAllString(string(source), -1); !slices.Equal(calls, want) {
			t.Errorf("%s calls %v", file, calls)
		}
	}
}

// One tick is for all names that come in one turn of Envoy's event loop, and none is for names that are sampled already.
func TestOnePassIsForAllNewNames(t *testing.T) {
	startServing(t)
	before := fakeenvoy.Passes()
	for i := range 50 {
		newFilter(t, fmt.Sprintf(`{"clusters": ["new%d"], "stat_prefix": "p%d"}`, i, i))
		newRoute(t, fmt.Sprintf(`{"clusters": ["route%d"]}`, i))
	}
	if n := fakeenvoy.Passes() - before; n != 0 {
		t.Errorf("%d passes while configurations are made", n)
	}
	if len(shared.sampler.wanted) != 1 {
		t.Error("no pass is asked for")
	}
	tick()
	if n := fakeenvoy.Passes() - before; n != 1 {
		t.Errorf("%d passes for all new names", n)
	}
}

func TestFirstProbeSamplesOnlyIfNoPassHasCoveredItsGate(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	before := fakeenvoy.Passes()
	for i, want := range []int{1, 1, 1} {
		wantDetails(t, probe(f), "healthgate_ok")
		if n := fakeenvoy.Passes() - before; n != want {
			t.Errorf("%d passes by probe %d, want %d", n, i, want)
		}
	}
	covered := newFilter(t, `{"clusters": ["other"]}`)
	tick()
	before = fakeenvoy.Passes()
	wantDetails(t, probe(covered), "healthgate_cluster_unhealthy")
	if n := fakeenvoy.Passes() - before; n != 0 {
		t.Errorf("%d passes for a gate that the last tick has covered", n)
	}
}

// The first probe of an Envoy that has just started is answered by what is true then.
func TestFirstProbeSamplesWhileEnvoyStarts(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	fakeenvoy.Gauge(workersStarted, 0)
	defer shared.started.Store(true)
	shared.started.Store(false)
	tick() // before the workers start
	cluster("service", 0, 0, 1)
	wantDetails(t, probe(f), "healthgate_cluster_unhealthy")
	if !shared.started.Load() {
		t.Error("a probe has come, so the workers have started")
	}
}

func TestGateThatNoProbeHasComeToWritesNothing(t *testing.T) {
	startServing(t)
	warming := newFilter(t, `{"clusters": ["other"]}`)
	tick()
	tick()
	if n := len(fakeenvoy.Lines("starts with")); n != 0 || warming.Metric("default.healthy") != 0 {
		t.Errorf("%d lines, the gauge is %d", n, warming.Metric("default.healthy"))
	}
	probe(warming)
	if n := len(fakeenvoy.Lines("starts with 503")); n != 1 {
		t.Errorf("%d lines after the first probe", n)
	}
}

// Gates whose stats stay as they are cost nothing at a tick.
func TestOnlyGatesWithChangedStatsAreEvaluated(t *testing.T) {
	startServing(t)
	quiet, moving := newFilter(t, `{"clusters": ["service"], "stat_prefix": "a"}`), newFilter(t, `{"clusters": ["other"], "stat_prefix": "b"}`)
	held := newFilter(t, `{"clusters": ["other"], "stat_prefix": "c", "hold": {"healthy_after": "1000s"}}`)
	for _, f := range []*fakeenvoy.Filter{quiet, moving, held} {
		probe(f)
	}
	passOf := func() (passes [3]uint64) {
		for i, g := range shared.active[len(shared.active)-3:] {
			passes[i] = g.pass
		}
		return passes
	}
	before := passOf()
	tick()
	if got := passOf(); got != before {
		t.Errorf("nothing has changed, and gates were evaluated: %v, %v", before, got)
	}
	cluster("other", 1, 0, 1)
	tick()
	once := passOf()
	if once[0] != before[0] || once[1] == before[1] || once[2] == before[2] {
		t.Errorf("other has changed: %v, %v", before, once)
	}
	tick()
	if got := passOf(); got[0] != once[0] || got[1] != once[1] || got[2] == once[2] {
		t.Errorf("a held change is looked after at each tick, and nothing else: %v, %v", once, got)
	}
}

// A route that was there, went and comes again is answered by what is true then, also under the filter that lived on.
func TestOverrideThatComesAgainSeesItsCluster(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	ask := func(route *fakeenvoy.Route) fakeenvoy.Request {
		return f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: "/"})
	}
	cluster("other", 1, 0, 1)
	route := fakeenvoy.NewRoute(`{"clusters": ["other"]}`)
	wantDetails(t, ask(route), "healthgate_ok")
	route.Free()
	tick()
	again := newRoute(t, `{"clusters": ["other"]}`)
	wantDetails(t, ask(again), "healthgate_ok")
	cluster("other", 0, 0, 1)
	tick()
	wantDetails(t, ask(again), "healthgate_cluster_unhealthy")
}

// The hold of a route goes on in the override that Envoy has built anew, and that of a filter in the next one.
func TestHoldOutlivesAnUpdate(t *testing.T) {
	startServing(t)
	const hold = `"hold": {"unhealthy_after": "1000s"}`
	f := newFilter(t, `{"clusters": ["service"], `+hold+`}`)
	ask := func(f *fakeenvoy.Filter, route *fakeenvoy.Route) fakeenvoy.Request {
		return f.Ask(fakeenvoy.Request{Route: route, Method: "GET", Path: "/"})
	}
	route := fakeenvoy.NewRoute(`{"clusters": ["service"], "drain": "ignore"}`)
	wantDetails(t, ask(f, route), "healthgate_ok")
	wantDetails(t, ask(f, nil), "healthgate_ok")
	cluster("service", 0, 0, 1)
	tick()
	next := newRoute(t, `{"clusters": ["service"], "drain": "ignore"}`)
	route.Free()
	wantDetails(t, ask(f, next), "healthgate_held")
	wantDetails(t, ask(newFilter(t, `{"clusters": ["service"], `+hold+`}`), nil), "healthgate_held")
	wantDetails(t, ask(newFilter(t, `{"clusters": ["service"], "hold": {"unhealthy_after": "999s"}}`), nil), "healthgate_cluster_unhealthy")
}

func TestWatchersOfAReplacedConfigurationAreEnded(t *testing.T) {
	const a, b = `{"clusters": ["service"], "grpc_services": ["a"]}`, `{"clusters": ["other"], "grpc_services": ["a"]}`
	for name, test := range map[string]struct {
		route string // that the watched stream has, "" for none
		next  func(t *testing.T)
		ends  bool
	}{
		"a filter with another configuration":   {"", func(t *testing.T) { newFilter(t, b) }, true},
		"a filter with the same configuration":  {"", func(t *testing.T) { newFilter(t, a) }, false},
		"a filter with another stat_prefix":     {"", func(t *testing.T) { newFilter(t, `{"clusters": ["other"], "stat_prefix": "x"}`) }, false},
		"an override, under another filter":     {`{"drain": "ignore"}`, func(t *testing.T) { newFilter(t, b) }, true},
		"an override that says something else":  {`{"drain": "ignore"}`, func(t *testing.T) { newRoute(t, `{"clusters": ["other"]}`) }, true},
		"an override that says the same":        {`{"drain": "ignore"}`, func(t *testing.T) { newRoute(t, `{"drain": "ignore"}`); newRoute(t, `{"path": "/x"}`) }, false},
		"an override of another prefix":         {`{"drain": "ignore"}`, func(t *testing.T) { newRoute(t, `{"stat_prefix": "x"}`) }, false},
		"an override, if the stream is without": {"", func(t *testing.T) { newRoute(t, `{"clusters": ["other"]}`) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			startServing(t)
			f := newFilter(t, a)
			request := fakeenvoy.Request{Method: "POST", Path: "/grpc.health.v1.Health/Watch", ContentType: "application/grpc", Body: "\x00\x00\x00\x00\x00"}
			if test.route != "" {
				request.Route = newRoute(t, test.route)
			}
			s := f.Open(request)
			defer s.Free()
			shared.endReplaced(time.Now().Add(time.Minute)) // the first configuration's own
			test.next(t)
			shared.endReplaced(time.Now()) // too early
			tick()
			s.Run()
			if got := s.Request().Trailers; got != "" {
				t.Fatalf("ended before the update was effective: %q", got)
			}
			shared.endReplaced(time.Now().Add(2 * supersedeAfter))
			tick()
			notifyWatchers()
			s.Run()
			if got := s.Request().Trailers == "grpc-status: 14\n"; got != test.ends {
				t.Errorf("ended: %v, want %v", got, test.ends)
			}
		})
	}
}

func TestEndlessUpdatesDoNotDelayTheEndOfWatchers(t *testing.T) {
	u, now, due := updates{}, time.Now(), 0
	for range 100 {
		u.add(now)
		if now = now.Add(supersedeAfter / 10); u.takeDue(now) {
			due++
		}
	}
	if due < 9 {
		t.Errorf("it was due %d times in ten seconds", due)
	}
}
