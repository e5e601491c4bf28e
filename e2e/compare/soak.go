package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"healthgate/e2e/testbed"
)

// The growth that is allowed between the end of the warm-up and the end.
const (
	memoryGrowth    = 24.0 // MiB
	goroutineGrowth = 10   // for each variant, besides one for each gate that depends on time
	// configurationsLeft is how many configurations may be alive for each gate once all is quiet: its own, the overrides of which it was
	// merged, and a few that Go has yet to free.
	configurationsLeft = 10
	// memoryAfter is how long a run has to be for its memory to be compared: before, the allocators of Envoy and Go still fill their pools.
	memoryAfter = 5 * time.Minute
)

// Soak goes through random events as Search does, while clients probe, hang up half-way, send garbage and ordinary traffic. It logs a
// line for each interval, and fails on a disagreement, on a reply that is none of Healthgate's, and on growth after a quarter of the
// time.
func Soak(ctx context.Context, o Options, seed uint64, duration, every time.Duration, log func(string)) error {
	// The Go schedulers in Envoy list their goroutines.
	o.Env = append(o.Env, fmt.Sprintf("GODEBUG=schedtrace=%d,scheddetail=1", max(every/4, time.Second).Milliseconds()))
	o.Admin = true
	run, err := Start(ctx, o)
	if err != nil {
		return err
	}
	defer run.Close()
	log(fmt.Sprintf("seed %d, for %v", seed, duration))
	var all []*Clients
	for _, v := range o.Variants {
		clients := &Clients{variant: v, ingress: run.listeners["ingress"], calls: run.listeners["calls"]}
		clients.Start(ctx, seed)
		defer clients.Stop()
		all = append(all, clients)
	}
	random := newGenerator(seed, o.Without, len(o.Variants) > 1 || o.Variants[0].Name == plugin)
	began := time.Now()
	next := began.Add(every)
	var warm *usage
	for events := 1; time.Since(began) < duration && ctx.Err() == nil; events++ {
		event := random.Next(run.world)
		found, err := run.Apply(ctx, event)
		if err != nil {
			return fmt.Errorf("event %d: %w; envoy's log ends:\n%s", events, err, testbed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			return fmt.Errorf("event %d, %s: %s", events, asJSON(event), found)
		}
		if warm == nil && time.Since(began) > duration/4 {
			if warm, err = use(ctx, run); err != nil {
				return err
			}
		}
		if now := time.Now(); now.After(next) {
			next = next.Add(every)
			used, err := use(ctx, run)
			if err != nil {
				return err
			}
			log(fmt.Sprintf("%4v  %s, %d events, %d comparisons, no disagreement; %v", time.Since(began).Round(time.Second), used, events,
				run.Comparisons(), all))
		}
	}
	var failed []error
	for _, clients := range all {
		clients.Stop()
		failed = append(failed, clients.failure())
	}
	return errors.Join(append(failed, grown(ctx, run, warm, duration, log))...)
}

// grown compares the use of Envoy, now that all is quiet, to its use after the warm-up.
func grown(ctx context.Context, r *Run, warm *usage, duration time.Duration, log func(string)) error {
	if warm == nil {
		return errors.New("it ended before it was warm")
	}
	var end *usage
	err := testbed.WaitFor(ctx, 20*time.Second, func() error {
		// Go frees the configurations that Envoy has dropped some collections later, and probes bring collections about.
		for range 2000 {
			for _, v := range r.Variants {
				if _, _, err := r.Get("ingress", virtualHosts[0], Gate{0, "", -1}.path(v.Name), ""); err != nil {
					return err
				}
			}
		}
		var err error
		if end, err = use(ctx, r); err != nil {
			return err
		}
		for _, w := range r.watches {
			gauge := "healthgate." + filterName(w.variant, 0) + ".grpc_watchers"
			if stats, err := r.Envoy.Stats(gauge); err != nil || stats[gauge] != uint64(len(r.watches)*watchers) {
				return fmt.Errorf("%s is %d, want %d (%v)", gauge, stats[gauge], len(r.watches)*watchers, err)
			}
		}
		timed := 0
		for _, p := range r.points {
			if p.config.timed() {
				timed++
			}
		}
		switch {
		case end.configurations > configurationsLeft*len(r.points):
			return fmt.Errorf("%d configurations are alive, want %d at most", end.configurations, configurationsLeft*len(r.points))
		case end.goroutines > warm.goroutines+goroutineGrowth*len(r.Variants)+timed:
			return fmt.Errorf("%d goroutines, %d after the warm-up", end.goroutines, warm.goroutines)
		case duration >= memoryAfter && end.memory > warm.memory+memoryGrowth:
			return fmt.Errorf("%.1f MiB, %.1f after the warm-up", end.memory, warm.memory)
		}
		return nil
	})
	if end != nil {
		log(fmt.Sprintf(" end  %s; after the warm-up %s", end, warm))
	}
	if err != nil {
		return fmt.Errorf("it has grown: %w", err)
	}
	return nil
}

// usage is the use that an Envoy makes of the machine.
type usage struct {
	memory                               float64 // MiB resident
	goroutines, configurations, requests int     // the last two: of the Go plugin
}

func (u *usage) String() string {
	return fmt.Sprintf("%.1f MiB, %d goroutines, %d configurations and %d requests of the plugin alive", u.memory, u.goroutines,
		u.configurations, u.requests)
}

// use reads it from /proc, from the contrib host, and from the last traces of the Go schedulers.
func use(ctx context.Context, r *Run) (*usage, error) {
	u := &usage{}
	var err error
	if u.memory, err = r.Envoy.ResidentMiB(); err != nil {
		return nil, err
	}
	for _, v := range r.Variants {
		if v.CountsConfigurations() {
			held, err := v.LiveObjects(r.Envoy)
			if err != nil {
				return nil, err
			}
			u.configurations, u.requests = held.Configurations, held.Requests
		}
	}
	// Some traces before the last, which may be in the middle of a line: the schedulers of two variants write theirs in turn, more or less.
	var log string
	var traces [][]int
	const mean = 4 // traces of each
	n := mean * len(r.Variants)
	err = testbed.WaitFor(ctx, 20*time.Second, func() error {
		log = r.Envoy.Log()
		if traces = regexp.MustCompile(`(?m)^SCHED `).FindAllStringIndex(log, -1); len(traces) <= n {
			return errors.New("the Go schedulers have written no trace yet")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	log = log[traces[len(traces)-1-n][0]:traces[len(traces)-1][0]]
	for _, state := range regexp.MustCompile(`(?m)^  G\d+: status=(\d+)`).FindAllStringSubmatch(log, -1) {
		if state[1] != "6" { // one that has ended
			u.goroutines++
		}
	}
	u.goroutines /= mean
	return u, nil
}

// String is for a list of clients.
func (c *Clients) String() string {
	text := fmt.Sprintf("%s: %d probes passed, %d failed, %d hung up; %d abuses, %d proxied", c.variant.Name, c.passed.Load(), c.failed.Load(),
		c.aborted.Load(), c.abused.Load(), c.proxied.Load())
	if c.grpc() {
		text += fmt.Sprintf("; %d Checks, %d Watches with %d updates, %d ended by Envoy", c.checked.Load(), c.watched.Load(),
			c.updates.Load(), c.ended.Load())
	}
	return strings.TrimSpace(text)
}
