package filter

import (
	"sync"
	"sync/atomic"
)

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
	liveFound   Found       // nil where the host can't tell whether Envoy keeps the gauge
	seen        atomic.Bool // live was 1: it is kept, for this gate
}

func findServerStats(stats Stats) *serverStats {
	s := &serverStats{live: stats.Gauge(serverLive), state: stats.Gauge(serverState)}
	s.liveFound, _ = s.live.(Found)
	return s
}

// liveness tells draining from a gauge that can't be read. Envoy's server.live is 0 while draining, and also for ever where
// the stats of a listener are configured to leave it out. A gate's 0 means draining where the gate has read it at 1, or the host
// knows that it is kept, or the server's state says so, as in an Envoy that was started in drain mode. A gate that has seen none
// of that, such as one that comes during a drain, asks what the others of the process read: one liveness serves a process.
type liveness struct {
	mutex sync.Mutex
	kept  map[*serverStats]struct{} // those of living gates that have read it at 1
	known atomic.Bool               // some gate has
	up    atomic.Bool               // and last read it so
}

// draining says whether Envoy is draining.
func (l *liveness) draining(s *serverStats) bool {
	draining, sure := l.itself(s)
	return draining || !sure && (s.state.Get() == serverDraining || l.elsewhere())
}

// itself says whether Envoy is draining by the gate's own stat, and whether that can be told.
func (l *liveness) itself(s *serverStats) (draining, sure bool) {
	live := s.live.Get() > 0
	switch {
	case s.seen.Load():
	case live:
		l.keep(s)
	default:
		found := s.liveFound != nil && s.liveFound.Found()
		return found, found
	}
	if l.up.Load() != live { // a store a probe would bounce the cache line between workers
		l.up.Store(live)
	}
	return !live, true
}

// keep has the others ask this gate's.
func (l *liveness) keep(s *serverStats) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	s.seen.Store(true)
	if l.kept == nil {
		l.kept = make(map[*serverStats]struct{})
	}
	l.kept[s] = struct{}{}
	l.known.Store(true)
	l.up.Store(true)
}

// leave ends that.
func (l *liveness) leave(s *serverStats) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	delete(l.kept, s)
}

// elsewhere says whether Envoy is draining by what other gates read, or, where none of them lives, read last.
func (l *liveness) elsewhere() bool {
	if !l.known.Load() {
		return false
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for other := range l.kept {
		if live, there := read(other.live); there {
			l.up.Store(live > 0)
			break
		}
	}
	return !l.up.Load()
}

// read reads another gate's stat, whose side in Envoy may have gone: the host panics then.
func read(v Value) (value uint64, there bool) {
	defer func() { there = recover() == nil }()
	return v.Get(), true
}
