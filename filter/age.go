package filter

import (
	"sync"
	"sync/atomic"
	"time"
)

// ages are the movements of the clusters' counters, by the name of their stats: one for a process, over all its
// configurations. A configuration that comes does not make a cluster any fresher.
type ages struct {
	mutex  sync.Mutex
	byName map[string]*movement
}

// movement notices when a counter stops. Its methods are safe for use from any thread.
type movement struct {
	ages    *ages
	readers int // sources that hold the counter; guarded by ages.mutex
	began   time.Time
	last    atomic.Uint64
	movedAt atomic.Int64 // nanoseconds since began
	moved   atomic.Bool  // it has been seen to move
}

// join returns the movement of a counter for one more reader of it, which sees it at value. While somebody holds a counter
// Envoy keeps it, and it only grows: a lower value is that of a reader whose own stats are filtered. Once nobody has held
// it, it may have begun anew.
func (a *ages) join(name string, now time.Time, value uint64) *movement {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	m := a.byName[name]
	if m == nil {
		m = &movement{ages: a, began: now}
		m.last.Store(value)
		if a.byName == nil {
			a.byName = make(map[string]*movement)
		}
		a.byName[name] = m
	}
	if m.readers == 0 && value < m.last.Load() {
		m.movedAt.Store(int64(now.Sub(m.began)))
		m.last.Store(value)
	}
	m.readers++
	m.age(now, value)
	return m
}

// leave ends what a join began.
func (m *movement) leave() {
	m.ages.mutex.Lock()
	defer m.ages.mutex.Unlock()
	m.readers--
}

// age returns for how long the counter has stood still.
func (m *movement) age(now time.Time, value uint64) time.Duration {
	at := int64(now.Sub(m.began))
	for {
		last := m.last.Load()
		if value <= last {
			return time.Duration(at - m.movedAt.Load())
		}
		// The time first: whoever reads the new value must not find the old time.
		m.movedAt.Store(at)
		if m.last.CompareAndSwap(last, value) {
			m.moved.Store(true)
			return 0
		}
	}
}
