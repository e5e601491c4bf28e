package filter

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Host is the process that a gate runs in.
type Host interface {
	Stats
	// NewCounter and NewGauge make a stat of the gate's own.
	NewCounter(name string) Counter
	NewGauge(name string) SettableGauge
	// Info and Warn each write a line to the host's log.
	Info(line string)
	Warn(line string)
	// Now is the time, with a monotonic part.
	Now() time.Time
}

// Counter is a stat of the gate's own that only grows.
type Counter interface{ Increment(by int64) }

// SettableGauge is a stat of the gate's own that is set.
type SettableGauge interface{ Record(value uint64) }

// Gate answers the probes of one configuration. Its methods are safe for use from any thread.
type Gate struct {
	config   *Config
	host     Host
	source   Source
	drains   DrainSource // nil where the source can't tell
	liveness *Liveness
	live     Value
	replies  *replies
	metrics  metrics
	clusters []history

	holding sync.Mutex // taken only where a hold is configured
	held    Standing

	// The last answer, to notice a change: a probe reads state alone, and takes the lock only to change it.
	state     atomic.Uint32
	change    sync.Mutex
	changedAt time.Time
}

// history is what the gate remembers of one cluster.
type history struct {
	known   atomic.Bool // it has shown a host
	outcome atomic.Pointer[outcome]
}

// outcome is a cluster's reason, and since when it has been that. It is kept only for reports.
type outcome struct {
	reason Reason
	since  time.Time
}

// The values of Gate.state. None is a gate that has not answered yet.
const (
	stateNone uint32 = iota
	stateFailing
	statePassing
)

// metrics are the gate's own stats. Each answer is counted in ok or in failed, and a failure by its reason too.
type metrics struct {
	ok, failed  Counter
	byReason    [reasons]Counter // of failures; nil for Held, whose reason is in the past
	transitions Counter
	healthy     SettableGauge
}

// NewGate makes the gate of a decoded configuration, and defines its stats on the host. liveness is the process's own.
func NewGate(config *Config, source Source, host Host, liveness *Liveness) *Gate {
	g := &Gate{
		config:    config,
		host:      host,
		source:    source,
		liveness:  liveness,
		live:      host.Gauge(LiveStat),
		replies:   newReplies(config),
		clusters:  make([]history, len(config.Clusters)),
		changedAt: host.Now(),
	}
	g.drains, _ = source.(DrainSource)
	// A gate made while Envoy wants traffic notes so for gates made later.
	liveness.Draining(g.live.Get())

	prefix := "healthgate." + config.StatPrefix + "."
	g.metrics.ok = host.NewCounter(prefix + "ok")
	g.metrics.failed = host.NewCounter(prefix + "failed")
	for reason := range reasons {
		if reason != OK && reason != Held {
			g.metrics.byReason[reason] = host.NewCounter(prefix + "failed_" + reason.String())
		}
	}
	g.metrics.transitions = host.NewCounter(prefix + "transitions")
	g.metrics.healthy = host.NewGauge(prefix + "healthy")
	return g
}

// IsProbe says whether a request is a probe of the gate's path.
func (g *Gate) IsProbe(method, path string) bool { return IsProbe(g.config.Path, method, path) }

// IsProbe says whether a request is a probe of the path probed: GET or HEAD of it, whatever the query. It keeps no string.
func IsProbe(probed, method, path string) bool {
	if method != "GET" && method != "HEAD" {
		return false
	}
	if query := strings.IndexByte(path, '?'); query >= 0 {
		path = path[:query]
	}
	return path == probed
}

// Answer judges the clusters as they are now. It allocates nothing, unless the answer has changed.
func (g *Gate) Answer() *Reply {
	var buffer [MaxClusters]Sample
	samples := buffer[:len(g.clusters)]
	verdict := g.look(samples)
	g.count(verdict)
	return g.replies.of(verdict)
}

// Reports says whether clients may have a report.
func (g *Gate) Reports() bool { return g.config.Details }

// Report is Answer with a report for its body.
func (g *Gate) Report() *Reply {
	samples := make([]Sample, len(g.clusters))
	verdict := g.look(samples)
	g.count(verdict)
	g.change.Lock()
	since := g.changedAt
	g.change.Unlock()
	r := report{
		Status: statusOf(verdict),
		Output: verdict.Reason.Details(),
		Since:  inUTC(since),
		Checks: make(map[string][]check, len(samples)),
	}
	hosts, _ := g.source.(HostSource)
	for i, cluster := range g.config.Clusters {
		c := newCheck(cluster, samples[i], g.clusters[i].outcome.Load().since)
		if hosts != nil {
			c.Hosts = hosts.Hosts(i)
		}
		r.Checks[cluster.Name+":membership"] = []check{c}
	}
	return reported(g.replies.of(verdict), r)
}

// Failure is the answer where none could be found: something went wrong on the way. It fails closed.
func (g *Gate) Failure() *Reply {
	verdict := Verdict{Reason: Error}
	g.count(verdict)
	return g.replies.of(verdict)
}

// WatchEvery is how often Watch wants to be called, or 0 for never: only what has to be seen between probes is watched.
func (g *Gate) WatchEvery() time.Duration {
	const atLeast, atMost, looks = 50 * time.Millisecond, time.Second, 4
	every := time.Duration(0)
	for _, d := range []time.Duration{g.config.Hold.UnhealthyAfter, g.config.Hold.HealthyAfter, g.config.StaleAfter} {
		if d > 0 && (every == 0 || d/looks < every) {
			every = min(max(d/looks, atLeast), atMost)
		}
	}
	return every
}

// Watch looks at the clusters without answering a probe.
func (g *Gate) Watch() {
	var buffer [MaxClusters]Sample
	g.look(buffer[:len(g.clusters)])
}

