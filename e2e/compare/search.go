package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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
	random := newGenerator(seed, o.Without, len(o.Variants) > 1 || o.Variants[0].Name == plugin)
	var events []Event
	last := time.Now()
	for until := began.Add(duration); time.Now().Before(until) && (o.Events == 0 || result.Events < o.Events); {
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
			until := time.Now().Add(shorten)
			fails := func(some []Event) bool { return time.Now().Before(until) && shows(ctx, some, o) != nil }
			events = meaningful(events, o.Drained)
			before := slices.DeleteFunc(slices.Clone(events[:len(events)-1]), func(e Event) bool { return !found.concerns(e) })
			if some := append(before, events[len(events)-1]); fails(some) {
				events = some
			}
			result.Shortest = meaningful(shorter(events, fails), o.Drained)
			return result, nil
		}
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			log(fmt.Sprintf("%d events, %d states, %d comparisons, no disagreement", result.Events, run.States, run.Comparisons()))
		}
	}
	return result, nil
}

// concerns reports whether an event may have a part in a disagreement: it changes the gate, one of its clusters, or all of Envoy.
func (d *Disagreement) concerns(e Event) bool {
	if d.point == nil {
		return true
	}
	var clusters, named []string
	for _, r := range d.point.config.Clusters {
		clusters = append(clusters, r.Name)
	}
	switch {
	case e.Kind == "override" && e.Level == "route":
		named = append(named, own[e.Route%len(own)])
		if e.Route == d.point.Gate.Route {
			return true
		}
	case e.Kind == "override", e.Kind == "filter":
		if e.Filter == d.point.Gate.Filter {
			return true
		}
	case e.Cluster == "":
		return true
	}
	named = append(named, e.Cluster, e.Other)
	if e.Config != nil {
		for _, r := range e.Config.Clusters {
			named = append(named, r.Name)
		}
	}
	return slices.ContainsFunc(clusters, func(name string) bool { return slices.Contains(named, name) })
}

// shows returns the disagreement in which a list of events ends, in an Envoy of its own. It waits for less before that is one than a search
// does; and it lets the module sample between the events of a short list, as it did between those of a long one.
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

// shorter returns a shorter list of events that still fails: first an end of the list, because each try is an Envoy of its own that goes
// through all of them; then with parts left out, ever smaller ones.
func shorter(events []Event, fails func([]Event) bool) []Event {
	for n := 1; n < len(events); n *= 2 {
		if end := events[len(events)-n:]; fails(end) {
			events = end
			break
		}
	}
	for size := max(len(events)/2, 1); size > 0; {
		parts := slices.Collect(slices.Chunk(events, size))
		without := func(left func(i int) bool) (all []Event) {
			for i, part := range parts {
				if !left(i) {
					all = append(all, part...)
				}
			}
			return all
		}
		needless := make([]bool, len(parts))
		var tries sync.WaitGroup
		slots := make(chan struct{}, 4) // a try mostly waits
		for i := range parts {
			slots <- struct{}{}
			tries.Go(func() {
				needless[i] = len(parts) > 1 && fails(without(func(n int) bool { return n == i }))
				<-slots
			})
		}
		tries.Wait()
		first := slices.Index(needless, true)
		switch some := without(func(i int) bool { return needless[i] }); {
		case first < 0:
			size /= 2
		case len(some) > 0 && fails(some):
			events = some
		default:
			events = without(func(i int) bool { return i == first })
		}
		size = min(size, len(events))
	}
	return slices.Clone(events)
}
