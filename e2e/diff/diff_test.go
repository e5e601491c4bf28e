package main

import (
	"healthgate/e2e/door"
	"healthgate/e2e/walk"
	"slices"
	"testing"
	"time"
)

func TestShrinkFindsTheShortest(t *testing.T) {
	var events []walk.Event
	for i := range 200 {
		events = append(events, walk.Event{Kind: "host", Host: i})
	}
	for name, needed := range map[string][]int{
		"the last":            {199},
		"two that are far":    {3, 199},
		"some in the middle":  {70, 71, 130},
		"all of the last ten": {190, 191, 192, 193, 194, 195, 196, 197, 198, 199},
	} {
		tries := 0
		got := shrink(events, func(some []walk.Event) bool {
			tries++
			for _, host := range needed {
				if !slices.Contains(some, walk.Event{Kind: "host", Host: host}) {
					return false
				}
			}
			return true
		}, time.Minute)
		if len(got) != len(needed) || tries > 200 {
			t.Errorf("%s: %d events are left after %d tries, want %d", name, len(got), tries, len(needed))
		}
	}
}

// contrib is the door that is searched.
func contrib(t *testing.T) door.Door {
	t.Helper()
	d, err := door.Named("contrib")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAMinuteOfRandomEventsShowsNoDisagreement(t *testing.T) {
	t.Parallel()
	result, err := Search(t.Context(), contrib(t), uint64(time.Now().UnixNano()), time.Minute, func(line string) { t.Log(line) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: %d events, compared %v", result.Seed, result.Events, result.Compared)
	if result.Disagreement != nil {
		t.Errorf("seed %d: %s; shortest list of events: %+v", result.Seed, result.Disagreement, result.Shortest)
	}
	if result.Compared["the model"] < 500 || result.Compared["Envoy's own filter"] < 20 || result.Compared["the model, by the second listener"] < 20 {
		t.Errorf("only %v were compared, too few to show anything", result.Compared)
	}
}

// Were Healthgate wrong, it would be found, and told in few words.
func TestADisagreementIsFoundAndShortened(t *testing.T) {
	t.Parallel()
	// Turned round: the model is wrong about hosts that serve only because they are degraded.
	wrong := func(a walk.Answer) walk.Answer {
		a.Degraded = false
		return a
	}
	result, err := Search(t.Context(), contrib(t), 1, time.Minute, func(line string) { t.Log(line) }, wrong)
	if err != nil {
		t.Fatal(err)
	}
	if result.Disagreement == nil {
		t.Fatalf("not found in %d events", result.Events)
	}
	t.Logf("after %d events: %s; shortest: %+v", result.Events, result.Disagreement, result.Shortest)
	if len(result.Shortest) > 3 || !shows(t.Context(), result.Shortest, walk.Options{Door: contrib(t), Wrong: wrong, Drained: result.Drained}) ||
		shows(t.Context(), result.Shortest, walk.Options{Door: contrib(t), Drained: result.Drained}) {
		t.Errorf("the shortest list is %+v", result.Shortest)
	}
}
