package filter

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Counter is a stat of the gate's own that only grows.
type Counter interface{ Increment(by int64) }

// SettableGauge is a stat of the gate's own that is set.
type SettableGauge interface{ Record(value uint64) }

// journal keeps what a gate has answered: it counts each answer, and notices a change.
type journal struct {
	prefix  string // of its stats
	host    Host
	metrics metrics
	gauges  *gauges

	// The last answer: a probe reads state alone, and takes the lock only to change it.
	state     atomic.Uint32
	change    sync.Mutex
	changedAt time.Time
}

// The values of journal.state. None is a gate that has not judged yet.
const (
	stateNone uint32 = iota
	stateFailing
	statePassing
)

// metrics are a gate's own stats. Each answer is counted in ok or in failed, and a failure by its reason too.
type metrics struct {
	ok, failed  Counter
	byReason    [reasons]Counter // of failures; nil for Held, whose reason is in the past
	transitions Counter
	healthy     SettableGauge
}

// MetricNames are the names of a gate's own stats, by its stat prefix.
func MetricNames(prefix string) (counters, gauges []string) {
	scope := metricScope(prefix)
	counters = []string{scope + "ok", scope + "failed", scope + "transitions"}
	for reason := range reasons {
		if reason != OK && reason != Held {
			counters = append(counters, scope+"failed_"+reason.String())
		}
	}
	return counters, []string{scope + "healthy"}
}

func metricScope(prefix string) string { return "healthgate." + prefix + "." }

func newJournal(c *Config, host Host, gauges *gauges) *journal {
	j := &journal{prefix: c.StatPrefix, host: host, gauges: gauges, changedAt: host.Now()}
	scope := metricScope(c.StatPrefix)
	j.metrics.ok = host.NewCounter(scope + "ok")
	j.metrics.failed = host.NewCounter(scope + "failed")
	for reason := range reasons {
		if reason != OK && reason != Held {
			j.metrics.byReason[reason] = host.NewCounter(scope + "failed_" + reason.String())
		}
	}
	j.metrics.transitions = host.NewCounter(scope + "transitions")
	j.metrics.healthy = host.NewGauge(scope + "healthy")
	gauges.enter(j)
	return j
}

// close has others write the gauge from then on.
func (j *journal) close() { j.gauges.leave(j) }

// count counts an answer.
func (j *journal) count(v Verdict) {
	all, byReason := j.counters(v)
	all.Increment(1)
	if byReason != nil {
		byReason.Increment(1)
	}
}

// counters are what a verdict is counted in; the second is nil where there is none.
func (j *journal) counters(v Verdict) (all, byReason Counter) {
	if v.Passing {
		return j.metrics.ok, nil
	}
	return j.metrics.failed, j.metrics.byReason[v.Reason]
}

// note takes a verdict. Where it changes the answer, it returns true, once, and what the answer was.
func (j *journal) note(v Verdict) (before uint32, changed bool) {
	state := stateFailing
	if v.Passing {
		state = statePassing
	}
	if j.state.Load() == state {
		return state, false
	}
	return j.turn(state)
}

// turn moves the journal to a state. The lock keeps the gauge in step with the state; a log line is not worth holding it.
func (j *journal) turn(state uint32) (before uint32, changed bool) {
	j.change.Lock()
	defer j.change.Unlock()
	before = j.state.Load()
	if before == state {
		return before, false
	}
	changedAt := j.changedAt
	j.changedAt = j.host.Now()
	j.state.Store(state)
	defer func() {
		if !changed { // a panic of the host's: the next probe is to try again
			j.changedAt = changedAt
			j.state.Store(before)
		}
	}()
	j.gauges.changed(j)
	if before != stateNone {
		j.metrics.transitions.Increment(1)
	}
	return before, true
}

// record writes the gauge.
func (j *journal) record() {
	healthy := uint64(0)
	if j.state.Load() == statePassing {
		healthy = 1
	}
	j.metrics.healthy.Record(healthy)
}

// recordIfAlive is record, and reports whether Envoy still has the configuration of the journal's gate. Envoy drops all gates of a
// configuration at once, so a gate that is closed may find that another one can't write any more: the host panics then.
func (j *journal) recordIfAlive() (alive bool) {
	defer func() { alive = recover() == nil }()
	j.record()
	return true
}

// since is when the answer last changed.
func (j *journal) since() time.Time {
	j.change.Lock()
	defer j.change.Unlock()
	return j.changedAt
}

// name is how a gate calls itself in a log.
func (c *Config) name() string { return "healthgate: gate " + c.StatPrefix }

// describe is the log line of a change: what the answer was and is, why, and the numbers.
func (c *Config) describe(before uint32, reply *Reply, samples []Sample) string {
	turn := "starts with"
	switch before {
	case stateFailing:
		turn = fmt.Sprintf("turns from %d to", c.Unhealthy.Status)
	case statePassing:
		turn = fmt.Sprintf("turns from %d to", c.Healthy.Status)
	}
	clusters := make([]string, len(samples))
	for i, s := range samples {
		clusters[i] = fmt.Sprintf("cluster %q has %d healthy and %d degraded of %d hosts", c.Clusters[i].Name, s.Healthy, s.Degraded, s.Total)
		if s.Excluded > 0 {
			clusters[i] += fmt.Sprintf(", %d excluded", s.Excluded)
		}
		switch {
		case s.Stale:
			clusters[i] += ", long ago"
		case s.Unknown:
			clusters[i] = fmt.Sprintf("cluster %q is not there", c.Clusters[i].Name)
		}
	}
	return fmt.Sprintf("%s %s %d %s: %s", c.name(), turn, reply.Status, reply.Details, strings.Join(clusters, ", "))
}
