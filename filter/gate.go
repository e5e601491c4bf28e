package filter

import (
	"strings"
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

// Gate answers the probes of one configuration. Its methods are safe for use from any thread.
type Gate struct {
	config   *Config
	host     Host
	source   Source
	drains   DrainSource // nil where the source can't tell
	server   *serverStats
	process  *Process
	replies  *replies
	journal  *journal
	clusters []history
	debounce *debounce   // nil without a hold
	active   atomic.Bool // a probe has come: from then on changes are counted and logged
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

// NewGate makes the gate of a decoded configuration, and defines its stats on the host.
func NewGate(config *Config, source Source, host Host, process *Process) *Gate {
	g := &Gate{
		config:   config,
		host:     host,
		source:   source,
		server:   findServerStats(host),
		process:  process,
		replies:  newReplies(config),
		journal:  newJournal(config, host, &process.gauges),
		clusters: make([]history, len(config.Clusters)),
	}
	g.drains, _ = source.(DrainSource)
	if config.Hold.configured() {
		g.debounce = process.holds.join(config.digest, host.Now())
	}
	// A gate made while Envoy wants traffic notes so for gates made later.
	g.process.liveness.itself(g.server)
	return g
}

// Close ends the gate's part in what the process shares. A gate that is closed still answers.
func (g *Gate) Close() {
	g.process.liveness.leave(g.server)
	g.journal.close()
	if g.debounce != nil {
		g.process.holds.leave(g.config.digest, g.debounce, g.host.Now())
	}
}

// IsProbe says whether a request is a probe of the path probed, whatever the query: GET or HEAD of it, or a POST that calls
// itself gRPC. contentType is needed of a POST alone. It keeps no string.
func IsProbe(probed, method, path, contentType string) bool {
	switch method {
	case "GET", "HEAD":
	case "POST":
		if !IsGRPC(contentType) {
			return false
		}
	default:
		return false
	}
	if query := strings.IndexByte(path, '?'); query >= 0 {
		path = path[:query]
	}
	return path == probed
}

// IsGRPC says whether Envoy takes a request for gRPC by its content type: Grpc::Common::hasGrpcContentType in
// source/common/grpc/common.cc of v1.39.1.
func IsGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}

// Activate records that a probe has come. Before, the gate may belong to a listener that is still warming, beside another one
// that serves: it writes no gauge and no log line, and counts no transition.
func (g *Gate) Activate() {
	if !g.active.Load() { // a store per probe would move the cache line between workers
		g.active.Store(true)
	}
}

// Answer evaluates the clusters as they are now, and counts the reply to a probe. It allocates nothing, unless the verdict
// has changed.
func (g *Gate) Answer() *Reply {
	g.Activate()
	return g.counted(g.Evaluate())
}

// Report is Answer with a report for its body, if the reply can have one.
func (g *Gate) Report() *Reply {
	g.Activate()
	return g.counted(g.EvaluateAndReport())
}

// Failure is the reply to a probe that could not be evaluated: it fails closed.
func (g *Gate) Failure() *Reply { return g.counted(g.Unjudged(Error)) }

// Evaluate returns the reply for the clusters as they are now, and counts nothing.
func (g *Gate) Evaluate() *Reply {
	var buffer [MaxClusters]Sample
	return g.replies.of(g.evaluate(buffer[:len(g.clusters)]))
}

// EvaluateAndReport is Evaluate with a report for its body, if the reply can have one.
func (g *Gate) EvaluateAndReport() *Reply {
	samples := make([]Sample, len(g.clusters))
	verdict := g.evaluate(samples)
	return reported(g.replies.of(verdict), g.report(verdict, samples))
}

// DependsOnTime reports whether the verdict can change while Envoy's stats stay as they are: a change is held, or the source
// is not Envoy's stats.
func (g *Gate) DependsOnTime() bool {
	_, byStats := g.source.(*StatsSource)
	return !byStats || g.debounce != nil && g.debounce.pending()
}

// Unjudged is the reply that fails for a reason which the clusters do not give: Stale or Error.
func (g *Gate) Unjudged(reason Reason) *Reply { return g.replies.of(Verdict{Reason: reason}) }

// Counters are the stats that an answer of this gate's is counted in: ok, or failed and that of its reason. The second is
// nil where there is none.
func (g *Gate) Counters(r *Reply) (Counter, Counter) { return g.journal.counters(r.Verdict) }

func (g *Gate) counted(r *Reply) *Reply {
	g.journal.count(r.Verdict)
	return r
}

// evaluate fills samples and judges them: draining comes first, then the clusters decide, then the hold.
func (g *Gate) evaluate(samples []Sample) Verdict {
	now := g.now()
	verdict := g.judge(now, samples)
	if !verdict.Passing {
		// Envoy writes the gauges of a cluster one after the other, and the first read may have come between.
		verdict = g.judge(now, samples)
	}
	g.remember(now, samples)
	if g.debounce != nil {
		verdict = g.held(now, verdict)
	}
	if !g.config.IgnoreDrain && g.draining() {
		verdict = Verdict{Reason: Draining}
	}
	if !g.active.Load() {
		return verdict
	}
	if before, changed := g.journal.note(verdict); changed {
		g.host.Info(g.config.describe(before, g.replies.of(verdict), samples))
	}
	return verdict
}

func (g *Gate) judge(now time.Time, samples []Sample) Verdict {
	for i := range samples {
		samples[i] = g.source.Sample(now, i)
	}
	return g.config.Policy.Judge(samples)
}

// draining says whether Envoy is to fail its health checks. A source that knows is believed, but for a drain that the gate's own
// stat shows before the source has looked again.
func (g *Gate) draining() bool {
	if g.drains != nil {
		if draining, known := g.drains.Draining(); known {
			now, _ := g.process.liveness.itself(g.server)
			return draining || now
		}
	}
	return g.process.liveness.draining(g.server)
}

// now is the time, where the configuration asks for it; reading a clock is not free.
func (g *Gate) now() time.Time {
	if g.config.StaleAfter > 0 || g.config.Details || g.config.Hold.configured() {
		return g.host.Now()
	}
	return time.Time{}
}

// remember keeps what the gate has to know later of each cluster.
func (g *Gate) remember(now time.Time, samples []Sample) {
	for i, s := range samples {
		h := &g.clusters[i]
		if s.Total > 0 && !h.known.Load() { // a store a probe would bounce the cache line between workers
			h.known.Store(true)
			g.process.warnings.over(g.hostless(i))
		}
		if !g.config.Details {
			continue
		}
		reason := g.config.Clusters[i].Judge(s).Reason
		if last := h.outcome.Load(); last == nil || last.reason != reason {
			h.outcome.CompareAndSwap(last, &outcome{reason, now})
		}
	}
}

// held returns the verdict that stands. Stale data fails at once; hold does not delay it.
func (g *Gate) held(now time.Time, verdict Verdict) Verdict {
	if verdict.Reason == Stale {
		return verdict
	}
	passing := g.debounce.observe(g.config.Hold, now, verdict.Passing)
	if passing == verdict.Passing {
		return verdict
	}
	return Verdict{Reason: Held, Passing: passing}
}
