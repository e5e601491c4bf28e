package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"healthgate/e2e/bed"
)

// Result is the result of a run of random events.
type Result struct {
	Seed    uint64  `json:"seed"`
	Events  int     `json:"all_events"`
	Seconds float64 `json:"seconds"`
	Drained bool    `json:"drained"` // Envoy was started in drain mode
	*Seen
	Disagreement *Disagreement `json:"disagreement,omitempty"`
	Shortest     []Event       `json:"shortest,omitempty"` // the shortest list of events that was found to show it
}

// Search goes through random events of a seed, until the time is over or there is a disagreement. It shortens the events of that for at most
// some time.
func Search(ctx context.Context, o Options, seed uint64, duration, shorten time.Duration, log func(string)) (*Result, error) {
	began := time.Now()
	o.Drained = rand.New(rand.NewPCG(seed, 1)).IntN(4) == 0 && !o.Without["drain"]
	run, err := Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer run.Close()
	result := &Result{Seed: seed, Drained: o.Drained, Seen: &run.Seen}
	defer func() { result.Seconds = time.Since(began).Seconds() }()
	random := newGenerator(seed, o.Without, len(o.Variants) > 1 || o.Variants[0].Name == "plugin")
	var events []Event
	last := time.Now()
	for until := began.Add(duration); time.Now().Before(until); {
		event := random.Next(run.world)
		events = append(events, event)
		result.Events++
		found, err := run.Apply(ctx, event)
		if err != nil {
			return result, fmt.Errorf("seed %d, event %d: %w; envoy's log ends:\n%s", seed, result.Events, err, bed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			log(fmt.Sprintf("event %d, after %v, %s: %s; shortening the events", result.Events, time.Since(began).Round(time.Second/10), asJSON(event), found))
			result.Disagreement = found
			if strings.HasPrefix(found.With, command) {
				o.Explain = 1 // the shortest list has few states
			}
			run.Close()
			result.Shortest = shorter(events, func(some []Event) bool { return shows(ctx, some, o) != nil }, shorten)
			return result, nil
		}
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			log(fmt.Sprintf("%d events, %d states, %d comparisons, no disagreement", result.Events, run.States, run.Comparisons()))
		}
	}
	return result, nil
}

// shows returns the disagreement in which a list of events ends, in an Envoy of its own.
func shows(ctx context.Context, events []Event, o Options) *Disagreement {
	run, err := Start(ctx, o)
	if err != nil {
		return nil
	}
	defer run.Close()
	for _, event := range events {
		if found, err := run.Apply(ctx, event); err != nil || found != nil {
			return found
		}
	}
	return nil
}

// shorter returns a shorter list of events that still fails, the shortest that it finds until the time is over: first an end of the list,
// because each try is an Envoy of its own that goes through all of them; then with parts left out, ever smaller ones.
func shorter(events []Event, fails func([]Event) bool, atMost time.Duration) []Event {
	until := time.Now().Add(atMost)
	for n := 1; n < len(events) && time.Now().Before(until); n *= 2 {
		if end := events[len(events)-n:]; fails(end) {
			events = end
			break
		}
	}
	for size := len(events) / 2; size > 0; {
		shortened := false
		for at := 0; at+size <= len(events) && time.Now().Before(until); {
			without := slices.Concat(events[:at], events[at+size:])
			if len(without) > 0 && fails(without) {
				events, shortened = without, true
			} else {
				at += size
			}
		}
		if !shortened || size > len(events) {
			size /= 2
		}
	}
	return slices.Clone(events)
}
