package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/policy"
)

// metrics counts the replies of a gate, and notices a change of its verdict.
type metrics struct {
	prefix string
	serial uint64 // of the configuration
	envoy  Envoy
	gauges *healthyGauges

	// A reply is counted in ok, or in failed and by its reason.
	ok, failed  Counter
	byReason    [policy.Reasons]Counter // of failures; nil for Held, which has no counter of its own
	transitions Counter
	healthy     SettableGauge

	// The last verdict. A probe only reads state; the mutex is for changing it.
	state     atomic.Uint32
	mutex     sync.Mutex
	changedAt time.Time
}

// The values of metrics.state.
const (
	notEvaluated uint32 = iota
	failing
	passing
)

// MetricNames returns the names of a gate's own stats, by its stat prefix.
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
		prefix:      prefix,
		serial:      serial,
		envoy:       envoy,
		gauges:      gauges,
		changedAt:   envoy.Now(),
		ok:          envoy.NewCounter(scope + "ok"),
		failed:      envoy.NewCounter(scope + "failed"),
		transitions: envoy.NewCounter(scope + "transitions"),
		healthy:     envoy.NewGauge(scope + "healthy"),
	}
	for reason := range policy.Reasons {
		if hasCounter(reason) {
			m.byReason[reason] = envoy.NewCounter(scope + "failed_" + reason.String())
		}
	}
	gauges.register(m)
	return m
}

func (m *metrics) close() { m.gauges.unregister(m) }

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
	state := failing
	if v.Passing {
		state = passing
	}
	if m.state.Load() == state {
		return state, false
	}
	return m.change(state)
}

// change sets the state. It holds the mutex while it writes the gauge, so that both agree.
func (m *metrics) change(state uint32) (before uint32, changed bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	before = m.state.Load()
	if before == state {
		return before, false
	}
	changedAt := m.changedAt
	m.changedAt = m.envoy.Now()
	m.state.Store(state)
	defer func() {
		if !changed { // Envoy's side panicked: the next probe tries again
			m.changedAt = changedAt
			m.state.Store(before)
		}
	}()
	m.gauges.update(m)
	if before != notEvaluated {
		m.transitions.Increment(1)
	}
	return before, true
}

func (m *metrics) writeHealthy() {
	healthy := uint64(0)
	if m.state.Load() == passing {
		healthy = 1
	}
	m.healthy.Record(healthy)
}

// tryWriteHealthy reports whether it could write the gauge. Envoy drops all gates of a filter's configuration at once, so the gate may be
// dropped and not yet closed: writing a stat panics then.
func (m *metrics) tryWriteHealthy() (written bool) {
	defer func() { written = recover() == nil }()
	m.writeHealthy()
	return true
}

// since returns when the verdict last changed.
func (m *metrics) since() time.Time {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.changedAt
}
