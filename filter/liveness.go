package filter

import "sync/atomic"

// The names of the server's stats, in envoy/server/instance.h of Envoy v1.39.1.
const (
	serverLive        = "server.live"        // 1 while Envoy wants traffic, 0 after it was told to fail its health checks
	serverState       = "server.state"       // serverDraining and others; written with each flush of the stats, 5 s by default
	serverConcurrency = "server.concurrency" // workers, never 0; written before any configuration is read
	serverVersion     = "server.version"     // of Envoy's source, never 0; likewise

	serverDraining = 1 // of serverState, and of no other state
)

// serverStats are what a gate reads of Envoy itself.
type serverStats struct{ live, state, concurrency, version Value }

func findServerStats(stats Stats) serverStats {
	return serverStats{
		live: stats.Gauge(serverLive), state: stats.Gauge(serverState),
		concurrency: stats.Gauge(serverConcurrency), version: stats.Gauge(serverVersion),
	}
}

// Liveness tells draining from a gauge that can't be read. Envoy's server.live is 0 while draining, and also for ever where
// the stats are configured to leave it out. 0 means draining in a process that has seen it at 1; where the server's state
// says so; and where Envoy keeps two other stats of its own that are never 0, so that it keeps this one. One Liveness serves
// a process: a gate made during a drain has not seen the 1 itself.
type Liveness struct {
	kept   atomic.Bool // Envoy keeps server.live
	warned atomic.Bool // somebody was told that it does not
}

// draining says whether Envoy is draining.
func (l *Liveness) draining(s serverStats) bool {
	if s.live.Get() > 0 {
		if !l.kept.Load() { // a store a probe would bounce the cache line between workers
			l.kept.Store(true)
		}
		return false
	}
	if !l.kept.Load() && (s.state.Get() == serverDraining || s.concurrency.Get() > 0 && s.version.Get() > 0) {
		l.kept.Store(true)
	}
	return l.kept.Load()
}
