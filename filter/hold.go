package filter

import (
	"slices"
	"sync"
	"time"
)

// Hold debounces the verdict. Both durations are 0 to 24 h; 0 delays nothing.
type Hold struct {
	UnhealthyAfter time.Duration // a passing gate fails only after failing this long without a break
	HealthyAfter   time.Duration // a failing gate passes only after passing this long without a break
}

// configured reports whether any change is delayed.
func (h Hold) configured() bool { return h.UnhealthyAfter > 0 || h.HealthyAfter > 0 }

// Standing is the state of a hold: the verdict that stands, and since when the clusters say otherwise. The zero Standing takes
// the first verdict as it is.
type Standing struct {
	known    bool
	passing  bool      // the verdict that stands
	pending  bool      // the clusters say otherwise
	pendedAt time.Time // since when, while pending
}

// Observe returns the state after the clusters said at a time whether the gate passes.
func (h Hold) Observe(held Standing, now time.Time, passing bool) Standing {
	switch {
	case !held.known:
		return Standing{known: true, passing: passing}
	case passing == held.passing:
		held.pending = false // an interruption: the delay starts anew
		return held
	case !held.pending:
		held.pending, held.pendedAt = true, now
	}
	wait := h.UnhealthyAfter
	if passing {
		wait = h.HealthyAfter
	}
	if now.Sub(held.pendedAt) >= wait {
		return Standing{known: true, passing: passing}
	}
	return held
}

// debounce is the state of one gate's hold.
type debounce struct {
	mutex    sync.Mutex
	standing Standing
	leftAt   time.Time // when its gate was closed; zero before. Guarded by debounces.mutex
}

func (d *debounce) observe(h Hold, now time.Time, passing bool) (stands bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.standing = h.Observe(d.standing, now, passing)
	return d.standing.passing
}

func (d *debounce) pending() bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.standing.pending
}

// debounces hand the state of a hold on from a gate to the next one with the same configuration: Envoy builds every override
// anew when anything in its route configuration changes, and every filter when anything in its listener does.
type debounces struct {
	mutex    sync.Mutex
	byDigest map[string][]*debounce // by the configuration's digest, oldest first
	sweptAt  time.Time
}

// debounceKept is how long the state of a hold waits for the next gate: that one is made with the first probe after an update.
const debounceKept = time.Minute

// join returns the state for a new gate: a copy of the state of the newest gate with the same configuration that has judged, if any.
func (d *debounces) join(digest string, now time.Time) *debounce {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if now.Sub(d.sweptAt) > debounceKept {
		for digest, states := range d.byDigest {
			if states = slices.DeleteFunc(states, func(s *debounce) bool { return s.expired(now) }); len(states) == 0 {
				delete(d.byDigest, digest)
			} else {
				d.byDigest[digest] = states
			}
		}
		d.sweptAt = now
	}
	state := &debounce{}
	states := slices.DeleteFunc(d.byDigest[digest], func(s *debounce) bool { return s.expired(now) })
	for _, other := range slices.Backward(states) {
		if state.standing = other.now(); state.standing.known {
			break
		}
	}
	states = slices.DeleteFunc(states, func(s *debounce) bool { return !s.leftAt.IsZero() })
	if d.byDigest == nil {
		d.byDigest = make(map[string][]*debounce)
	}
	d.byDigest[digest] = append(states, state)
	return state
}

// leave keeps the state of a closed gate for the next one, unless another gate with the same configuration has judged too.
func (d *debounces) leave(digest string, state *debounce, now time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	state.leftAt = now
	states := d.byDigest[digest]
	has := func(s *debounce) bool { return s != state && s.now().known }
	if len(states) > 1 && !state.now().known || slices.ContainsFunc(states, has) {
		states = slices.DeleteFunc(states, func(s *debounce) bool { return s == state })
	}
	if d.byDigest[digest] = states; len(states) == 0 {
		delete(d.byDigest, digest)
	}
}

func (d *debounce) now() Standing {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.standing
}

func (d *debounce) expired(now time.Time) bool {
	return !d.leftAt.IsZero() && now.Sub(d.leftAt) > debounceKept
}
