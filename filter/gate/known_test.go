package gate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
)

func TestGateWithoutClustersAlwaysPasses(t *testing.T) {
	c := decode(t, `{"clusters": [], "drain": "ignore"}`, config.Module)
	envoy := newFakeEnvoy()
	envoy.set(envoystats.ServerLive, 0)
	if r := newGateIn(c, envoy, &Process{}).Answer(); r.Details != "healthgate_ok" || r.Verdict.Degraded {
		t.Errorf("got %+v", r)
	}
	if want := "info: healthgate: gate default starts with 200 healthgate_ok"; len(envoy.lines) != 1 || envoy.lines[0] != want {
		t.Errorf("got lines %q, want %q", envoy.lines, want)
	}
}

// knowingEnvoy knows which stats and which clusters it has, like the dynamic module's.
type knowingEnvoy struct {
	*fakeEnvoy
	unknown bool // every cluster is
}

type foundStat struct {
	*stat
	found bool
}

func (f foundStat) Found() bool { return f.found }

func (envoy *knowingEnvoy) Gauge(name string) envoystats.Value {
	found := envoy.stats[name] != nil
	return foundStat{envoy.stat(name), found}
}

func (envoy *knowingEnvoy) Cluster(string, string) envoystats.Value { return clusterValue{envoy} }

type clusterValue struct{ envoy *knowingEnvoy }

func (c clusterValue) Get() uint64 {
	if c.envoy.unknown {
		return 0
	}
	return 1
}

func TestUnknownClusterFailsWhateverTheMinimums(t *testing.T) {
	envoy := &knowingEnvoy{fakeEnvoy: newFakeEnvoy()}
	envoy.setCluster("service", of(1, 0, 1))
	g := newGate(t, envoy, `{"clusters": [{"name": "service", "min_healthy": 0}], "stale_after": "10s"}`)
	for _, unknown := range []bool{false, true, false} {
		envoy.unknown = unknown
		want := map[bool]string{false: "healthgate_ok", true: "healthgate_cluster_unknown"}[unknown]
		answer(t, fmt.Sprint("unknown ", unknown), g, want)
	}
}

// An Envoy that knows its clusters also knows how old its stats are.
func TestStaleAfterNeedsNoCounterIfTheClustersAreKnown(t *testing.T) {
	envoy := &knowingEnvoy{fakeEnvoy: newFakeEnvoy()}
	envoy.setCluster("service", of(1, 0, 1))
	g := newGate(t, envoy, `{"clusters": ["service"], "stale_after": "2s"}`)
	envoy.now = epoch.Add(time.Hour)
	answer(t, "an hour later", g, "healthgate_ok")
}

// The first gate of a process, if made during a drain, has never read 1; but if the gauge is found, its 0 means draining.
func TestDrainIsSeenFromTheStartIfTheGaugeIsFound(t *testing.T) {
	for found, want := range map[bool]string{true: "healthgate_draining", false: "healthgate_ok"} {
		envoy := &knowingEnvoy{fakeEnvoy: newFakeEnvoy()}
		envoy.set(envoystats.ServerLive, 0)
		if !found {
			delete(envoy.stats, envoystats.ServerLive)
		}
		envoy.setCluster("service", of(1, 0, 1))
		answer(t, fmt.Sprint("found ", found), newGate(t, envoy, `{"clusters": ["service"]}`), want)
	}
}

func TestWarningOfNoHostNamesTheReasonIfTheGaugeIsKnown(t *testing.T) {
	for found, want := range map[bool]string{
		true: `cluster "service" has shown no host yet. Likely: it has none (see /clusters`,
		false: `cluster "service" has shown no host yet. Likely: ` +
			`Envoy has no cluster of this name (see /clusters on Envoy's admin port), or one with an alt_stat_name`,
	} {
		envoy := &knowingEnvoy{fakeEnvoy: newFakeEnvoy()}
		if found {
			envoy.setCluster("service", of(0, 0, 0))
		}
		g := newGate(t, envoy, `{"clusters": ["service"]}`)
		envoy.lines = nil
		g.warnOfNoHost(0)
		if len(envoy.lines) != 1 || !strings.Contains(envoy.lines[0], want) {
			t.Errorf("found %v: got %q", found, envoy.lines)
		}
	}
}
