package gate

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

// Gate answers the probes of one configuration. Its methods are safe for concurrent use.
type Gate struct {
	config   *config.Config
	envoy    Envoy
	source   Source
	stats    *envoystats.Source // source, if the configuration has source: stats
	drains   DrainSource        // source, if it knows about draining
	server   *envoystats.DrainReader
	process  *Process
	replies  *replies
	metrics  *metrics
	clusters []history
	debounce *debounce   // nil without hold
	active   atomic.Bool // there was a probe: from then on the gate counts and logs changes
}

// history is the memory of a gate for one cluster.
type history struct {
	hasHadHosts atomic.Bool
	outcome     atomic.Pointer[outcome] // with details only
}

// outcome is the reason of a cluster's verdict, and since when it has been this one.
type outcome struct {
	reason policy.Reason
	since  time.Time
}

// New creates the gate of a decoded configuration, and defines its stats in Envoy. A newer configuration has a greater serial.
func New(c *config.Config, serial uint64, source Source, envoy Envoy, process *Process) *Gate {
	g := &Gate{
		config:   c,
		envoy:    envoy,
		source:   source,
		server:   process.draining.NewReader(envoy),
		process:  process,
		replies:  newReplies(c),
		metrics:  newMetrics(c.StatPrefix, serial, envoy, &process.gauges),
		clusters: make([]history, len(c.Clusters)),
	}
	complete := false
	defer func() {
		if !complete { // Envoy's side panicked
			g.Close()
		}
	}()
	g.stats, _ = source.(*envoystats.Source)
	g.drains, _ = source.(DrainSource)
	if c.Hold.Configured() {
		g.debounce = process.holds.register(c.Digest(), envoy.Now())
	}
	// Reads server.live now: a gate that is created during a drain relies on gates that read 1 before the drain.
	g.server.OwnDraining()
	complete = true
	return g
}

// Close unregisters the gate. A closed gate still answers.
func (g *Gate) Close() {
	g.server.Close()
	g.metrics.close()
	if g.debounce != nil {
		g.debounce.unregister(g.envoy.Now())
	}
}

// Activate records that the gate had a probe. Until then the gate may belong to a listener that is still warming beside another one
// that serves, while its clusters are not there yet: it writes no gauge and no log line, counts no transition, and holds no verdict.
func (g *Gate) Activate() {
	if !g.active.Load() { // a store per probe would move the cache line between workers
		g.active.Store(true)
	}
}

// Answer evaluates the clusters as they are now, and counts the reply to a probe. It allocates nothing unless the verdict changes.
func (g *Gate) Answer() *Reply {
	g.Activate()
	return g.counted(g.Evaluate())
}

// Report is like Answer, with a report as the body if the reply may have a body.
func (g *Gate) Report() *Reply {
	g.Activate()
	return g.counted(g.EvaluateAndReport())
}

// Failure counts and returns the reply to a probe that could not be evaluated.
func (g *Gate) Failure() *Reply { return g.counted(g.FailingReply(policy.Error)) }

// Evaluate returns the reply for the clusters as they are now, without counting it.
func (g *Gate) Evaluate() *Reply {
	var buffer [config.MaxClusters]policy.Sample
	return g.replies.forVerdict(g.evaluate(buffer[:len(g.clusters)]))
}

// EvaluateAndReport is like Evaluate, with a report as the body if the reply may have a body.
func (g *Gate) EvaluateAndReport() *Reply {
	samples := make([]policy.Sample, len(g.clusters))
	verdict := g.evaluate(samples)
	r := newReport(verdict, g.metrics.since())
	hosts, _ := g.source.(HostSource)
	for i, cluster := range g.config.Clusters {
		var ofCluster []policy.Host
		if hosts != nil {
			ofCluster = hosts.Hosts(i)
		}
		r.addCluster(cluster, samples[i], g.clusters[i].outcome.Load().since, ofCluster)
	}
	return withReport(g.replies.forVerdict(verdict), r)
}

// FailingReply returns the reply for a reason that is not the result of an evaluation: Stale or Error.
func (g *Gate) FailingReply(reason policy.Reason) *Reply {
	return g.replies.forVerdict(policy.Verdict{Reason: reason})
}

// Counters returns the counters that a reply increments: ok alone, or failed and the counter of its reason. The second may be nil.
func (g *Gate) Counters(r *Reply) (Counter, Counter) { return g.metrics.counters(r.Verdict) }

// DependsOnTime reports whether the verdict can change while Envoy's stats stay the same: hold delays a change, or the source is not
// Envoy's stats.
func (g *Gate) DependsOnTime() bool {
	return g.stats == nil || g.debounce != nil && g.debounce.isPending()
}

