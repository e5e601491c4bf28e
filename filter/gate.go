package filter

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Host is the process that a gate runs in.
type Host interface {
	// Gauge returns the gauge of exactly this name from the host's own stats, live. It is only ever read.
	Gauge(name string) Gauge
	// NewCounter and NewGauge make a stat of the gate's own.
	NewCounter(name string) Counter
	NewGauge(name string) SettableGauge
	// Info and Warn each write a line to the host's log.
	Info(line string)
	Warn(line string)
}

// Counter is a stat of the gate's own that only grows.
type Counter interface{ Increment(by int64) }

// SettableGauge is a stat of the gate's own that is set.
type SettableGauge interface{ Record(value uint64) }

// Gate answers the probes of one configuration. Its methods are safe for use from any thread.
type Gate struct {
	config   *Config
	host     Host
	liveness *Liveness
	live     Gauge
	clusters []member
	replies  *replies
	metrics  metrics

	// The last verdict, to notice a change: a probe reads state alone, and takes the lock only to change it.
	state  atomic.Uint32
	change sync.Mutex
}

// member is one cluster as the gate sees it.
type member struct {
	gauges Gauges
	known  atomic.Bool // a probe has seen a host in it
}

// The values of Gate.state. None is a gate that has not answered yet.
const (
	stateNone uint32 = iota
	stateFailing
	statePassing
)

// metrics are the gate's own stats. Each answer is counted once by its reason, and each failure also in failed.
type metrics struct {
	byReason    [reasons]Counter
	failed      Counter
	transitions Counter
	healthy     SettableGauge
}

// NewGate makes the gate of a decoded configuration, and defines its stats on the host. liveness is the process's own.
func NewGate(config *Config, host Host, liveness *Liveness) *Gate {
	g := &Gate{
		config:   config,
		host:     host,
		liveness: liveness,
		live:     host.Gauge(LiveStat),
		clusters: make([]member, len(config.Clusters)),
		replies:  newReplies(config),
	}
	// A gate made while Envoy wants traffic notes so for gates made later.
	liveness.Draining(g.live.Get())
	for i, cluster := range config.Clusters {
		g.clusters[i].gauges = DefineGauges(cluster.StatName, host.Gauge)
	}

	prefix := "healthgate." + config.StatPrefix + "."
	for reason := range reasons {
		name := "failed_" + reason.String()
		if reason == OK {
			name = reason.String()
		}
		g.metrics.byReason[reason] = host.NewCounter(prefix + name)
	}
	g.metrics.failed = host.NewCounter(prefix + "failed")
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

// Answer judges the clusters as they are now. It allocates nothing, unless the verdict has changed.
func (g *Gate) Answer() *Reply {
	var buffer [MaxClusters]Counts
	counts := buffer[:len(g.clusters)]
	for i := range g.clusters {
		counts[i] = g.clusters[i].gauges.Counts()
		if counts[i].Total > 0 && !g.clusters[i].known.Load() {
			g.clusters[i].known.Store(true)
		}
	}
	verdict := g.config.Judge(g.liveness.Draining(g.live.Get()), counts)
	g.count(verdict.Reason)
	g.note(verdict, counts)
	return g.replies.of(verdict)
}

// Failure is the answer where none could be found: something went wrong on the way. It fails closed.
func (g *Gate) Failure() *Reply {
	g.count(Error)
	return g.replies.of(Verdict{Reason: Error})
}

func (g *Gate) count(reason Reason) {
	g.metrics.byReason[reason].Increment(1)
	if reason != OK {
		g.metrics.failed.Increment(1)
	}
}

// note logs and counts a change of verdict, once.
func (g *Gate) note(verdict Verdict, counts []Counts) {
	now := stateFailing
	if verdict.Pass() {
		now = statePassing
	}
	if g.state.Load() == now {
		return
	}
	if before, changed := g.turn(now); changed {
		g.host.Info(g.describe(before, verdict, counts))
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
	g.state.Store(now)
	return before, true
}

// describe is the log line of a change: what the answer was and is, why, and the numbers.
func (g *Gate) describe(before uint32, verdict Verdict, counts []Counts) string {
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
	for i, c := range counts {
		b.WriteString(separator(i) + "cluster " + strconv.Quote(g.config.Clusters[i].Name) + " has ")
		b.WriteString(strconv.FormatUint(c.Healthy, 10) + " healthy and ")
		b.WriteString(strconv.FormatUint(c.Degraded, 10) + " degraded of ")
		b.WriteString(strconv.FormatUint(c.Total, 10) + " hosts")
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
	for i := range g.clusters {
		member, cluster := &g.clusters[i], g.config.Clusters[i]
		if member.known.Load() || member.gauges.Total.Get() > 0 {
			continue
		}
		g.host.Warn(g.name() + ": cluster " + strconv.Quote(cluster.Name) + " has shown no host yet, so it fails. " +
			"Likely: it has none (see /clusters on Envoy's admin port); or Envoy has no cluster of this name, or one with " +
			"an alt_stat_name (set clusters[" + strconv.Itoa(i) + "].stat_name to it); or a stats matcher leaves out " +
			statScope(cluster.StatName) + membershipTotal + " (see stats_config)")
	}
}
