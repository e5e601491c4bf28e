package gate

import (
	"maps"
	"sync"
	"time"

	"healthgate/filter/policy"
)

// debounce is the debounced verdict of one gate.
type debounce struct {
	holds  *holds
	shared *held
	mutex  sync.Mutex
	begun  bool // next was called
	closed bool // by unregister
	state  policy.HoldState
}

// next records the verdict of an evaluation, and reports whether the gate passes. The first call continues the state of the gates with the
// same configuration.
func (d *debounce) next(h policy.Hold, now time.Time, passing bool) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !d.begun {
		d.begun, d.state = true, d.holds.begin(d.shared, now, d.closed)
	}
	if next := h.Next(d.state, now, passing); next != d.state {
		d.state = next
		d.holds.mutex.Lock()
		defer d.holds.mutex.Unlock()
		d.shared.state = next
	}
	return d.state.Passing
}

func (d *debounce) isPending() bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.state.Pending
}

// holds hands debounced verdicts on to the next gate with the same configuration: Envoy creates every override again if anything in its
// route configuration changes, and every filter if anything in its listener changes.
type holds struct {
	mutex    sync.Mutex
	byDigest map[string]*held // by the configuration's digest
}

// held is the last debounced verdict of the gates with one configuration. holds.mutex guards it.
type held struct {
	state       policy.HoldState
	open, begun int       // how many gates are open, and how many open gates have called next
	closedAt    time.Time // when a gate that had called next was last closed
}

// expireAfter is how long the state of closed gates is kept for the next one, which is created with the first probe after an update.
const expireAfter = time.Minute

// register adds a new gate. Its state begins with its first call of next.
func (h *holds) register(digest string, now time.Time) *debounce {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	maps.DeleteFunc(h.byDigest, func(_ string, s *held) bool { return s.open == 0 && s.expired(now) })
	if h.byDigest == nil {
		h.byDigest = make(map[string]*held)
	}
	if h.byDigest[digest] == nil {
		h.byDigest[digest] = &held{}
	}
	shared := h.byDigest[digest]
	shared.open++
	return &debounce{holds: h, shared: shared}
}

// expired reports whether nothing has updated the state for too long. holds.mutex must be held.
func (s *held) expired(now time.Time) bool { return s.begun == 0 && now.Sub(s.closedAt) > expireAfter }

// begin returns the state with which a gate begins. One that is closed already does not keep the state from expiring.
func (h *holds) begin(shared *held, now time.Time, closed bool) policy.HoldState {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if shared.expired(now) {
		shared.state = policy.HoldState{}
	}
	if !closed {
		shared.begun++
	}
	return shared.state
}

// unregister is called once the gate is closed. It may still be evaluated.
func (d *debounce) unregister(now time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.holds.mutex.Lock()
	defer d.holds.mutex.Unlock()
	d.closed = true
	d.shared.open--
	if d.begun {
		d.shared.begun--
		d.shared.closedAt = now
	}
}
