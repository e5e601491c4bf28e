package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"healthgate/e2e/testbed"
)

// pgregory.net/rapid does not fit: a check is minutes of a live Envoy, and rapid repeats whole checks to shrink one, bounds them by steps
// instead of time, and gives up if the first repetition does not fail.

// Result is the result of a run of events.
type Result struct {
	Seed    uint64  `json:"seed"`
	Events  int     `json:"all_events"`
	Seconds float64 `json:"seconds"`
	Drained bool    `json:"drained"` // Envoy started in drain mode
	*Seen
	Disagreement *Disagreement `json:"disagreement,omitempty"`
	Shortest     []Event       `json:"shortest,omitempty"` // shortest list of events that was found to show it
}

// Search applies random events until the time is over or two sides disagree. Then it shortens the list of events within a time limit. A
// soak puts Envoy under load meanwhile, and fails if Envoy grows after the warm-up: a quarter of the time.
func Search(ctx context.Context, o Options, log func(string)) (*Result, error) {
	began := time.Now()
	if o.Soak {
		o.Explain = 0 // it recognizes its probes by the gates' counters, which the clients change too
	} else {
		o.Drained = rand.New(rand.NewPCG(o.Seed, 1)).IntN(4) == 0 && !o.Without["drain"]
	}
	run, err := Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer run.Close()
	if o.Soak {
		for _, v := range o.Variants {
			clients := run.startClients(v)
			run.clients = append(run.clients, clients)
			run.closers = append(run.closers, clients.Stop)
		}
	}
	result := &Result{Seed: o.Seed, Drained: o.Drained, Seen: &run.Seen}
	defer func() { result.Seconds = time.Since(began).Seconds() }()
	generator := newGenerator(o)
	var events []Event
	var warm *usage
	next := time.Now().Add(o.logEvery())
	for until := began.Add(o.Duration); time.Now().Before(until) && (o.Events == 0 || result.Events < o.Events); {
		event := generator.Next(run.world)
		events = append(events, event)
		result.Events++
		found, err := run.Apply(ctx, event)
		if err != nil {
			return result, fmt.Errorf("seed %d, event %d: %w; envoy's log ends:\n%s", o.Seed, result.Events, err, testbed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			log(fmt.Sprintf("event %d, after %v, %s: %s; shortening the events", result.Events, time.Since(began).Round(time.Second/10),
				asJSON(event), found))
			run.Close()
			result.Disagreement, result.Shortest = found, shortestList(ctx, o, events, found)
			return result, nil
		}
		if o.Soak && warm == nil && time.Since(began) > o.Duration/4 {
			if warm, err = run.usage(ctx); err != nil {
				return result, err
			}
		}
		if time.Now().After(next) {
			next = next.Add(o.logEvery())
			line := fmt.Sprintf("%4v  %d events, %d states, %d comparisons, no disagreement", time.Since(began).Round(time.Second),
				result.Events, run.States, run.Comparisons())
			if o.Soak {
				used, err := run.usage(ctx)
				if err != nil {
					return result, err
				}
				line += fmt.Sprintf("; %s; %v", used, run.clients)
			}
			log(line)
		}
	}
	if o.Soak {
		return result, run.checkGrowth(ctx, warm, log)
	}
	return result, nil
}

// logEvery is the time between two lines of the log.
func (o Options) logEvery() time.Duration {
	if o.Soak {
		return min(time.Minute, o.Duration/5)
	}
	return 10 * time.Second
}

// shortestList shortens a list of events that ends in a disagreement, within a time limit.
func shortestList(ctx context.Context, o Options, events []Event, found *Disagreement) []Event {
	if strings.HasPrefix(found.With, command) {
		o.Explain = 1 // a short list has few states
	}
	until := time.Now().Add(o.Shorten)
	fails := func(some []Event) bool { return time.Now().Before(until) && shows(ctx, some, o) != nil }
	return meaningful(shorter(meaningful(events, o.Drained), fails), o.Drained)
}

// shows returns the disagreement in which a list of events ends, in a new Envoy. It waits for less time than a search. In a short list it
// lets the module sample between the events.
func shows(ctx context.Context, events []Event, o Options) *Disagreement {
	o.Patience = slack
	if len(events) < 50 {
		o.Linger = 80 * time.Millisecond
	}
	result, err := Replay(ctx, o, events)
	if err != nil {
		return nil
	}
	return result.Disagreement
}

// Replay applies a list of events to a new Envoy, up to the first disagreement.
func Replay(ctx context.Context, o Options, events []Event) (*Result, error) {
	run, err := Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer run.Close()
	result := &Result{Seen: &run.Seen}
	for _, event := range events {
		result.Events++
		if result.Disagreement, err = run.Apply(ctx, event); err != nil || result.Disagreement != nil {
			break
		}
	}
	return result, err
}

// meaningful leaves out the events that change nothing.
func meaningful(events []Event, drained bool) []Event {
	w := newWorld()
	w.Drained = drained
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return !w.apply(e) })
}

// shorter returns a shorter list of events that still fails. Each try takes a new Envoy through a list, so it first looks for an end of the
// list that fails; then it leaves out ever smaller parts.
func shorter(events []Event, fails func([]Event) bool) []Event {
	for n := 1; n < len(events); n *= 2 {
		if end := events[len(events)-n:]; fails(end) {
			events = end
			break
		}
	}
	for size := len(events) / 2; size > 0; size = min(size, len(events)/2) {
		before := len(events)
		if events = withoutNeedless(slices.Collect(slices.Chunk(events, size)), fails); len(events) == before {
			size /= 2
		}
	}
	return events
}

// withoutNeedless leaves out the parts of a list without which it still fails.
func withoutNeedless(parts [][]Event, fails func([]Event) bool) []Event {
	needless := make([]bool, len(parts))
	without := func(leftOut func(part int) bool) (some []Event) {
		for i, part := range parts {
			if !leftOut(i) {
				some = append(some, part...)
			}
		}
		return some
	}
	var tries errgroup.Group
	tries.SetLimit(4) // a try mostly waits
	for part := range parts {
		tries.Go(func() error {
			needless[part] = fails(without(func(other int) bool { return other == part }))
			return nil
		})
	}
	_ = tries.Wait()
	first := slices.Index(needless, true)
	if first < 0 {
		return slices.Concat(parts...)
	}
	if some := without(func(part int) bool { return needless[part] }); len(some) > 0 && fails(some) {
		return some
	}
	return without(func(part int) bool { return part == first }) // each is needless only while the others are there
}
