package gate

import (
	"fmt"
	"testing"
	"time"

	"healthgate/filter/envoystats"
)

func TestHoldDelaysAChangeButNotDraining(t *testing.T) {
	envoy := newFakeEnvoy()
	envoy.setCluster("a", of(1, 0, 1))
	g := newGate(t, envoy, `{"clusters": ["a"], "hold": {"unhealthy_after": "3s", "healthy_after": "10s"}}`)
	for i, step := range []struct {
		at      float64
		healthy uint64
		live    uint64
		status  int
		details string
	}{
		{0, 1, 1, 200, "healthgate_ok"},
		{1, 0, 1, 200, "healthgate_held"},
		{2, 0, 0, 503, "healthgate_draining"},
		{3, 0, 1, 200, "healthgate_held"},
		{4, 0, 1, 503, "healthgate_cluster_unhealthy"},
		{5, 1, 1, 503, "healthgate_held"},
		{15, 1, 1, 200, "healthgate_ok"},
	} {
		envoy.now = epoch.Add(time.Duration(step.at * float64(time.Second)))
		envoy.setCluster("a", of(step.healthy, 0, 1))
		envoy.set(envoystats.ServerLive, step.live)
		if r := g.Answer(); r.Status != step.status || r.Details != step.details {
			t.Errorf("step %d: got %d %s, want %d %s", i, r.Status, r.Details, step.status, step.details)
		}
	}
	want := "[failed=3 failed_cluster_unhealthy=1 failed_draining=1 ok=4 transitions=4]"
	if got := fmt.Sprint(envoy.counted()); got != want {
		t.Errorf("got counters %s, want %s", got, want)
	}
}

func TestHoldDoesNotDelayStale(t *testing.T) {
	envoy := newFakeEnvoy()
	envoy.setCluster("a", of(1, 0, 1))
	g := newGate(t, envoy, `{"clusters": ["a"], "hold": {"unhealthy_after": "60s"}, "stale_after": "5s"}`)
	for at := range 7 {
		envoy.now = epoch.Add(time.Duration(at) * time.Second)
		g.Evaluate()
	}
	if r := g.Answer(); r.Status != 503 || r.Details != "healthgate_stale" {
		t.Errorf("got %d %s, want 503 healthgate_stale", r.Status, r.Details)
	}
}

// Envoy creates every override again if anything in its route configuration changes.
func TestHoldContinuesInTheNextGateWithTheSameConfiguration(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "10s"}}`
	for _, test := range []struct {
		name             string
		text             string
		closedFor, pause time.Duration // before the next gate is made; -1: the first one stays open
		want             string
	}{
		{"at once", text, 0, 0, "healthgate_held"},
		{"beside the one before", text, -1, 0, "healthgate_held"},
		{"with the next probe", text, 0, 5 * time.Second, "healthgate_held"},
		{"when its time is over", text, 0, 8 * time.Second, "healthgate_cluster_unhealthy"},
		{"another configuration", `{"clusters": ["a"], "hold": {"unhealthy_after": "11s"}}`, 0, 0, "healthgate_cluster_unhealthy"},
		{"long after", text, 0, expireAfter + time.Second, "healthgate_cluster_unhealthy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			envoy, process := newFakeEnvoy(), &Process{}
			envoy.setCluster("a", of(1, 0, 1))
			first := newGateIn(decode(t, text), envoy, process)
			first.Answer()
			envoy.setCluster("a", of(0, 0, 1))
			first.Answer()
			envoy.now = envoy.now.Add(2 * time.Second)
			first.Answer()
			if test.closedFor >= 0 {
				first.Close()
			}
			envoy.now = envoy.now.Add(test.pause)
			if got := newGateIn(decode(t, test.text), envoy, process).Answer().Details; got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// destroyedEnvoy has gauges that panic once Envoy has destroyed the configuration.
type destroyedEnvoy struct {
	*fakeEnvoy
	destroyed *bool
}

type destroyedGauge struct {
	SettableGauge
	destroyed *bool
}

func (envoy destroyedEnvoy) NewGauge(name string) SettableGauge {
	return destroyedGauge{envoy.fakeEnvoy.NewGauge(name), envoy.destroyed}
}

func (g destroyedGauge) Record(value uint64) {
	if *g.destroyed {
		panic("the configuration is destroyed")
	}
	g.SettableGauge.Record(value)
}

// Envoy destroys all gates of a filter's configuration at once, and they may share a stat prefix. A state that stayed registered would
// be the start of every later gate: it would pass again after each update of the routes.
func TestGatesOfADestroyedConfigurationLeaveNoHoldState(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`
	envoy, process, destroyed := newFakeEnvoy(), &Process{}, false
	envoy.setCluster("a", of(1, 0, 1))
	older := newGateIn(decode(t, text), envoy, process)
	side := destroyedEnvoy{envoy, &destroyed}
	first, second := newGateIn(decode(t, text), side, process), newGateIn(decode(t, text), side, process)
	for _, g := range []*Gate{older, first, second} {
		g.Answer()
	}
	healthy := named(envoy.own, "healthgate.default.healthy")
	healthy.Record(0)
	destroyed = true
	first.Close()
	if healthy.Get() != 1 {
		t.Error("the gate that is not destroyed does not write the gauge")
	}
	second.Close()

	envoy.setCluster("a", of(0, 0, 1))
	older.Answer()
	envoy.now = envoy.now.Add(2 * time.Second)
	older.Answer()
	older.Close()
	if got := newGateIn(decode(t, text), envoy, process).Answer().Details; got != "healthgate_cluster_unhealthy" {
		t.Errorf("got %s, want healthgate_cluster_unhealthy", got)
	}
}

