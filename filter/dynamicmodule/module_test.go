package dynamicmodule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/dynamicmodule/fakeenvoy"
)

type metrics = map[string]int64

func TestRepliesFollowTheGauges(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	wantDetails(t, probe(f), "healthgate_ok") // before the first tick
	setCluster("service", 0, 0, 1)
	wantDetails(t, probe(f), "healthgate_ok") // no pass since
	tick()
	r := probe(f)
	wantDetails(t, r, "healthgate_cluster_unhealthy")
	if r.Status != 503 || r.Text != "unavailable\n" || !strings.Contains(r.Headers, "cache-control: no-store\n") {
		t.Errorf("got %+v", r)
	}
	setCluster("service", 0, 1, 1)
	tick()
	if r := probe(f); r.Status != 200 || !strings.Contains(r.Headers, "x-envoy-degraded: true\n") {
		t.Errorf("got %+v", r)
	}
	fakeenvoy.Gauge("server.live", 0)
	tick()
	if r := probe(f); r.Details != "healthgate_draining" || !strings.Contains(r.Headers, "x-envoy-immediate-health-check-fail: true\n") {
		t.Errorf("got %+v", r)
	}
	wantMetrics(t, f, metrics{
		"default.ok": 3, "default.failed": 2, "default.failed_cluster_unhealthy": 1, "default.failed_draining": 1, "default.failed_stale": 0,
		"default.transitions": 3, "default.healthy": 0, "default.unknown": -1,
	})
	wantLines(t, "2 healthgate: gate default ", 4)
}

func TestRemovedClusterWithAltStatNameIsUnknown(t *testing.T) {
	startEnvoy(t)
	setCluster("alt", 1, 0, 1)
	shared.sampler.clusters.reset()
	shared.sampler.makePass(true)
	f := newFilter(t, `{"clusters": [{"name": "a", "stat_name": "alt"}]}`)
	wantDetails(t, probe(f), "healthgate_ok")
	fakeenvoy.Cluster("a", true)
	tick()
	wantDetails(t, probe(f), "healthgate_cluster_unknown")
}

// CDS adds a cluster after the workers have started, and it is still warming.
func TestWarmingClusterIsUnknown(t *testing.T) {
	startEnvoy(t)
	setCluster("warming", 1, 0, 1)
	tick()
	wantDetails(t, probe(newFilter(t, `{"clusters": ["warming"]}`)), "healthgate_cluster_unknown")
}

func TestInvalidConfigurationIsRefusedWithAllErrors(t *testing.T) {
	startEnvoy(t)
	newUnusableRoute := func(config string) bool { return fakeenvoy.NewRoute(config) == nil }
	newUnusableFilter := func(config string) bool { return fakeenvoy.NewFilter(config) == nil }
	for _, test := range []struct {
		refused      func(config string) bool
		config, want string
	}{
		{newUnusableFilter, ``, "filter_config: is required, with at least clusters: [service]"},
		{newUnusableFilter, `{}`, "clusters: is required"},
		{newUnusableFilter, `clusters: [service]`, "filter_config: can't be read"},
		{newUnusableFilter, `[]`, "filter_config: can't be read"},
		{newUnusableFilter, `{"clusters": [], "paht": "/"}`, "clusters: is empty; name at least one cluster, or set drain: ignore for a gate " +
			"that fails only if Envoy's main thread hangs; paht: unknown key, did you mean path?"},
		{newUnusableRoute, `{"paht": "/"}`, "paht: unknown key"},
	} {
		fakeenvoy.Reset()
		if !test.refused(test.config) {
			t.Errorf("%s is accepted", test.config)
		}
		if lines := fakeenvoy.Lines(""); len(lines) != 1 || !strings.HasPrefix(lines[0], "4 healthgate: "+test.want) {
			t.Errorf("%s: the log has %q", test.config, lines)
		}
	}
}

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
	if got, err := unpackConfig([]byte{1 << 3, 1}); err == nil { // a google.protobuf.Duration
		t.Errorf("another message is read as %v", got)
	}
	for _, form := range []string{config, "\n  { \"clusters\":\n [\"service\"] }\n", string(wire)} {
		if got, err := unpackConfig([]byte(form)); err != nil || !proto.Equal(got, s) {
			t.Errorf("%q: got %v, %v", form, got, err)
		}
	}
}

