package gate

import (
	"fmt"
	"testing"
	"time"

	"healthgate/filter/envoystats"
)

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
			answer(t, "the next gate", newGateIn(decode(t, test.text), envoy, process), test.want)
		})
	}
}

// expectNoneOpen fails if a process still has an open gate.
func expectNoneOpen(t *testing.T, process *Process) {
	t.Helper()
	if n := len(process.gauges.byPrefix); n != 0 {
		t.Errorf("%d prefixes are kept without a gate", n)
	}
	for _, state := range process.holds.byDigest {
		if state.open != 0 {
			t.Errorf("%d gates still have a state", state.open)
		}
	}
}

// Envoy destroys all gates of a filter's configuration at once, and they may share a stat prefix.
func TestGatesOfADestroyedConfigurationClose(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`
	envoy, side, process := newFakeEnvoy(), newFakeEnvoy(), &Process{}
	envoy.setCluster("a", of(1, 0, 1))
	side.setCluster("a", of(1, 0, 1))
	older := newGateIn(decode(t, text), envoy, process)
	first, second := newGateIn(decode(t, text), side, process), newGateIn(decode(t, text), side, process)
	for _, g := range []*Gate{older, first, second} {
		g.Answer()
	}
	healthy := envoy.stat("healthgate.default.healthy")
	healthy.Record(0)
	side.stat("healthgate.default.healthy").broken = true // Envoy has destroyed that configuration
	first.Close()
	if healthy.Get() != 1 {
		t.Error("the gate that is not destroyed does not write the gauge")
	}
	second.Close()
	older.Close()
	expectNoneOpen(t, process)
}

func TestPanicWhileAGateIsMadeLeavesNoState(t *testing.T) {
	envoy, process := newFakeEnvoy(), &Process{}
	envoy.stat(envoystats.ServerLive).broken = true
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		newGateIn(decode(t, `{"clusters": ["a"], "hold": {"unhealthy_after": "2s"}}`), envoy, process)
	}()
	expectNoneOpen(t, process)
}

func TestHoldStatesExpire(t *testing.T) {
	envoy, process := newFakeEnvoy(), &Process{}
	for range 100 {
		for i := range 10 {
			g := newGateIn(decode(t, fmt.Sprintf(`{"clusters": ["a"], "hold": {"unhealthy_after": "%ds"}}`, i+1)), envoy, process)
			g.Answer()
			g.Close()
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

// The golang extension creates a filter's gate with its configuration, long before its first probe.
func TestGateWithoutProbesKeepsNoStateOfOthers(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"unhealthy_after": "10s", "healthy_after": "10s"}}`
	for pause, want := range map[time.Duration]string{5 * time.Second: "healthgate_held", expireAfter + time.Second: "healthgate_ok"} {
		envoy, process := newFakeEnvoy(), &Process{}
		first, second := newGateIn(decode(t, text), envoy, process), newGateIn(decode(t, text), envoy, process)
		answer(t, "the first gate", first, "healthgate_cluster_empty")
		first.Close()
		envoy.now = envoy.now.Add(pause)
		envoy.setCluster("a", of(1, 0, 1))
		answer(t, fmt.Sprint("the second gate after ", pause), second, want)
	}
}

// Envoy may still probe a gate that is closed.
func TestFirstProbeAfterTheEndKeepsNoState(t *testing.T) {
	const text = `{"clusters": ["a"], "hold": {"healthy_after": "10s"}}`
	envoy, process := newFakeEnvoy(), &Process{}
	ended := newGateIn(decode(t, text), envoy, process)
	ended.Close()
	answer(t, "the gate that has ended", ended, "healthgate_cluster_empty")
	envoy.now = envoy.now.Add(expireAfter + time.Second)
	envoy.setCluster("a", of(1, 0, 1))
	answer(t, "the next gate", newGateIn(decode(t, text), envoy, process), "healthgate_ok")
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
