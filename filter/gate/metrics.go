package gate

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/policy"
)

// The values of metrics.state.
const (
	stateNotEvaluated uint32 = iota
	stateFailing
	statePassing
)

// metrics counts the replies of a gate, notices a change of its verdict, and writes the gauge healthy.
type metrics struct {
	envoy  Envoy
	gauges *healthyGauges
	prefix string
	serial uint64 // of the configuration

	// A reply is counted in ok, or in failed and by its reason.
	ok, failed  Counter
	byReason    [policy.Reasons]Counter // of failures; nil for Held, which has no counter
	transitions Counter
	healthy     SettableGauge

	// The last verdict. Most probes only read its state; the mutex guards changes of it.
	state     atomic.Uint32
	mutex     sync.Mutex
	changedAt time.Time
}

// healthyGauges decides which gate writes a gauge healthy. Envoy has one for each stat prefix, and several gates may share it. Among the
// open gates that were evaluated, the one with the newest configuration writes it.
type healthyGauges struct {
	mutex    sync.Mutex
	byPrefix map[string][]*metrics // of open gates by stat prefix, the newest last
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
		gauges:      gauges,
		prefix:      prefix,
		serial:      serial,
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
	m.healthy = envoy.NewGauge(scope + "healthy")
	gauges.mutex.Lock()
	defer gauges.mutex.Unlock()
	if gauges.byPrefix == nil {
		gauges.byPrefix = make(map[string][]*metrics)
	}
	all := append(gauges.byPrefix[prefix], m)
	slices.SortStableFunc(all, func(a, b *metrics) int { return cmp.Compare(a.serial, b.serial) })
	gauges.byPrefix[prefix] = all
	return m
}

// close also makes the newest remaining gate write the gauge. If Envoy has destroyed that gate's configuration too, an older one writes it.
func (m *metrics) close() {
	g := m.gauges
	g.mutex.Lock()
	defer g.mutex.Unlock()
	left := slices.DeleteFunc(g.byPrefix[m.prefix], func(other *metrics) bool { return other == m })
	if g.byPrefix[m.prefix] = left; len(left) == 0 {
		delete(g.byPrefix, m.prefix)
	}
	for _, other := range slices.Backward(left) {
		if other.state.Load() != stateNotEvaluated && other.tryWrite() {
			return
		}
	}
}

// tryWrite reports whether it could write the gauge. Envoy destroys all gates of a filter's configuration at once, so a gate that is not
// closed yet may be destroyed: then writing panics.
func (m *metrics) tryWrite() (written bool) {
	defer func() { written = recover() == nil }()
	m.write()
	return true
}

func (m *metrics) write() {
	value := uint64(0)
	if m.state.Load() == statePassing {
		value = 1
	}
	m.healthy.Record(value)
}

// writeIfNewest writes the gauge if this gate is the one to write it. It holds the lock while it writes: if two gates change at once, the
// newer one must write last.
func (m *metrics) writeIfNewest() {
	m.gauges.mutex.Lock()
	defer m.gauges.mutex.Unlock()
	for _, newest := range slices.Backward(m.gauges.byPrefix[m.prefix]) {
		if newest.state.Load() != stateNotEvaluated {
			if newest == m {
				m.write()
			}
			return
		}
	}
}

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

// update records a verdict. If it changes the state, update returns true, once, and the state before. It holds the mutex while it writes
// the gauge, so that both agree.
func (m *metrics) update(v policy.Verdict) (before uint32, changed bool) {
	state := stateFailing
	if v.Passing {
		state = statePassing
	}
	if m.state.Load() == state {
		return state, false
	}
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
		if !changed { // a call into Envoy panicked: the next probe tries again
			m.changedAt = changedAt
			m.state.Store(before)
		}
	}()
	m.writeIfNewest()
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
