package filter

import "sync/atomic"

// The names of the server's stats, in envoy/server/instance.h of Envoy v1.39.1.
const (
	serverLive  = "server.live"  // 1 while Envoy wants traffic, 0 after it was told to fail its health checks
	serverState = "server.state" // serverDraining and others; written when the workers start, and with each flush of the stats

	serverDraining = 1 // of serverState, and of no other state
)

// ServerReads are the gauges of Envoy itself that a gate reads.
func ServerReads() []string { return []string{serverLive, serverState} }

// serverStats are what a gate reads of Envoy itself.
type serverStats struct {
	live, state Value
	liveFound   Found // nil where the host can't tell whether Envoy keeps the gauge
}

func findServerStats(stats Stats) serverStats {
	s := serverStats{live: stats.Gauge(serverLive), state: stats.Gauge(serverState)}
	s.liveFound, _ = s.live.(Found)
	return s
}

// Liveness tells draining from a gauge that can't be read. Envoy's server.live is 0 while draining, and also for ever where
// the stats are configured to leave it out. 0 means draining in a process that has seen it at 1, and where the server's state
// says so, as in one that was started in drain mode; and wherever the host knows that Envoy keeps the gauge. One Liveness
// serves a process: a gate made during a drain has not seen the 1 itself.
type Liveness struct {
	seen   atomic.Bool // server.live was 1
	warned atomic.Bool // somebody was told that it never was
}

// draining says whether Envoy is draining.
func (l *Liveness) draining(s serverStats) bool {
	if s.live.Get() == 0 {
		return s.liveFound != nil && s.liveFound.Found() || l.seen.Load() || s.state.Get() == serverDraining
	}
	if !l.seen.Load() { // a store a probe would bounce the cache line between workers
		l.seen.Store(true)
	}
	return false
}
