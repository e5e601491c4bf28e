package policy

import (
	"math/rand/v2"
	"testing"
	"time"
)

// epoch is when a test starts.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestHoldTurnsOnlyAfterItsTimeWithoutABreak(t *testing.T) {
	hold := Hold{UnhealthyAfter: 3 * time.Second, HealthyAfter: 10 * time.Second}
	for name, steps := range map[string][]struct {
		at            float64 // seconds
		truth, answer bool
	}{
		"starts with the truth, passing": {{0, true, true}, {1, true, true}},
		"starts with the truth, failing": {{0, false, false}, {1, false, false}},
		"fails after its time":           {{0, true, true}, {1, false, true}, {3.9, false, true}, {4, false, false}, {5, false, false}},
		"a break starts it anew": {
			{0, true, true}, {1, false, true}, {3, true, true}, {3.5, false, true}, {6.4, false, true}, {6.5, false, false},
		},
		"passes after its own time":         {{0, false, false}, {1, true, false}, {10.9, true, false}, {11, true, true}},
		"a break on the way back":           {{0, false, false}, {1, true, false}, {10, false, false}, {11, true, false}, {20.9, true, false}, {21, true, true}},
		"after a turn the other time holds": {{0, true, true}, {1, false, true}, {4, false, false}, {5, true, false}, {14.9, true, false}, {15, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			var held HoldState
			for _, step := range steps {
				held = hold.Next(held, epoch.Add(time.Duration(step.at*float64(time.Second))), step.truth)
				if held.Passing != step.answer {
					t.Errorf("at %vs with %v got %v, want %v", step.at, step.truth, held.Passing, step.answer)
				}
			}
		})
	}
}

func TestHoldOfZeroIsTheTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var held HoldState
	for i := range rounds {
		truth := r.IntN(2) == 0
		held = Hold{}.Next(held, epoch.Add(time.Duration(i)), truth)
		if held.Passing != truth {
			t.Fatalf("step %d: got %v, want %v", i, held.Passing, truth)
		}
	}
}

// However the truth flaps, an answer changes only if the truth was the other one for all of the hold's time.
func TestHoldNeverTurnsEarly(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	hold := Hold{UnhealthyAfter: 5 * time.Second, HealthyAfter: 8 * time.Second}
	var held HoldState
	now, truthSince, truth := epoch, epoch, true
	for i := range rounds {
		now = now.Add(time.Duration(r.Int64N(int64(4 * time.Second))))
		if next := r.IntN(4) > 0; next != truth {
			truth, truthSince = next, now
		}
		before := held
		held = hold.Next(held, now, truth)
		if i == 0 || before.Passing == held.Passing {
			continue
		}
		wait := hold.UnhealthyAfter
		if held.Passing {
			wait = hold.HealthyAfter
		}
		if held.Passing != truth || now.Sub(truthSince) < wait {
			t.Fatalf("step %d: turned to %v, %v after the truth", i, held.Passing, now.Sub(truthSince))
		}
	}
}