// Envoy defines no stats once it has created the filter.
func TestRouteCreatedAfterItsFilterIsCountedByTheFilter(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	probe(f)
	route := newRoute(t, `{"stat_prefix": "late", "grpc_services": ["a"]}`)
	for range 2 {
		wantDetails(t, probeOn(f, route, "/"), "healthgate_ok")
	}
	wantMetrics(t, f, metrics{"default.ok": 3, "default.healthy": 1})
	wantLines(t, "3 healthgate: a route override with stat_prefix late was created after", 1)
	wantDetails(t, probeOn(f, newRoute(t, `{"stat_prefix": "later", "clusters": ["other"]}`), "/"), "healthgate_cluster_unhealthy")
	wantMetrics(t, f, metrics{"default.failed": 1, "default.healthy": 1}) // the gauge belongs to the filter's own gate
	check := call("Check")
	check.Route = route
	if r := f.Ask(check); r.Trailers != "grpc-status: 0\n" {
		t.Errorf("got %+v", r)
	}
	wantMetrics(t, f, metrics{"default.grpc_check": 1})
}

// Each of many filters may be merged with each of many overrides.
func TestNumberOfStatsOfOverridesIsBounded(t *testing.T) {
	startEnvoy(t)
	before := shared.overrideStats
	shared.maxOverrideStats = before + 60
	defer func() { shared.maxOverrideStats = maxOverrideStats }()
	for i := range 3 {
		newRoute(t, fmt.Sprintf(`{"stat_prefix": "p%d"}`, i))
	}
	route := newRoute(t, `{"stat_prefix": "p0"}`)
	var filters []*fakeenvoy.Filter
	for range 4 {
		filters = append(filters, fakeenvoy.NewFilter(`{"clusters": ["service"]}`))
	}
	for i, f := range filters {
		wantDetails(t, probeOn(f, route, "/"), "healthgate_ok")
		want := metrics{"p0.ok": 1, "p1.ok": 0, "p2.ok": 0}
		if i >= 2 { // those before have 30 to 40 stats each
			want = metrics{"p0.ok": -1, "p1.ok": -1, "p2.ok": -1}
		}
		wantMetrics(t, f, want)
	}
	wantLines(t, "3 healthgate: a route override with stat_prefix p0, like others, has no stats, because all filters together", 1)
	for _, f := range filters {
		f.Free()
	}
	if shared.overrideStats != before {
		t.Errorf("%d stats are left, before %d", shared.overrideStats, before)
	}
	// The routes of a filter's own connection manager come just before it.
	newRoute(t, `{"stat_prefix": "own"}`)
	shared.overrideStats += 40
	defer func() { shared.overrideStats -= 40 }()
	wantMetrics(t, newFilter(t, `{"clusters": ["service"]}`), metrics{"own.ok": 0, "p0.ok": -1})
}

func TestRouteThatDoesNotFitItsFilterFails(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	route := newRoute(t, `{"require": 2, "path": "/two"}`)
	for _, path := range []string{"/two", "/"} {
		wantDetails(t, probeOn(f, route, path), "healthgate_error")
	}
	wantMetrics(t, f, metrics{"default.failed_error": 2})
	wantLines(t, "4 healthgate: a route's configuration can't be used", 1)
}

