package gate

import (
	"sync"
	"time"

	"healthgate/filter/policy"
)

// metrics counts the replies of a gate, and notices a change of its verdict.
type metrics struct {
	envoy Envoy

	// A reply is counted in ok, or in failed and by its reason.
	ok, failed  Counter
	byReason    [policy.Reasons]Counter // of failures; nil for Held, which has no counter
	transitions Counter

	// The last verdict. Most probes only read its state; the mutex guards changes of it.
	healthy   *healthy
	mutex     sync.Mutex
	changedAt time.Time
}

// MetricNames returns the names of all metrics of a stat prefix.
func MetricNames(prefix string) (counters, gauges []string) {
	scope := metricScope(prefix)
	counters = []string{scope + "ok", scope + "failed", scope + "transitions"}
	for reason := range policy.Reasons {
		if hasCounter(reason) {
			counters = append(counters, scope+"failed_"+reason.String())
		}
	}
	return counters, []string{scope + "healthy"}
}

func metricScope(prefix string) string { return "healthgate." + prefix + "." }

func hasCounter(r policy.Reason) bool { return r != policy.OK && r != policy.Held }

func newMetrics(prefix string, serial uint64, envoy Envoy, gauges *healthyGauges) *metrics {
	scope := metricScope(prefix)
	m := &metrics{
		envoy:       envoy,
		changedAt:   envoy.Now(),
		ok:          envoy.NewCounter(scope + "ok"),
		failed:      envoy.NewCounter(scope + "failed"),
		transitions: envoy.NewCounter(scope + "transitions"),
	}
	for reason := range policy.Reasons {
		if hasCounter(reason) {
			m.byReason[reason] = envoy.NewCounter(scope + "failed_" + reason.String())
		}
	}
	m.healthy = gauges.register(prefix, serial, envoy.NewGauge(scope+"healthy"))
	return m
}

func (m *metrics) close() { m.healthy.unregister() }

func (m *metrics) count(v policy.Verdict) {
	all, byReason := m.counters(v)
	all.Increment(1)
	if byReason != nil {
		byReason.Increment(1)
	}
}

// counters returns the counters of a verdict; the second may be nil.
func (m *metrics) counters(v policy.Verdict) (all, byReason Counter) {
	if v.Passing {
		return m.ok, nil
	}
	return m.failed, m.byReason[v.Reason]
}

// update records a verdict. If it changes the state, update returns true, once, and the state before.
func (m *metrics) update(v policy.Verdict) (before uint32, changed bool) {
	state := stateFailing
	if v.Passing {
		state = statePassing
	}
	if m.healthy.state.Load() == state {
		return state, false
	}
	return m.change(state)
}

// change sets the state. It holds the mutex while it writes the gauge, so that both agree.
func (m *metrics) change(state uint32) (before uint32, changed bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	before = m.healthy.state.Load()
	if before == state {
		return before, false
	}
	changedAt := m.changedAt
	m.changedAt = m.envoy.Now()
	m.healthy.state.Store(state)
	defer func() {
		if !changed { // a call into Envoy panicked: the next probe tries again
			m.changedAt = changedAt
			m.healthy.state.Store(before)
		}
	}()
	m.healthy.update()
	if before != stateNotEvaluated {
		m.transitions.Increment(1)
	}
	return before, true
}

// since returns when the verdict last changed.
func (m *metrics) since() time.Time {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.changedAt
}
