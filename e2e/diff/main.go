// Command diff looks for an answer of Healthgate's that is wrong: it takes an Envoy through random events, by a real control
// plane, and after each compares every gate to Envoy's own health_check filter where that can be configured to the same, and to
// a model elsewhere. Where they disagree it prints the shortest list of events that shows it, and the seed.
//
// What it leaves out is what hangs on time: hold and stale_after.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"
)

func main() {
	seed := flag.Uint64("seed", 0, "the seed of the events; 0 for a random one")
	duration := flag.Duration("for", time.Minute, "how long to look")
	long := flag.Bool("soak", false, "everything at once instead: load and faults beside the events, with a look each minute at what grows")
	replay := flag.String("events", "", "`file` with a list of events, to go through these instead")
	drained := flag.Bool("drained", false, "start Envoy in drain mode, as a result says; with -events")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	var err error
	switch {
	case *replay != "":
		err = again(ctx, *replay, *drained)
	case *long:
		err = soak(ctx, *seed, *duration, time.Minute, func(line string) { fmt.Println(line) })
	default:
		err = run(ctx, *seed, *duration)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "diff:", err)
		cancel()
		os.Exit(1)
	}
}

func run(ctx context.Context, seed uint64, duration time.Duration) error {
	say := func(line string) { fmt.Fprintln(os.Stderr, line) }
	say(fmt.Sprintf("seed %d, for %v", seed, duration))
	result, err := Search(ctx, seed, duration, say, nil)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	if result.Disagreement != nil {
		return fmt.Errorf("%s", result.Disagreement)
	}
	return nil
}

// again goes through the events of a file, such as the shortest list of a result.
func again(ctx context.Context, file string, drained bool) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var events []Event
	if err := json.Unmarshal(text, &events); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r, err := newRun(ctx, options{drained: drained})
	if err != nil {
		return err
	}
	defer r.Close()
	for i, event := range events {
		found, err := r.Apply(ctx, event)
		if err != nil {
			return err
		}
		if found != nil {
			return fmt.Errorf("event %d, %+v: %s", i+1, event, found)
		}
	}
	fmt.Printf("%d events, compared %v, no disagreement\n", len(events), r.Compared)
	return nil
}
