package envoystats

import (
	"maps"
	"sync"
	"time"

	"healthgate/filter/policy"
)

// Ages has the ages of the clusters' counters by name, for all configurations of a process: a new configuration does not make a
// cluster fresh. The zero value is ready.
type Ages struct {
	mutex  sync.Mutex
	byName map[string]*Age
	unused int // the number of ages without readers
}

// maxUnusedAges bounds the ages without readers that are kept. If there are more, all of them are forgotten.
const maxUnusedAges = 10_000

// Age is the age of one counter.
type Age struct {
	*policy.CounterAge
	ages *Ages
	refs int // guarded by ages.mutex
}

// register returns the age of a counter, whose value is now value. Each call needs one unregister.
func (a *Ages) register(name string, now time.Time, value uint64) *Age {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	age := a.byName[name]
	switch {
	case age == nil:
		age = &Age{CounterAge: policy.NewCounterAge(now, value), ages: a}
		if a.byName == nil {
			a.byName = make(map[string]*Age)
		}
		a.byName[name] = age
	case age.refs == 0:
		a.unused--
		age.Resume(now)
	}
	age.refs++
	age.Read(now, value)
	return age
}

// unregister undoes one register. The age is kept for a configuration that may be created later.
func (age *Age) unregister() {
	a := age.ages
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if age.refs--; age.refs > 0 {
		return
	}
	if a.unused++; a.unused > maxUnusedAges {
		maps.DeleteFunc(a.byName, func(_ string, other *Age) bool { return other.refs == 0 })
		a.unused = 0
	}
}
