package policy

import (
	"sync/atomic"
	"time"
)

// CounterAge measures how long a counter has been unchanged. Its methods are safe for concurrent use.
type CounterAge struct {
	start time.Time

	last              atomic.Uint64 // the counter's last value
	changed           atomic.Bool   // the counter has changed since start
	changedAt, readAt atomic.Int64  // when it last changed and was last read, in nanoseconds since start
}

const (
	// rereadAfter avoids a store per probe, which would move the cache line between workers.
	rereadAfter = 100 * time.Millisecond
	// frozenAfter is the time between two reads that shows that the process was stopped in between: a gate with stale_after reads the
	// counter at least once a second.
	frozenAfter = 3 * time.Second
)

// NewCounterAge returns the age of a counter, which is 0 now.
func NewCounterAge(now time.Time, value uint64) *CounterAge {
	a := &CounterAge{start: now}
	a.last.Store(value)
	return a
}

// Resume makes the time since the last read count as the counter's age, although nothing read the counter. Otherwise Read would assume that
// the process was stopped.
func (a *CounterAge) Resume(now time.Time) { a.readAt.Store(int64(now.Sub(a.start))) }

// Changed reports whether the counter has changed since NewCounterAge.
func (a *CounterAge) Changed() bool { return a.changed.Load() }

// Read returns how long the counter has had this value, without the time during which the whole process was stopped.
//
// A lower value counts as a change: the counter was reset, with its cluster or by /reset_counters. 0 does not count as a change, because a
// reader whose own stats matcher rejects the counter reads 0 too.
func (a *CounterAge) Read(now time.Time, value uint64) time.Duration {
	at := int64(now.Sub(a.start))
	if readAt := a.readAt.Load(); at-readAt > int64(rereadAfter) && a.readAt.CompareAndSwap(readAt, at) && at-readAt > int64(frozenAfter) {
		a.changedAt.Add(at - readAt)
	}
	if value == a.last.Load() || value == 0 {
		return time.Duration(at - a.changedAt.Load())
	}
	a.changedAt.Store(at) // first, so that the new value is never read with the old time
	a.last.Store(value)
	a.changed.Store(true)
	return 0
}