// look fills samples and judges them: draining wins over everything, then the clusters decide, then the hold.
func (g *Gate) look(samples []Sample) Verdict {
	now := g.now()
	for i := range samples {
		samples[i] = g.source.Sample(now, i)
		g.remember(now, i, samples[i])
	}
	verdict := g.config.Judge(samples)
	if g.config.Hold.configured() {
		verdict = g.damp(now, verdict)
	}
	if !g.config.IgnoreDrain && g.draining() {
		verdict = Verdict{Reason: Draining}
	}
	g.note(verdict, samples)
	return verdict
}

// draining says whether Envoy is to fail its health checks, by its own stat or by the source.
func (g *Gate) draining() bool {
	return g.liveness.Draining(g.live.Get()) || g.drains != nil && g.drains.Draining()
}

// now is the time, where the configuration asks for it; reading a clock is not free.
func (g *Gate) now() time.Time {
	if g.config.StaleAfter > 0 || g.config.Details || g.config.Hold.configured() {
		return g.host.Now()
	}
	return time.Time{}
}

// remember keeps what the gate has to know later of the i-th cluster.
func (g *Gate) remember(now time.Time, i int, s Sample) {
	h := &g.clusters[i]
	if s.Total > 0 && !h.known.Load() { // a store a probe would bounce the cache line between workers
		h.known.Store(true)
	}
	if !g.config.Details {
		return
	}
	reason := g.config.Clusters[i].judge(s)
	if last := h.outcome.Load(); last == nil || last.reason != reason {
		h.outcome.CompareAndSwap(last, &outcome{reason, now})
	}
}

// damp returns the verdict that stands. What is stale is not held: nothing is known that could be.
func (g *Gate) damp(now time.Time, truth Verdict) Verdict {
	if truth.Reason == Stale {
		return truth
	}
	g.holding.Lock()
	g.held = g.config.Hold.Observe(g.held, now, truth.Passing)
	passing := g.held.passing
	g.holding.Unlock()
	if passing == truth.Passing {
		return truth
	}
	return Verdict{Reason: Held, Passing: passing}
}

func (g *Gate) count(v Verdict) {
	if v.Passing {
		g.metrics.ok.Increment(1)
		return
	}
	g.metrics.failed.Increment(1)
	if counter := g.metrics.byReason[v.Reason]; counter != nil {
		counter.Increment(1)
	}
}

// note logs and counts a change of the answer, once.
func (g *Gate) note(verdict Verdict, samples []Sample) {
	now := stateFailing
	if verdict.Passing {
		now = statePassing
	}
	if g.state.Load() == now {
		return
	}
	if before, changed := g.turn(now); changed {
		g.host.Info(g.describe(before, verdict, samples))
	}
}

// turn moves the gate to a state. The lock keeps the gauge in step with the state; a log line is not worth holding it.
func (g *Gate) turn(now uint32) (before uint32, changed bool) {
	g.change.Lock()
	defer g.change.Unlock()
	before = g.state.Load()
	if before == now {
		return before, false
	}
	healthy := uint64(0)
	if now == statePassing {
		healthy = 1
	}
	g.metrics.healthy.Record(healthy)
	if before != stateNone {
		g.metrics.transitions.Increment(1)
	}
	g.changedAt = g.host.Now()
	g.state.Store(now)
	return before, true
}

// describe is the log line of a change: what the answer was and is, why, and the numbers.
func (g *Gate) describe(before uint32, verdict Verdict, samples []Sample) string {
	var b strings.Builder
	b.WriteString(g.name())
	switch before {
	case stateNone:
		b.WriteString(" starts with ")
	case stateFailing:
		b.WriteString(" turns from " + strconv.Itoa(g.config.Unhealthy.Status) + " to ")
	case statePassing:
		b.WriteString(" turns from " + strconv.Itoa(g.config.Healthy.Status) + " to ")
	}
	reply := g.replies.of(verdict)
	b.WriteString(strconv.Itoa(reply.Status) + " " + reply.Details)
	for i, s := range samples {
		b.WriteString(separator(i) + "cluster " + strconv.Quote(g.config.Clusters[i].Name) + " has ")
		b.WriteString(strconv.FormatUint(s.Healthy, 10) + " healthy and ")
		b.WriteString(strconv.FormatUint(s.Degraded, 10) + " degraded of ")
		b.WriteString(strconv.FormatUint(s.Total, 10) + " hosts")
		if s.Stale {
			b.WriteString(", long ago")
		}
	}
	return b.String()
}

func separator(i int) string {
	if i == 0 {
		return ": "
	}
	return ", "
}

// name is how the gate calls itself in a log.
func (g *Gate) name() string { return "healthgate " + g.config.StatPrefix }

// WarnOfEmptyClusters writes a line for each cluster that has shown no host so far. A gauge that is not there, or is not
// kept, reads 0 like that of a cluster without hosts, and nothing but time tells them apart: call it once, when a
// cluster has had the time to find its hosts.
func (g *Gate) WarnOfEmptyClusters() {
	for i, cluster := range g.config.Clusters {
		if g.clusters[i].known.Load() || g.source.Sample(g.host.Now(), i).Total > 0 {
			continue
		}
		warning := g.name() + ": cluster " + strconv.Quote(cluster.Name) + " has shown no host yet, so it fails. " +
			"Likely: it has none (see /clusters on Envoy's admin port); or Envoy has no cluster of this name"
		if g.config.Admin == nil {
			warning += ", or one with an alt_stat_name (set clusters[" + strconv.Itoa(i) + "].stat_name to it); " +
				"or a stats matcher leaves out " + statScope(cluster.StatName) + membershipTotal + " (see stats_config)"
		}
		g.host.Warn(warning)
	}
}
