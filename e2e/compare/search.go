package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"healthgate/e2e/testbed"
)

// pgregory.net/rapid does not fit: a check is minutes of a live Envoy, and rapid repeats whole checks to shrink one, bounds them by steps
// instead of time, and gives up if the first repetition does not fail.

// Result is the result of a run of random events.
type Result struct {
	Seed    uint64  `json:"seed"`
	Events  int     `json:"all_events"`
	Seconds float64 `json:"seconds"`
	Drained bool    `json:"drained"` // Envoy started in drain mode
	*Seen
	Disagreement *Disagreement `json:"disagreement,omitempty"`
	Shortest     []Event       `json:"shortest,omitempty"` // shortest list of events that was found to show it
}

// Search applies random events from a seed, until the time is over or model and Envoy disagree. Then it shortens the list of events within
// a time limit.
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
	random := newGenerator(seed, o)
	var events []Event
	lastLog := time.Now()
	for until := began.Add(duration); time.Now().Before(until) && (o.Events == 0 || result.Events < o.Events); {
		event := random.Next(run.world)
		events = append(events, event)
		result.Events++
		found, err := run.Apply(ctx, event)
		if err != nil {
			return result, fmt.Errorf("seed %d, event %d: %w; envoy's log ends:\n%s", seed, result.Events, err, testbed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			log(fmt.Sprintf("event %d, after %v, %s: %s; shortening the events", result.Events, time.Since(began).Round(time.Second/10),
				asJSON(event), found))
			run.Close()
			result.Disagreement, result.Shortest = found, shortestList(ctx, o, events, found, shorten)
			return result, nil
		}
		if time.Since(lastLog) > 10*time.Second {
			lastLog = time.Now()
			log(fmt.Sprintf("%d events, %d states, %d comparisons, no disagreement", result.Events, run.States, run.Comparisons()))
		}
	}
	return result, nil
}

// shortestList shortens a list of events that ends in a disagreement, within a time limit.
func shortestList(ctx context.Context, o Options, events []Event, found *Disagreement, limit time.Duration) []Event {
	if strings.HasPrefix(found.With, command) {
		o.Explain = 1 // a short list has few states
	}
	until := time.Now().Add(limit)
	fails := func(some []Event) bool { return time.Now().Before(until) && shows(ctx, some, o) != nil }
	events = meaningful(events, o.Drained)
	last := len(events) - 1
	related := slices.DeleteFunc(slices.Clone(events[:last]), func(e Event) bool { return !found.concerns(e) })
	if related = append(related, events[last]); fails(related) {
		events = related
	}
	return meaningful(shorter(events, fails), o.Drained)
}

// concerns reports whether an event may have to do with a disagreement: it changes the gate, one of its clusters, or all of Envoy.
func (d *Disagreement) concerns(e Event) bool {
	if d.gate == nil {
		return true
	}
	named := []string{e.Cluster, e.Other}
	switch {
	case e.Kind == "override" && e.Level == "route":
		if e.Route == d.gate.Place.Route {
			return true
		}
		named = append(named, own[e.Route%len(own)])
	case e.Kind == "override", e.Kind == "filter":
		if e.Filter == d.gate.Place.Filter {
			return true
		}
	case e.Cluster == "":
		return true
	}
	if e.Config != nil {
		for _, r := range e.Config.Clusters {
			named = append(named, r.Name)
		}
	}
	return slices.ContainsFunc(d.gate.config.Clusters, func(r Requirement) bool { return slices.Contains(named, r.Name) })
}

// shows returns the disagreement in which a list of events ends, in a new Envoy. It waits for less time than a search. In a short list it
// lets the module sample between the events.
func shows(ctx context.Context, events []Event, o Options) *Disagreement {
	o.Patience = slack
	if len(events) < 50 {
		o.Linger = 80 * time.Millisecond
	}
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

// meaningful leaves out the events that change nothing.
func meaningful(events []Event, drained bool) []Event {
	w := newWorld()
	w.Drained = drained
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return !w.apply(e) })
}

// shorter returns a shorter list of events that still fails. Each try takes a new Envoy through a list, so it first looks for an end of the
// list that fails; then it leaves out kinds of events, then ever smaller parts.
func shorter(events []Event, fails func([]Event) bool) []Event {
	for n := 1; n < len(events); n *= 2 {
		if end := events[len(events)-n:]; fails(end) {
			events = end
			break
		}
	}
	events = leaveOut(events, fails, func(i int) int { return slices.Index(kindNames(), events[i].Kind) })
	for size := max(len(events)/2, 1); size > 0; size = min(size, len(events)) {
		before := len(events)
		if events = leaveOut(events, fails, func(i int) int { return i / size }); len(events) == before {
			size /= 2
		}
	}
	return slices.Clone(events)
}

// leaveOut leaves out the parts without which a list of events still fails. partOf returns the number of an event's part.
func leaveOut(events []Event, fails func([]Event) bool, partOf func(i int) int) []Event {
	without := func(needless func(part int) bool) (some []Event) {
		for i, e := range events {
			if !needless(partOf(i)) {
				some = append(some, e)
			}
		}
		return some
	}
	parts := map[int]bool{}
	for i := range events {
		parts[partOf(i)] = true
	}
	var mutex sync.Mutex
	needless := map[int]bool{}
	var tries errgroup.Group
	tries.SetLimit(4) // a try mostly waits
	for part := range parts {
		tries.Go(func() error {
			if some := without(func(other int) bool { return other == part }); len(some) > 0 && fails(some) {
				mutex.Lock()
				defer mutex.Unlock()
				needless[part] = true
			}
			return nil
		})
	}
	_ = tries.Wait()
	if len(needless) == 0 {
		return events
	}
	if some := without(func(part int) bool { return needless[part] }); len(some) > 0 && fails(some) {
		return some
	}
	first := slices.Min(slices.Collect(maps.Keys(needless))) // each is needless only while the others are there
	return without(func(part int) bool { return part == first })
}
