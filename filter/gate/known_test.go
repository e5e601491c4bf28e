package gate

import (
	"strings"
	"testing"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
)

func TestGateWithoutClustersPassesWhateverIsThere(t *testing.T) {
	c := decode(t, `{"clusters": [], "drain": "ignore"}`, config.Module)
	h := newFakeHost()
	h.set(envoystats.ServerLive, 0)
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

func (h *lifeHost) Gauge(name string) envoystats.Value {
	n := &number{}
	if h.gauges[name] != nil {
		n = h.gauges[name]
	}
	return foundNumber{n, h.fakeHost, name}
}
func (h *lifeHost) Cluster(string, string) envoystats.Value { return clusterValue{h} }

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
		h.set(envoystats.ServerLive, 0)
		if !kept {
			delete(h.gauges, envoystats.ServerLive)
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