// EvaluationInterval returns how often the gate must be evaluated between probes, for hold and stale_after; 0 for never.
func (g *Gate) EvaluationInterval() time.Duration {
	const shortest, longest, perDuration = 50 * time.Millisecond, time.Second, 4
	durations := slices.DeleteFunc([]time.Duration{g.config.Hold.UnhealthyAfter, g.config.Hold.HealthyAfter, g.config.StaleAfter},
		func(d time.Duration) bool { return d == 0 })
	if len(durations) == 0 {
		return 0
	}
	return min(max(slices.Min(durations)/perDuration, shortest), longest)
}

func (g *Gate) counted(r *Reply) *Reply {
	g.metrics.count(r.Verdict)
	return r
}

// evaluate fills samples and returns the verdict. Draining wins over the clusters and over hold.
func (g *Gate) evaluate(samples []policy.Sample) policy.Verdict {
	now := g.now()
	verdict := g.sample(now, samples)
	if !verdict.Passing {
		// Envoy writes a cluster's gauges one after the other, and the first sample may have been taken in between.
		verdict = g.sample(now, samples)
	}
	g.remember(now, samples)
	if g.debounce != nil && g.active.Load() {
		verdict = g.debounced(now, verdict)
	}
	if !g.config.IgnoreDrain && g.isDraining() {
		verdict = policy.Verdict{Reason: policy.Draining}
	}
	if !g.active.Load() {
		return verdict
	}
	if before, changed := g.metrics.update(verdict); changed {
		g.envoy.Info(g.changeLine(before, g.replies.forVerdict(verdict), samples))
	}
	return verdict
}

func (g *Gate) sample(now time.Time, samples []policy.Sample) policy.Verdict {
	for i := range samples {
		samples[i] = g.source.Sample(now, i)
	}
	return g.config.Policy.Evaluate(samples)
}

// isDraining reports whether Envoy fails its health checks. If the source knows, it decides. But a drain that server.live shows counts at
// once, before the source samples again.
func (g *Gate) isDraining() bool {
	if g.drains != nil {
		if draining, known := g.drains.Draining(); known {
			own, _ := g.server.OwnDraining()
			return draining || own
		}
	}
	return g.server.Draining()
}

// now returns the time if the configuration needs it, else the zero time, because reading a clock takes time.
func (g *Gate) now() time.Time {
	if g.config.StaleAfter > 0 || g.config.Details || g.config.Hold.Configured() {
		return g.envoy.Now()
	}
	return time.Time{}
}

func (g *Gate) remember(now time.Time, samples []policy.Sample) {
	for i, s := range samples {
		h := &g.clusters[i]
		if s.Total > 0 && !h.hasHadHosts.Load() { // a store per probe would move the cache line between workers
			h.hasHadHosts.Store(true)
			g.process.warnings.found(hostsOf(g.config.Clusters[i].StatName))
		}
		if !g.config.Details {
			continue
		}
		reason := g.config.Clusters[i].Evaluate(s).Reason
		if last := h.outcome.Load(); last == nil || last.reason != reason {
			h.outcome.CompareAndSwap(last, &outcome{reason, now})
		}
	}
}

// debounced applies hold. A stale cluster fails at once; hold does not delay it.
func (g *Gate) debounced(now time.Time, verdict policy.Verdict) policy.Verdict {
	if verdict.Reason == policy.Stale {
		return verdict
	}
	passing := g.debounce.next(g.config.Hold, now, verdict.Passing)
	if passing == verdict.Passing {
		return verdict
	}
	return policy.Verdict{Reason: policy.Held, Passing: passing}
}

// logName returns the beginning of the gate's log lines.
func (g *Gate) logName() string { return "healthgate: gate " + g.config.StatPrefix }

// changeLine returns the log line for a changed verdict, with the host counts.
func (g *Gate) changeLine(before uint32, reply *Reply, samples []policy.Sample) string {
	change := "starts with"
	switch before {
	case stateFailing:
		change = fmt.Sprintf("changed from %d to", g.config.Unhealthy.Status)
	case statePassing:
		change = fmt.Sprintf("changed from %d to", g.config.Healthy.Status)
	}
	clusters := make([]string, len(samples))
	for i, s := range samples {
		clusters[i] = fmt.Sprintf("cluster %q has %d healthy and %d degraded of %d hosts", g.config.Clusters[i].Name, s.Healthy, s.Degraded,
			s.Total)
		if s.Excluded > 0 {
			clusters[i] += fmt.Sprintf(", %d excluded", s.Excluded)
		}
		switch {
		case s.Stale:
			clusters[i] += ", stale"
		case s.Unknown:
			clusters[i] = fmt.Sprintf("Envoy has no cluster %q", g.config.Clusters[i].Name)
		}
	}
	line := fmt.Sprintf("%s %s %d %s", g.logName(), change, reply.Status, reply.Details)
	if len(clusters) > 0 {
		line += ": " + strings.Join(clusters, ", ")
	}
	return line
}