type brokenEnvoy struct{ *fakeEnvoy }

type brokenValue struct{}

func (brokenValue) Get() uint64 { panic("a bug") }

func (envoy brokenEnvoy) Gauge(name string) envoystats.Value {
	if name == envoystats.ServerLive {
		return brokenValue{}
	}
	return envoy.fakeEnvoy.Gauge(name)
}

func TestPanicWhileAGateIsMadeLeavesNoState(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`
	envoy, process := newFakeEnvoy(), &Process{}
	envoy.setCluster("a", of(1, 0, 1))
	older := newGateIn(decode(t, text), envoy, process)
	older.Answer()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		newGateIn(decode(t, text), brokenEnvoy{envoy}, process)
	}()
	envoy.setCluster("a", of(0, 0, 1))
	older.Answer()
	envoy.now = envoy.now.Add(2 * time.Second)
	older.Answer()
	older.Close()
	if n := len(process.gauges.byPrefix); n != 0 {
		t.Errorf("%d prefixes are kept without a gate", n)
	}
	if got := newGateIn(decode(t, text), envoy, process).Answer().Details; got != "healthgate_cluster_unhealthy" {
		t.Errorf("got %s, want healthgate_cluster_unhealthy", got)
	}
}

func TestHoldStatesExpire(t *testing.T) {
	envoy, process := newFakeEnvoy(), &Process{}
	for range 100 {
		for i := range 10 {
			newGateIn(decode(t, fmt.Sprintf(`{"clusters": ["a"], "hold": {"unhealthy_after": "%ds"}}`, i+1)), envoy, process).Close()
		}
	}
	if n := len(process.holds.byDigest); n != 10 {
		t.Errorf("%d configurations have a state, want 10", n)
	}
	envoy.now = envoy.now.Add(2 * expireAfter)
	newGateIn(decode(t, `{"clusters": ["a"], "hold": {"unhealthy_after": "60s"}}`), envoy, process)
	if n := len(process.holds.byDigest); n != 1 {
		t.Errorf("%d states are kept, want one for the open gate", n)
	}
}

func TestEvaluationInterval(t *testing.T) {
	for more, want := range map[string]time.Duration{
		``:                                    0,
		`, "response": {"details": true}`:     0,
		`, "hold": {"unhealthy_after": "2s"}`: 500 * time.Millisecond,
		`, "hold": {"healthy_after": "2s"}`:   500 * time.Millisecond,
		`, "hold": {"unhealthy_after": "60s", "healthy_after": "0.01s"}`:      50 * time.Millisecond,
		`, "hold": {"unhealthy_after": "0.01s", "healthy_after": "60s"}`:      50 * time.Millisecond,
		`, "hold": {"unhealthy_after": "0.000000001s"}`:                       50 * time.Millisecond,
		`, "stale_after": "60s"`:                                              time.Second,
		`, "stale_after": "1s", "hold": {"healthy_after": "3s"}`:              250 * time.Millisecond,
		`, "stale_after": "3s", "hold": {"healthy_after": "1s"}`:              250 * time.Millisecond,
		`, "source": "admin", "admin": {"address": "unix:///run/admin.sock"}`: time.Second,
	} {
		t.Run(more, func(t *testing.T) {
			g := newGate(t, newFakeEnvoy(), `{"clusters": ["a"]`+more+`}`)
			if got := g.EvaluationInterval(); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestHoldContinuesBetweenProbes(t *testing.T) {
	envoy := newFakeEnvoy()
	g := newGate(t, envoy, `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`)
	envoy.setCluster("a", of(1, 0, 1))
	g.Answer()
	envoy.setCluster("a", of(0, 0, 1))
	for at := range 5 {
		envoy.now = epoch.Add(time.Duration(at) * time.Second)
		g.Evaluate()
	}
	if r := g.Answer(); r.Details != "healthgate_cluster_unhealthy" {
		t.Errorf("got %s, want healthgate_cluster_unhealthy", r.Details)
	}
	if got := fmt.Sprint(envoy.counted()); got != "[failed=1 failed_cluster_unhealthy=1 ok=1 transitions=1]" {
		t.Errorf("got counters %s", got)
	}
}

// A gate without a probe may belong to a listener that is still warming beside one that serves.
func TestGateWithoutAProbeWritesNothing(t *testing.T) {
	envoy := newFakeEnvoy()
	g := newGate(t, envoy, `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`)
	for at := range 5 {
		envoy.now = epoch.Add(time.Duration(at) * time.Second)
		envoy.setCluster("a", of(uint64(at%2), 0, 1))
		g.Evaluate()
	}
	if len(envoy.lines) != 0 || len(envoy.counted()) != 0 {
		t.Errorf("it logged %q and counted %v", envoy.lines, envoy.counted())
	}
	g.Answer()
	if len(envoy.lines) != 1 {
		t.Errorf("its first probe logged %q", envoy.lines)
	}
}
