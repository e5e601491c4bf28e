package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"healthgate/e2e/testbed"
)

// The growth that is allowed between the end of the warm-up and the end.
const (
	memoryGrowth    = 24.0 // MiB
	goroutineGrowth = 10   // for each variant, besides one for each gate that depends on time
	// configurationsLeft is how many configurations may be alive per gate after the load has ended: the gate's own, the overrides that were
	// merged into it, and a few that Go has not freed yet.
	configurationsLeft = 10
	// memoryAfter is the least duration of a run whose memory is compared: earlier, the allocators of Envoy and Go still fill their pools.
	memoryAfter = 5 * time.Minute
)

// Soak applies random events as Search does, while clients send probes, ordinary requests and garbage, and hang up half-way. It logs a line
// in each interval, and fails on a disagreement, on a probe that no gate answers, and if Envoy grows after the warm-up: a quarter of the
// time.
func Soak(ctx context.Context, o Options, seed uint64, duration, every time.Duration, log func(string)) error {
	// The Go runtimes in Envoy list their goroutines.
	o.Env = append(o.Env, fmt.Sprintf("GODEBUG=schedtrace=%d,scheddetail=1", max(every/4, time.Second).Milliseconds()))
	o.Admin = true
	o.Explain = 0 // it recognizes its probes by the gates' counters, which the clients change too
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
	random := newGenerator(seed, o)
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
			if warm, err = usageOf(ctx, run); err != nil {
				return err
			}
		}
		if now := time.Now(); now.After(next) {
			next = next.Add(every)
			used, err := usageOf(ctx, run)
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
	return errors.Join(append(failed, checkGrowth(ctx, run, warm, duration, log))...)
}

// checkGrowth compares Envoy's usage after the load has ended with its usage after the warm-up.
func checkGrowth(ctx context.Context, r *Run, warm *usage, duration time.Duration, log func(string)) error {
	if warm == nil {
		return errors.New("the run ended before the warm-up did")
	}
	var end *usage
	err := testbed.WaitFor(ctx, 20*time.Second, func() error {
		// Go frees the configurations that Envoy has dropped after some garbage collections, which probes cause.
		for range 2000 {
			for _, v := range r.Variants {
				if _, _, err := r.Get("ingress", virtualHosts[0], Place{0, "", -1}.path(v.Name), ""); err != nil {
					return err
				}
			}
		}
		var err error
		if end, err = usageOf(ctx, r); err != nil {
			return err
		}
		for _, w := range r.watches {
			gauge := "healthgate." + filterName(w.variant, 0) + ".grpc_watchers"
			if stats, err := r.Envoy.Stats(gauge); err != nil || stats[gauge] != uint64(len(r.watches)*watchers) {
				return fmt.Errorf("%s is %d, want %d (%v)", gauge, stats[gauge], len(r.watches)*watchers, err)
			}
		}
		timed := 0
		for _, g := range r.gates {
			if g.config.timed() {
				timed++
			}
		}
		switch {
		case end.configurations > configurationsLeft*len(r.gates):
			return fmt.Errorf("%d configurations are alive, want %d at most", end.configurations, configurationsLeft*len(r.gates))
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
		return fmt.Errorf("Envoy has grown: %w", err)
	}
	return nil
}

// usage is the memory and the objects of an Envoy.
type usage struct {
	memory                               float64 // MiB resident
	goroutines, configurations, requests int     // configurations and requests: of the Go plugin
}

func (u *usage) String() string {
	return fmt.Sprintf("%.1f MiB, %d goroutines, %d configurations and %d requests of the plugin alive", u.memory, u.goroutines,
		u.configurations, u.requests)
}

// usageOf reads /proc, asks the contrib host, and counts goroutines in the last traces of the Go schedulers.
func usageOf(ctx context.Context, r *Run) (*usage, error) {
	u := &usage{}
	var err error
	if u.memory, err = r.Envoy.ResidentMiB(); err != nil {
		return nil, err
	}
	for _, v := range r.Variants {
		if v.Can(testbed.CountLiveObjects) == nil {
			live, err := v.LiveObjects(r.Envoy)
			if err != nil {
				return nil, err
			}
			u.configurations, u.requests = live.Configurations, live.Requests
		}
	}
	// The mean of some traces before the last, which may not be complete. The schedulers of two variants write in turn, more or less.
	var log string
	var traces [][]int
	const mean = 4
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
		if state[1] != "6" { // _Gdead
			u.goroutines++
		}
	}
	u.goroutines /= mean
	return u, nil
}
