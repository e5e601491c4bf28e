package filter

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"
)

// ages are the movements of the clusters' counters, by the name of their stats: one for a process, over all its
// configurations. A configuration that comes does not make a cluster any fresher.
type ages struct {
	mutex  sync.Mutex
	byName map[string]*movement
	idle   list.List // of *movement: those that nobody reads, the one that was left first in front
}

// movement notices when a counter stops. Its methods are safe for use from any thread.
type movement struct {
	ages    *ages
	name    string
	readers int           // sources that hold the counter; guarded by ages.mutex
	idle    *list.Element // its place in ages.idle where readers is 0; likewise
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
	switch {
	case m == nil:
		m = &movement{ages: a, name: name, began: now}
		m.last.Store(value)
		if a.byName == nil {
			a.byName = make(map[string]*movement)
		}
		a.byName[name] = m
	case m.readers == 0:
		a.idle.Remove(m.idle)
	}
	if m.readers == 0 && value < m.last.Load() {
		m.movedAt.Store(int64(now.Sub(m.began)))
		m.last.Store(value)
	}
	m.readers++
	m.age(now, value)
	return m
}

// leave ends what a join began. The age stays, for a configuration that comes after a gap; of more than `most` names that nobody
// reads, the one that was left first is forgotten.
func (m *movement) leave() {
	a := m.ages
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if m.readers--; m.readers > 0 {
		return
	}
	m.idle = a.idle.PushBack(m)
	if a.idle.Len() > most {
		first := a.idle.Remove(a.idle.Front()).(*movement)
		delete(a.byName, first.name)
	}
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
