package gate

import (
	"slices"
	"sync"
	"time"

	"healthgate/filter/policy"
)

// debounce is the debounced verdict of one gate.
type debounce struct {
	mutex    sync.Mutex
	state    policy.HoldState
	closedAt time.Time // zero while its gate is open; guarded by holds.mutex
}

// next records the verdict of an evaluation, and reports whether the gate passes.
func (d *debounce) next(h policy.Hold, now time.Time, passing bool) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.state = h.Next(d.state, now, passing)
	return d.state.Passing
}

func (d *debounce) current() policy.HoldState {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.state
}

func (d *debounce) isExpired(now time.Time) bool {
	return !d.closedAt.IsZero() && now.Sub(d.closedAt) > expireAfter
}

// holds hands debounced verdicts on to the next gate with the same configuration: Envoy creates every override again if anything in its
// route configuration changes, and every filter if anything in its listener changes.
type holds struct {
	mutex     sync.Mutex
	byDigest  map[string][]*debounce // by the configuration's digest, oldest first
	cleanedAt time.Time
}

// expireAfter is how long a closed gate's state is kept for the next one, which is created with the first probe after an update.
const expireAfter = time.Minute

// register returns the state for a new gate: a copy of the state of the newest evaluated gate with the same configuration, if there is one.
func (h *holds) register(digest string, now time.Time) *debounce {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if now.Sub(h.cleanedAt) > expireAfter {
		for digest, all := range h.byDigest {
			if all = slices.DeleteFunc(all, func(d *debounce) bool { return d.isExpired(now) }); len(all) == 0 {
				delete(h.byDigest, digest)
			} else {
				h.byDigest[digest] = all
			}
		}
		h.cleanedAt = now
	}
	added := &debounce{}
	all := slices.DeleteFunc(h.byDigest[digest], func(d *debounce) bool { return d.isExpired(now) })
	for _, other := range slices.Backward(all) {
		if added.state = other.current(); added.state.Known {
			break
		}
	}
	all = slices.DeleteFunc(all, func(d *debounce) bool { return !d.closedAt.IsZero() })
	if h.byDigest == nil {
		h.byDigest = make(map[string][]*debounce)
	}
	h.byDigest[digest] = append(all, added)
	return added
}

// unregister keeps the state of a closed gate for the next one, unless another gate with the same configuration has a state too.
func (h *holds) unregister(digest string, closed *debounce, now time.Time) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	closed.closedAt = now
	all := h.byDigest[digest]
	isOtherKnown := func(d *debounce) bool { return d != closed && d.current().Known }
	if len(all) > 1 && !closed.current().Known || slices.ContainsFunc(all, isOtherKnown) {
		all = slices.DeleteFunc(all, func(d *debounce) bool { return d == closed })
	}
	if h.byDigest[digest] = all; len(all) == 0 {
		delete(h.byDigest, digest)
	}
}
