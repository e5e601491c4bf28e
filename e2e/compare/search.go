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

	"healthgate/e2e/testbed"
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

// Search goes through random events of a seed, until the time is over or there is a disagreement. It shortens the events of that for at
// most some time.
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
			return result, fmt.Errorf("seed %d, event %d: %w; envoy's log ends:\n%s", seed, result.Events, err, testbed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			log(fmt.Sprintf("event %d, after %v, %s: %s; shortening the events", result.Events, time.Since(began).Round(time.Second/10),
				asJSON(event), found))
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

// shows returns the disagreement in which a list of events ends, in a new Envoy. It waits for less before that is one than a search
// does; and it lets the module sample between the events of a short list, as it did while the long one was gone through.
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

// shorter returns a shorter list of events that still fails: first an end of the list, because each try is a new Envoy that goes through all of
// them; then without the events of some kinds, and without ever smaller parts.
func shorter(events []Event, fails func([]Event) bool) []Event {
	for n := 1; n < len(events); n *= 2 {
		if end := events[len(events)-n:]; fails(end) {
			events = end
			break
		}
	}
	// leaveOut leaves out the parts without which the list still fails, and reports whether there was one. part numbers the events' parts.
	leaveOut := func(part func(i int) int) bool {
		parts := map[int]bool{} // whether it is needless
		for i := range events {
			parts[part(i)] = false
		}
		without := func(left func(part int) bool) (some []Event) {
			for i, e := range events {
				if !left(part(i)) {
					some = append(some, e)
				}
			}
			return some
		}
		var mutex sync.Mutex
		var tries sync.WaitGroup
		slots := make(chan struct{}, 4) // a try mostly waits
		for _, n := range slices.Sorted(maps.Keys(parts)) {
			slots <- struct{}{}
			tries.Go(func() {
				some := without(func(part int) bool { return part == n })
				if needless := len(some) > 0 && fails(some); needless {
					mutex.Lock()
					parts[n] = true
					mutex.Unlock()
				}
				<-slots
			})
		}
		tries.Wait()
		maps.DeleteFunc(parts, func(_ int, needless bool) bool { return !needless })
		if len(parts) == 0 {
			return false
		}
		if some := without(func(part int) bool { return parts[part] }); len(some) > 0 && fails(some) {
			events = some
		} else { // each of them alone is needless
			first := slices.Min(slices.Collect(maps.Keys(parts)))
			events = without(func(part int) bool { return part == first })
		}
		return true
	}
	kinds := kindNames()
	leaveOut(func(i int) int { return slices.Index(kinds, events[i].Kind) })
	for size := max(len(events)/2, 1); size > 0; size = min(size, len(events)) {
		if !leaveOut(func(i int) int { return i / size }) {
			size /= 2
		}
	}
	return slices.Clone(events)
}
