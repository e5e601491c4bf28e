// Command diff looks for an answer of Healthgate's that is wrong: it takes an Envoy through random events, by a real control
// plane, and after each compares every gate of both doors, in the one Envoy, to Envoy's own health_check filter where that can be
// configured to the same, and to a model elsewhere; Check and Watch of grpc.health.v1.Health too, and in some states what
// `healthgate explain` says of each gate. Opinions that differ are asked again until they agree, and are a disagreement where they
// don't within 5 s. It prints the shortest list of events that shows one, and the seed.
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

	"healthgate/e2e/walk"
)

func main() {
	seed := flag.Uint64("seed", 0, "the seed of the events; 0 for a random one")
	duration := flag.Duration("for", time.Minute, "how long to look")
	replay := flag.String("events", "", "`file` with a list of events, to go through these instead")
	drained := flag.Bool("drained", false, "start Envoy in drain mode, as a result says; with -events")
	ways := flag.String("door", "both", "the `ways` in which Healthgate comes into the one Envoy: contrib, stock or both")
	explain := flag.Int("explain", 8, "in one state of so many the command explains each gate; 0 is never")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	doors, err := walk.Doors(*ways)
	options := walk.Options{Doors: doors, Explain: *explain}
	switch {
	case err != nil:
	case *replay != "":
		options.Drained = *drained
		err = again(ctx, options, *replay)
	default:
		err = run(ctx, options, *seed, *duration)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "diff:", err)
		cancel()
		os.Exit(1)
	}
}

func run(ctx context.Context, o walk.Options, seed uint64, duration time.Duration) error {
	say := func(line string) { fmt.Fprintln(os.Stderr, line) }
	say(fmt.Sprintf("seed %d, for %v", seed, duration))
	result, err := Search(ctx, o, seed, duration, say)
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
func again(ctx context.Context, o walk.Options, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var events []walk.Event
	if err := json.Unmarshal(text, &events); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r, err := walk.Start(ctx, o)
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
	fmt.Printf("%d events, %d comparisons, no disagreement\n", len(events), r.Comparisons())
	return nil
}
