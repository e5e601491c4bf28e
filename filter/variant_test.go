package filter

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The dynamic module takes whatever the Go plugin takes, and means the same by it.
func TestDynamicModuleTakesWhatContribTakes(t *testing.T) {
	for _, test := range good {
		if strings.Contains(test.text, `"0.000000001s"`) { // TestShortStaleAfterIsRefusedByTheModule
			continue
		}
		plugin, err := Decode(parse(t, test.text), Plugin)
		if err != nil {
			t.Fatal(err)
		}
		module, err := Decode(parse(t, test.text), Module)
		if err != nil || !reflect.DeepEqual(plugin, module) {
			t.Errorf("%s: %v", test.text, err)
		}
	}
}

func TestShortStaleAfterIsRefusedByTheModule(t *testing.T) {
	for text, refused := range map[string]bool{
		`{"clusters": ["a"], "stale_after": "0.5s"}`:                                                                           true,
		`{"clusters": ["a"], "stale_after": "0.999999999s"}`:                                                                   true,
		`{"clusters": ["a"], "stale_after": "1s"}`:                                                                             false,
		`{"clusters": ["a"], "stale_after": "0s"}`:                                                                             false,
		`{"clusters": [], "drain": "ignore", "stale_after": "0.1s"}`:                                                           true,
		`{"clusters": ["a"], "stale_after": "0.5s", "source": "admin", "admin": {"address": "unix:///a", "interval": "0.1s"}}`: false,
	} {
		if _, err := Decode(parse(t, text), Module); (err != nil) != refused || refused && !strings.HasPrefix(err.Error(), "stale_after: ") {
			t.Errorf("%s: got %v", text, err)
		}
	}
	if _, err := Decode(parse(t, `{"clusters": ["a"], "stale_after": "0.5s"}`), Plugin); err != nil {
		t.Errorf("the Go plugin reads the counter as often: %v", err)
	}
}

var stockOnly = []struct {
	text     string
	services []string
	clusters int
	watchers int
}{
	{`{"clusters": ["a"], "grpc_services": ["b.B", "c.C"]}`, []string{"b.B", "c.C", ""}, 1, 10_000},
	{`{"clusters": ["a"], "grpc_services": [""]}`, []string{""}, 1, 10_000},
	{`{"clusters": ["a"], "grpc_services": [""], "grpc_max_watchers": 1}`, []string{""}, 1, 1},
	{`{"clusters": ["a"], "grpc_services": [""], "grpc_max_watchers": 1000000}`, []string{""}, 1, 1_000_000},
	{`{"clusters": [], "drain": "ignore"}`, nil, 0, 0},
	{`{"clusters": [], "drain": "ignore", "stale_after": "2s"}`, nil, 0, 0},
}

func TestWhatOnlyTheDynamicModuleCanDo(t *testing.T) {
	schema := compileSchema(t)
	for _, test := range stockOnly {
		t.Run(test.text, func(t *testing.T) {
			c, err := Decode(parse(t, test.text), Module)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(c.GRPCServices, test.services) || len(c.Clusters) != test.clusters || c.Require != test.clusters || c.GRPCMaxWatchers != test.watchers {
				t.Errorf("got %+v", c)
			}
			if _, err := Decode(parse(t, test.text), Plugin); err == nil || !strings.Contains(err.Error(), "is not supported by the Go plugin; use the dynamic module") {
				t.Errorf("the Go plugin says %v", err)
			}
			var value any
			if err := json.Unmarshal([]byte(test.text), &value); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(value); err != nil {
				t.Errorf("the schema does not take it: %v", err)
			}
		})
	}
}

func TestDynamicModuleRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"clusters": []}`:                                                            `clusters: is empty; name at least one cluster, or set drain: ignore for a gate that only says whether the main thread lives`,
		`{"clusters": [], "drain": "fail"}`:                                           `clusters: is empty; name at least one cluster, or set drain: ignore for a gate that only says whether the main thread lives`,
		`{"clusters": null, "drain": "ignore"}`:                                       `clusters: null is not a list`,
		`{"clusters": [], "drain": "ignore", "require": "any"}`:                       `require: is given, but there are no clusters; leave it out`,
		`{"clusters": ["a"], "grpc_services": [1, "b", "b"]}`:                         `grpc_services[0]: 1 is not a string; grpc_services[2]: "b" is repeated`,
		`{"clusters": ["a"], "grpc_services": ["` + strings.Repeat("x", 1025) + `"]}`: `grpc_services[0]: has 1025 bytes; at most 1024 are allowed`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": 0}`:         `grpc_max_watchers: 0 is not between 1 and 1000000`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": 1000001}`:   `grpc_max_watchers: 1.000001e+06 is not between 1 and 1000000`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": 1.5}`:       `grpc_max_watchers: 1.5 is not a whole number`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": "5"}`:       `grpc_max_watchers: "5" is not a whole number`,
		`{"clusters": ["a"], "grpc_services": ` + many + `}`:                          `grpc_services: has 65 entries; at most 64 are allowed`,
	} {
		if _, err := Decode(parse(t, text), Module); err == nil || err.Error() != want {
			t.Errorf("%.80s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// A route may take its gate's clusters away where the filter's configuration ignores drains.
func TestOverrideThatEmptiesTheClusters(t *testing.T) {
	route := parse(t, `{"clusters": []}`)
	if _, err := DecodeOverride(route, Module); err != nil {
		t.Fatal(err)
	}
	if c, err := Decode(Override(parse(t, `{"clusters": ["a"], "drain": "ignore"}`), route), Module); err != nil || len(c.Clusters) != 0 {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := Decode(Override(parse(t, `{"clusters": ["a"]}`), route), Module); err == nil {
		t.Error("a gate that drains may have no clusters")
	}
}

func TestGateWithoutClustersPassesWhateverIsThere(t *testing.T) {
	c, err := Decode(parse(t, `{"clusters": [], "drain": "ignore"}`), Module)
	if err != nil {
		t.Fatal(err)
	}
	h := newFakeHost()
	h.set(serverLive, 0)
	if r := newGateIn(c, h, &Process{}).Answer(); r.Details != "healthgate_ok" || r.Verdict.Degraded {
		t.Errorf("got %+v", r)
	}
}

// lifeHost knows which stats and which clusters Envoy has.
type lifeHost struct {
	*fakeHost
	unknown bool // Envoy does not have the cluster
}

type foundNumber struct {
	*number
	host *fakeHost
	name string
}

func (f foundNumber) Found() bool { return f.host.gauges[f.name] != nil }

func (h *lifeHost) Gauge(name string) Value {
	n := &number{}
	if h.gauges[name] != nil {
		n = h.gauges[name]
	}
	return foundNumber{n, h.fakeHost, name}
}
func (h *lifeHost) Cluster(string, string) Value { return clusterValue{h} }

type clusterValue struct{ host *lifeHost }

func (c clusterValue) Get() uint64 {
	if c.host.unknown {
		return 0
	}
	return 1
}

func TestUnknownClusterFailsWhateverTheMinimums(t *testing.T) {
	h := &lifeHost{fakeHost: newFakeHost()}
	h.setCluster("service", of(1, 0, 1))
	g := newGate(t, h, `{"clusters": [{"name": "service", "min_healthy": 0}], "stale_after": "10s"}`)
	for _, unknown := range []bool{false, true, false} {
		h.unknown = unknown
		want := map[bool]string{false: "healthgate_ok", true: "healthgate_cluster_unknown"}[unknown]
		if r := g.Answer(); r.Details != want {
			t.Errorf("unknown %v: got %s, want %s", unknown, r.Details, want)
		}
	}
}

// A host that knows which clusters Envoy has also knows how old its stats are.
func TestStaleAfterAsksNoCounterOfAHostThatKnowsItsClusters(t *testing.T) {
	h := &lifeHost{fakeHost: newFakeHost()}
	h.setCluster("service", of(1, 0, 1))
	g := newGate(t, h, `{"clusters": ["service"], "stale_after": "2s"}`)
	h.now = epoch.Add(time.Hour)
	if r := g.Answer(); r.Details != "healthgate_ok" {
		t.Errorf("got %s", r.Details)
	}
}

// A process whose gate was made during a drain has not seen server.live at 1, but a host that finds the gauge knows what
// its 0 says.
func TestDrainIsSeenFromTheStartWhereTheGaugeIsKnownToBeKept(t *testing.T) {
	for kept, want := range map[bool]string{true: "healthgate_draining", false: "healthgate_ok"} {
		h := &lifeHost{fakeHost: newFakeHost()}
		h.set(serverLive, 0)
		if !kept {
			delete(h.gauges, serverLive)
		}
		h.setCluster("service", of(1, 0, 1))
		if r := newGate(t, h, `{"clusters": ["service"]}`).Answer(); r.Details != want {
			t.Errorf("kept %v: got %s, want %s", kept, r.Details, want)
		}
	}
}

func TestWarningSaysWhatAHostKnowsOfAGauge(t *testing.T) {
	for kept, want := range map[bool]string{
		true:  `cluster "service" has shown no host yet. Likely: it has none (see /clusters`,
		false: `cluster "service" has shown no host yet. Likely: Envoy has no cluster of this name (see /clusters on Envoy's admin port), or one with an alt_stat_name`,
	} {
		h := &lifeHost{fakeHost: newFakeHost()}
		if kept {
			h.setCluster("service", of(0, 0, 0))
		}
		g := newGate(t, h, `{"clusters": ["service"]}`)
		h.lines = nil
		g.warnOfNoHost(0)
		if len(h.lines) != 1 || !strings.Contains(h.lines[0], want) {
			t.Errorf("kept %v: got %q", kept, h.lines)
		}
	}
}

func TestGaugeNamesAreWhatASourceReads(t *testing.T) {
	c, err := DecodeOverride(parse(t, `{"clusters": ["a:b", {"name": "c", "stat_name": "d", "excluded": "ignore"}], "stale_after": "3s"}`), Module)
	if err != nil {
		t.Fatal(err)
	}
	stats := &namedClusters{}
	NewStatsSource(c, stats, &Process{}, epoch)
	if got, want := slices.Sorted(slices.Values(c.GaugeNames())), slices.Sorted(slices.Values(stats.names)); !slices.Equal(got, want) {
		t.Errorf("got %q, a source reads %q", got, want)
	}
}

// namedClusters is a namedStats that knows every cluster.
type namedClusters struct{ namedStats }

func (s *namedClusters) Cluster(string, string) Value { return &number{value: 1} }

func TestMetricNamesAreWhatAGateDefines(t *testing.T) {
	h := newFakeHost()
	newGate(t, h, `{"clusters": ["a"], "stat_prefix": "edge"}`)
	counters, gauges := MetricNames("edge")
	if len(counters) != len(h.counters) || len(gauges) != len(h.own) {
		t.Errorf("a gate defines %d counters and %d gauges", len(h.counters), len(h.own))
	}
	for _, name := range counters {
		if h.counters[name] == nil {
			t.Errorf("no gate defines %s", name)
		}
	}
}