func TestDestroyedConfigurationsLeaveNothing(t *testing.T) {
	startEnvoy(t)
	count := func() [3]int { return [3]int{len(shared.gates), len(shared.active), len(shared.sampler.gauges)} }
	before := count()
	for i := range 50 {
		route := fakeenvoy.NewRoute(fmt.Sprintf(`{"clusters": ["r%d"], "stat_prefix": "r"}`, i))
		f := fakeenvoy.NewFilter(fmt.Sprintf(`{"clusters": ["f%d"], "stale_after": "3s"}`, i))
		probeOn(f, route, "/")
		first, second := route.Free, f.Free
		if i%2 == 0 {
			first, second = second, first
		}
		first()
		second()
	}
	tick()
	if got := count(); got != before {
		t.Errorf("gates, active gates and gauges are %v, before %v", got, before)
	}
	if len(shared.filters) != 0 || len(shared.routes) != 0 || len(shared.prefixes) != 0 {
		t.Errorf("%d filters, %d routes and %d prefixes are left", len(shared.filters), len(shared.routes), len(shared.prefixes))
	}
}

func TestReportIsSentToClientsThatAcceptJSON(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"], "response": {"details": true}}`)
	for accept, isReport := range map[string]bool{"application/json": true, "*/*": false, "": false} {
		if r := f.Ask(fakeenvoy.Request{Method: "GET", Path: "/", Accept: accept}); strings.Contains(r.Text, "membership") != isReport {
			t.Errorf("accept %q: got %+v", accept, r)
		}
	}
	wantMetrics(t, f, metrics{"default.ok": 3})
}

func TestPanicPublishesAnError(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	wantDetails(t, probe(f), "healthgate_ok")
	g := shared.active[len(shared.active)-1]
	core := g.core
	g.core = nil
	g.evaluate(0)
	g.core = core
	wantDetails(t, probe(f), "healthgate_error")
	wantLines(t, "4 healthgate: panic in an evaluation, answered with 503", 1)
	wantMetrics(t, f, metrics{"default.failed_error": 1})
	g.evaluate(0)
	wantDetails(t, probe(f), "healthgate_ok")
}

// With source admin the gate is created with its filter. A filter that was refused is not destroyed.
func TestPanicWhileAFilterIsCreatedLeavesNothing(t *testing.T) {
	startEnvoy(t)
	gauges := shared.sampler.gauges
	shared.sampler.gauges = nil // so that adding one panics
	f := fakeenvoy.NewFilter(`{"clusters": ["service"], "source": "admin", "admin": {"address": "unix:///none"}}`)
	shared.sampler.gauges = gauges
	if f != nil || len(shared.filters) != 0 || len(shared.gates) != 0 {
		t.Errorf("%v was created; %d filters and %d gates are left", f, len(shared.filters), len(shared.gates))
	}
	wantLines(t, "4 healthgate: panic in a filter's configuration: ", 1)
}

func TestStatsOfTheDefaultPrefixAreShared(t *testing.T) {
	startEnvoy(t)
	const byDefault, x = `{"clusters": ["service"]}`, `{"clusters": ["service"], "stat_prefix": "x"}`
	one, two, other, another := newFilter(t, byDefault), newFilter(t, byDefault), newFilter(t, x), newFilter(t, x)
	for _, f := range []*fakeenvoy.Filter{one, two, other, another} {
		wantDetails(t, probe(f), "healthgate_ok")
	}
	wantMetrics(t, one, metrics{"default.ok": 2, "x.ok": -1})
	wantMetrics(t, other, metrics{"x.ok": 1})
}

func TestLivenessGateFailsOnlyOnOldSamples(t *testing.T) {
	startEnvoy(t)
	fakeenvoy.Gauge("server.live", 0)
	f := newFilter(t, `{"clusters": [], "drain": "ignore"}`)
	tick()
	wantDetails(t, probe(f), "healthgate_ok")
	defer tick()
	setSampledAt(sinceBoot() - 6*time.Second)
	wantDetails(t, probe(f), "healthgate_ok") // not confirmed yet
	deadline := time.Now().Add(10 * time.Second)
	r := probe(f)
	for r.Status == 200 && time.Now().Before(deadline) {
		r = probe(f)
	}
	wantDetails(t, r, "healthgate_stale")
	if r.Status != 503 {
		t.Errorf("got %+v", r)
	}
	wantMetrics(t, f, metrics{"default.failed_stale": 1})
}
