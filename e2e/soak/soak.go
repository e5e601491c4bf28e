// Command soak has everything happen at once: an Envoy goes through random events, while clients probe, hang up half-way, send
// garbage and ordinary traffic; and, where the door answers grpc.health.v1.Health, check and watch. It says a line a minute, and fails
// on a wrong answer and on growth.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
	"healthgate/e2e/walk"
)

// What may have grown between the end of the warm-up and the end.
const (
	memoryGrowth    = 16.0 // MiB
	goroutineGrowth = 10
	// Configurations that may be alive once all is quiet: those of the listener and its routes, and a few that Go has yet
	// to free.
	configurationsLeft = 40
)

// soak goes through random events as Search does, while clients probe, hang up half-way, send garbage and ordinary traffic. It
// says a line for each interval, and fails on a disagreement, on an answer that is none, and on growth after a quarter of the
// time.
func soak(ctx context.Context, d door.Door, seed uint64, duration, every time.Duration, say func(string)) error {
	// The scheduler of the plugin's Go writes down its goroutines.
	trace := fmt.Sprintf("GODEBUG=schedtrace=%d,scheddetail=1", max(every/4, time.Second).Milliseconds())
	run, err := walk.Start(ctx, walk.Options{Doors: []door.Door{d}, Timed: true, Env: []string{trace}})
	if err != nil {
		return err
	}
	defer run.Close()
	say(fmt.Sprintf("%s door, seed %d, for %v", d.Name(), seed, duration))
	seen := &answers{door: d}
	stop := seen.start(ctx, run.Envoy.Ingress, seed)
	defer stop()

	random := rand.New(rand.NewPCG(seed, 0))
	began := time.Now()
	due := began.Add(every)
	var warm *usage
	events := 0
	for time.Since(began) < duration && ctx.Err() == nil {
		event := walk.Next(random)
		events++
		found, err := run.Apply(ctx, event)
		if err != nil {
			return fmt.Errorf("event %d, %+v: %w; envoy's log ends:\n%s", events, event, err, bed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			return fmt.Errorf("event %d, %+v: %s", events, event, found)
		}
		if warm == nil && time.Since(began) > duration/4 {
			if warm, err = use(d, run.Envoy); err != nil {
				return err
			}
		}
		if now := time.Now(); now.After(due) {
			due = due.Add(every)
			used, err := use(d, run.Envoy)
			if err != nil {
				return err
			}
			say(fmt.Sprintf("%4v  %s, %d events, %d compared, no disagreement; %s", time.Since(began).Round(time.Second), used, events,
				run.Comparisons(), seen))
		}
	}
	stop()
	return errors.Join(seen.failure(), grown(ctx, d, run, warm, say))
}

// grown compares what Envoy uses, now that all is quiet, to what it used after the warm-up.
func grown(ctx context.Context, d door.Door, r *walk.Run, warm *usage, say func(string)) error {
	if warm == nil {
		return errors.New("it ended before it was warm")
	}
	var end *usage
	err := bed.WaitFor(ctx, 15*time.Second, func() error {
		// Go frees what Envoy has dropped some collections later, and probes bring collections about.
		for range 2000 {
			if _, _, err := r.Get(r.Envoy.Ingress, "/keeper", "*/*"); err != nil {
				return err
			}
		}
		var err error
		if end, err = use(d, r.Envoy); err != nil {
			return err
		}
		if d.Can(door.GRPC) == nil {
			const gauge = "healthgate.stock.health.grpc_watchers"
			if stats, err := r.Envoy.Stats(gauge); err != nil || stats[gauge] != walk.Watchers {
				return fmt.Errorf("%s is %d, want %d (%v)", gauge, stats[gauge], walk.Watchers, err)
			}
		}
		switch {
		case end.configurations > configurationsLeft:
			return fmt.Errorf("%d configurations are alive, want %d at most", end.configurations, configurationsLeft)
		case end.goroutines > warm.goroutines+goroutineGrowth:
			return fmt.Errorf("%d goroutines, %d after the warm-up", end.goroutines, warm.goroutines)
		case end.memory > warm.memory+memoryGrowth:
			return fmt.Errorf("%.1f MiB, %.1f after the warm-up", end.memory, warm.memory)
		}
		return nil
	})
	if end != nil {
		say(fmt.Sprintf(" end  %s; after the warm-up %s", end, warm))
	}
	if err != nil {
		return fmt.Errorf("it has grown: %w", err)
	}
	return nil
}

// usage is what an Envoy uses.
type usage struct {
	memory                               float64 // MiB resident
	goroutines, configurations, requests int
	counted                              bool // the last two: not every door tells
}

func (u *usage) String() string {
	text := fmt.Sprintf("%.1f MiB, %d goroutines", u.memory, u.goroutines)
	if u.counted {
		text += fmt.Sprintf(", %d configurations, %d requests alive", u.configurations, u.requests)
	}
	return text
}

// use reads what an Envoy uses: from /proc, from the stand-in, and from the last trace of its Go scheduler.
func use(d door.Door, envoy *bed.Envoy) (*usage, error) {
	memory, err := envoy.ResidentMiB()
	if err != nil {
		return nil, err
	}
	held, err := d.Held(envoy)
	if err != nil {
		return nil, err
	}
	u := &usage{memory: memory, configurations: held.Configurations, requests: held.Requests, counted: d.Can(door.Counting) == nil}
	log := envoy.Log()
	last := strings.LastIndex(log, "\nSCHED ")
	if last < 0 {
		return nil, errors.New("the Go scheduler has written no trace yet")
	}
	// The one before it, should it be in the middle of a line.
	if before := strings.LastIndex(log[:last], "\nSCHED "); before >= 0 {
		log = log[before:last]
	} else {
		log = log[last:]
	}
	for _, state := range regexp.MustCompile(`(?m)^  G\d+: status=(\d+)`).FindAllStringSubmatch(log, -1) {
		if state[1] != "6" { // one that has ended
			u.goroutines++
		}
	}
	return u, nil
}
