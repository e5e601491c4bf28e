package filter

import "time"

// Hold damps changes of the answer. Both durations are 0 to 24 h; 0 damps nothing.
type Hold struct {
	UnhealthyAfter time.Duration // a passing gate fails only after failing this long without a break
	HealthyAfter   time.Duration // a failing gate passes only after passing this long without a break
}

// configured says whether anything is damped.
func (h Hold) configured() bool { return h.UnhealthyAfter > 0 || h.HealthyAfter > 0 }

// Standing is what a hold remembers: the answer that stands, and since when the truth has been another. The zero one has
// seen nothing, and takes the first truth as it is.
type Standing struct {
	known    bool
	passing  bool      // the answer that stands
	pending  bool      // whether the truth is another
	pendedAt time.Time // since when, while pending
}

// Observe takes the truth at a time, and returns the answer that stands from then on.
func (h Hold) Observe(held Standing, now time.Time, passing bool) Standing {
	switch {
	case !held.known:
		return Standing{known: true, passing: passing}
	case passing == held.passing:
		held.pending = false // a break: the other answer starts anew
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
