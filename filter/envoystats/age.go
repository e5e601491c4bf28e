package envoystats

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Ages has the ages of the clusters' counters by name, for all configurations of a process: a new configuration does not make a
// cluster fresh. The zero value is ready.
type Ages struct {
	mutex  sync.Mutex
	byName map[string]*counterAge
	unused int // the number of ages without readers
}

// maxUnusedAges bounds the ages without readers that are kept. If there are more, all of them are forgotten.
const maxUnusedAges = 10_000

// counterAge measures how long a counter has been unchanged. Its methods are safe for concurrent use.
type counterAge struct {
	ages  *Ages
	refs  int // guarded by ages.mutex
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

// register returns the age of a counter, whose value is now value. Each call needs one unregister.
func (a *Ages) register(name string, now time.Time, value uint64) *counterAge {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	registered := a.byName[name]
	switch {
	case registered == nil:
		registered = &counterAge{ages: a, start: now}
		registered.last.Store(value)
		if a.byName == nil {
			a.byName = make(map[string]*counterAge)
		}
		a.byName[name] = registered
	case registered.refs == 0:
		a.unused--
		// The time since the last read counts, although nothing read the counter. Otherwise read would assume that the process was stopped.
		registered.readAt.Store(int64(now.Sub(registered.start)))
	}
	registered.refs++
	registered.read(now, value)
	return registered
}

// unregister undoes one register. The age is kept for a configuration that may be created later.
func (c *counterAge) unregister() {
	a := c.ages
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if c.refs--; c.refs > 0 {
		return
	}
	if a.unused++; a.unused > maxUnusedAges {
		maps.DeleteFunc(a.byName, func(_ string, other *counterAge) bool { return other.refs == 0 })
		a.unused = 0
	}
}

// restart records that the counter was reset. Then the next check is a change, even if it takes the counter to the value from before the
// reset. The reset itself is no check.
func (c *counterAge) restart() {
	if c.last.Load() != 0 {
		c.last.Store(0)
	}
}

// read returns how long the counter has had this value, without the time during which the whole process was stopped.
//
// A lower value counts as a change: the counter was reset, with its cluster or by /reset_counters. 0 does not count as a change, because a
// reader whose own stats matcher rejects the counter reads 0 too.
func (c *counterAge) read(now time.Time, value uint64) time.Duration {
	at := int64(now.Sub(c.start))
	if readAt := c.readAt.Load(); at-readAt > int64(rereadAfter) && c.readAt.CompareAndSwap(readAt, at) && at-readAt > int64(frozenAfter) {
		c.changedAt.Add(at - readAt)
	}
	if value == c.last.Load() || value == 0 {
		return time.Duration(at - c.changedAt.Load())
	}
	c.changedAt.Store(at) // first, so that the new value is never read with the old time
	c.last.Store(value)
	c.changed.Store(true)
	return 0
}
