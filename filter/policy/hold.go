package policy

import "time"

// Hold debounces the verdict. Both durations are 0 to 24 h; 0 delays nothing.
type Hold struct {
	UnhealthyAfter time.Duration // a passing gate fails only after failing this long without interruption
	HealthyAfter   time.Duration // a failing gate passes only after passing this long without interruption
}

// Configured reports whether any change is delayed.
func (h Hold) Configured() bool { return h.UnhealthyAfter > 0 || h.HealthyAfter > 0 }

// HoldState is the debounced verdict, and since when the clusters contradict it. The zero HoldState accepts the first verdict at once.
type HoldState struct {
	Known        bool      // there is a debounced verdict
	Passing      bool      // the debounced verdict
	Pending      bool      // the clusters contradict it
	pendingSince time.Time // since when, while Pending
}

// Next returns the state after an evaluation; passing is its verdict.
func (h Hold) Next(state HoldState, now time.Time, passing bool) HoldState {
	switch {
	case !state.Known:
		return HoldState{Known: true, Passing: passing}
	case passing == state.Passing:
		state.Pending = false // an interruption: the delay starts again
		return state
	case !state.Pending:
		state.Pending, state.pendingSince = true, now
	}
	delay := h.UnhealthyAfter
	if passing {
		delay = h.HealthyAfter
	}
	if now.Sub(state.pendingSince) >= delay {
		return HoldState{Known: true, Passing: passing}
	}
	return state
}
