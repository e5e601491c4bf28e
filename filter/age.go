package filter

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"
)

// ages are the movements of the clusters' counters by name: one for a process, over all its configurations. A new
// configuration does not make a cluster any fresher.
type ages struct {
	mutex  sync.Mutex
	byName map[string]*movement
	idle   list.List // of *movement without readers, the one that lost its last reader first in front
}

// movement notices when a counter stops. Its methods are safe for concurrent use.
type movement struct {
	ages    *ages
	name    string
	readers int           // sources that hold the counter; guarded by ages.mutex
	idle    *list.Element // its place in ages.idle while readers is 0; likewise
	began   time.Time

	last            atomic.Uint64 // the counter's last value
	moved           atomic.Bool   // the counter has been seen to change
	movedAt, readAt atomic.Int64  // when it last changed and was last read, in nanoseconds since began
}

const (
	// rereadAfter spares a store per probe, which would move the cache line between workers.
	rereadAfter = 100 * time.Millisecond
	// frozenAfter is how long a counter goes unread only in a process that is stopped: a gate with stale_after reads it at
	// least once a second.
	frozenAfter = 3 * time.Second
)

// join returns the movement of a counter for one more reader, which reads value now.
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
		m.readAt.Store(int64(now.Sub(m.began)))
	}
	m.readers++
	m.age(now, value)
	return m
}

// leave undoes a join. The age stays for a configuration that comes after a gap; of more than `most` names without readers
// the one that lost its last reader first is forgotten.
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

// age returns for how long the counter has had its value, without the time for which the whole process was stopped.
//
// A lower value is a counter that begins anew, with its cluster or by /reset_counters: it has changed. 0 is no change: that is
// also what a reader sees whose own stats matcher leaves the counter out.
func (m *movement) age(now time.Time, value uint64) time.Duration {
	at := int64(now.Sub(m.began))
	if readAt := m.readAt.Load(); at-readAt > int64(rereadAfter) && m.readAt.CompareAndSwap(readAt, at) && at-readAt > int64(frozenAfter) {
		m.movedAt.Add(at - readAt)
	}
	last := m.last.Load()
	if value == last || value == 0 {
		return time.Duration(at - m.movedAt.Load())
	}
	m.movedAt.Store(at) // first, so that nothing reads the new value with the old time
	m.last.Store(value)
	m.moved.Store(true)
	return 0
}
