package policy

import (
	"math/rand/v2"
	"testing"
	"time"
)

// epoch is when a test starts.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestHoldChangesOnlyAfterItsTimeWithoutInterruption(t *testing.T) {
	hold := Hold{UnhealthyAfter: 3 * time.Second, HealthyAfter: 10 * time.Second}
	for name, steps := range map[string][]struct {
		at              float64 // seconds
		sampled, answer bool
	}{
		"starts without delay, passing": {{0, true, true}, {1, true, true}},
		"starts without delay, failing": {{0, false, false}, {1, false, false}},
		"fails after its time":          {{0, true, true}, {1, false, true}, {3.9, false, true}, {4, false, false}, {5, false, false}},
		"an interruption starts the delay again": {
			{0, true, true}, {1, false, true}, {3, true, true}, {3.5, false, true}, {6.4, false, true}, {6.5, false, false},
		},
		"passes after its own time": {{0, false, false}, {1, true, false}, {10.9, true, false}, {11, true, true}},
		"an interruption while passing again": {{0, false, false}, {1, true, false}, {10, false, false}, {11, true, false},
			{20.9, true, false}, {21, true, true}},
		"after a change the other delay counts": {{0, true, true}, {1, false, true}, {4, false, false}, {5, true, false}, {14.9, true, false},
			{15, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			var state HoldState
			for _, step := range steps {
				state = hold.Next(state, epoch.Add(time.Duration(step.at*float64(time.Second))), step.sampled)
				if state.Passing != step.answer {
					t.Errorf("at %vs with %v got %v, want %v", step.at, step.sampled, state.Passing, step.answer)
				}
			}
		})
	}
}

func TestHoldInOneDirection(t *testing.T) {
	for _, test := range []struct {
		name                 string
		hold                 Hold
		configured, down, up bool // down and up: the verdict right after a change
	}{
		{"neither", Hold{}, false, false, true},
		{"unhealthy_after", Hold{UnhealthyAfter: time.Second}, true, true, true},
		{"healthy_after", Hold{HealthyAfter: time.Second}, true, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			down := test.hold.Next(HoldState{Known: true, Passing: true}, epoch, false)
			up := test.hold.Next(HoldState{Known: true}, epoch, true)
			if test.hold.Configured() != test.configured || down.Passing != test.down || up.Passing != test.up {
				t.Errorf("configured %v, passing %v after a failure and %v after a pass", test.hold.Configured(), down.Passing, up.Passing)
			}
		})
	}
}

// However the clusters flap, the verdict changes only if they contradicted it for all of the delay.
func TestHoldNeverChangesEarly(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	hold := Hold{UnhealthyAfter: 5 * time.Second, HealthyAfter: 8 * time.Second}
	var state HoldState
	now, since, sampled := epoch, epoch, true
	for i := range rounds {
		now = now.Add(time.Duration(r.Int64N(int64(4 * time.Second))))
		if next := r.IntN(4) > 0; next != sampled {
			sampled, since = next, now
		}
		before := state
		state = hold.Next(state, now, sampled)
		if i == 0 || before.Passing == state.Passing {
			continue
		}
		wait := hold.UnhealthyAfter
		if state.Passing {
			wait = hold.HealthyAfter
		}
		if state.Passing != sampled || now.Sub(since) < wait {
			t.Fatalf("step %d: changed to %v, %v after the clusters", i, state.Passing, now.Sub(since))
		}
	}
}
