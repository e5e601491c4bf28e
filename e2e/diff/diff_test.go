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

// both are the doors that are searched, in one Envoy.
func both(t *testing.T) walk.Options {
	t.Helper()
	doors, err := walk.Doors("both")
	if err != nil {
		t.Fatal(err)
	}
	return walk.Options{Doors: doors, Explain: 8}
}

func TestAMinuteOfRandomEventsShowsNoDisagreement(t *testing.T) {
	t.Parallel()
	result, err := Search(t.Context(), both(t), uint64(time.Now().UnixNano()), time.Minute, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: %d events, compared %v, the longest waits %v ms, ghosts %v", result.Seed, result.Events, result.Compared, result.Longest, result.Ghosts)
	if result.Disagreement != nil {
		t.Errorf("seed %d: %s; shortest list of events: %+v", result.Seed, result.Disagreement, result.Shortest)
	}
	for with, atLeast := range map[string]int{
		"contrib and the model": 200, "contrib and Envoy's own filter": 10, "contrib and the model, by the second listener": 10,
		"stock and the model": 200, "stock and Envoy's own filter": 10, "stock and the model, by the second listener": 10,
		"stock and the model, of a cluster that is gone": 10, "stock's Check and the model": 10, "stock's Watch and the model": 30,
		"explain by numbers and the gate": 10, "explain by probe and the gate": 10,
	} {
		if result.Compared[with] < atLeast {
			t.Errorf("%s were compared %d times, want %d for it to show anything", with, result.Compared[with], atLeast)
		}
	}
}

// Were one of the doors wrong, it would be found, and told in few words.
func TestADisagreementIsFoundAndShortened(t *testing.T) {
	// Turned round: the model is wrong about something of a door's.
	for name, wrong := range map[string]func(door.Door, walk.Answer) walk.Answer{
		"contrib, of hosts that serve only because they are degraded": func(d door.Door, a walk.Answer) walk.Answer {
			a.Degraded = a.Degraded && d.Name() != "contrib"
			return a
		},
		"stock, of a cluster that is gone": func(d door.Door, a walk.Answer) walk.Answer {
			if a.Details == "healthgate_cluster_unknown" {
				a.Details = "healthgate_cluster_empty"
			}
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := both(t)
			o.Wrong = wrong
			result, err := Search(t.Context(), o, 1, time.Minute, func(line string) { t.Log(line) })
			if err != nil {
				t.Fatal(err)
			}
			if result.Disagreement == nil {
				t.Fatalf("not found in %d events", result.Events)
			}
			t.Logf("after %d events: %s; shortest: %+v", result.Events, result.Disagreement, result.Shortest)
			o.Drained = result.Drained
			if len(result.Shortest) > 3 || !shows(t.Context(), result.Shortest, o) {
				t.Errorf("the shortest list is %+v", result.Shortest)
			}
			if o.Wrong = nil; shows(t.Context(), result.Shortest, o) {
				t.Errorf("%+v shows it of the truth too", result.Shortest)
			}
		})
	}
}
