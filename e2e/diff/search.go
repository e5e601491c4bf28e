package main

import (
	"context"
	"fmt"
	"healthgate/e2e/bed"
	"healthgate/e2e/walk"
	"math/rand/v2"
	"strings"
	"time"
)

// Result is what a run of random events has come to.
type Result struct {
	Seed    uint64 `json:"seed"`
	Events  int    `json:"events"`
	Drained bool   `json:"drained"` // whether Envoy was started in drain mode
	Explain int    `json:"explained_in_one_state_of"`
	walk.Seen
	Disagreement *walk.Disagreement `json:"disagreement,omitempty"`
	Shortest     []walk.Event       `json:"shortest,omitempty"` // the shortest list of events found that shows it
}

// Search goes through random events of a seed, until the time is over or there is a disagreement, which it shortens.
func Search(ctx context.Context, o walk.Options, seed uint64, duration time.Duration, say func(string)) (*Result, error) {
	random := rand.New(rand.NewPCG(seed, 0))
	o.Drained = random.IntN(4) == 0
	run, err := walk.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer run.Close()
	result := &Result{Seed: seed, Drained: o.Drained, Explain: o.Explain, Seen: run.Seen}
	var events []walk.Event
	last := time.Now()
	for until := time.Now().Add(duration); time.Now().Before(until); {
		event := walk.Next(random)
		events = append(events, event)
		result.Events++
		found, err := run.Apply(ctx, event)
		if err != nil {
			return result, fmt.Errorf("seed %d, event %d: %w; envoy's log ends:\n%s", seed, result.Events, err, bed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			say(fmt.Sprintf("event %d: %s; shortening the events", result.Events, found))
			result.Disagreement = found
			if strings.HasPrefix(found.With, walk.Command) {
				o.Explain = 1 // the shortest list has few states
			}
			result.Shortest = shrink(events, func(some []walk.Event) bool { return shows(ctx, some, o) }, 2*time.Minute)
			return result, nil
		}
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			say(fmt.Sprintf("%d events, %d comparisons, no disagreement", result.Events, run.Comparisons()))
		}
	}
	return result, nil
}

// shows says whether a list of events ends in a disagreement, in an Envoy of its own.
func shows(ctx context.Context, events []walk.Event, o walk.Options) bool {
	run, err := walk.Start(ctx, o)
	if err != nil {
		return false
	}
	defer run.Close()
	for _, event := range events {
		found, err := run.Apply(ctx, event)
		if err != nil {
			return false
		}
		if found != nil {
			return true
		}
	}
	return false
}
