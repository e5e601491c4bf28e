// Command compare looks for wrong answers. It takes one Envoy through random events, sent by a real control plane. After each event it
// compares every gate of both variants with a model, and with Envoy's own health_check filter if that can be configured alike; also Check
// and Watch of grpc.health.v1.Health, and in some states the output of `healthgate explain`. Two sides that differ are asked again until
// they agree. If they do not within a bounded time, it prints the seed and the shortest list of events that it found to show the
// disagreement.
//
//	model.go      the configuration, the hosts, and the answer that a gate must give
//	events.go     the events, and the generator
//	timing.go     which answers hold and stale_after allow at a time
//	resources.go  the model's state as xDS resources
//	control.go    the control plane
//	run.go        applying events to an Envoy
//	compare.go    asking until two sides agree
//	streams.go    calls and Watches that stay open
//	explain.go    the report of the command
//	search.go     random events, and the shortest list that shows a disagreement
//	soak.go       the same under load, with growth checks
//	clients.go    the load
//	backends.go   the servers behind the hosts
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"time"
)

func main() {
	seed := flag.Uint64("seed", 0, "seed of the events; 0: a random one")
	duration := flag.Duration("for", time.Minute, "duration of the run")
	shorten := flag.Duration("shorten", 2*time.Minute, "time limit for shortening the events that show a disagreement")
	variant := flag.String("variant", "", "`variant` to load: plugin, module or both; default: all that this Envoy can load")
	without := flag.String("without", "", "comma-separated `kinds` of events to leave out: "+strings.Join(kindNames(), ", "))
	explain := flag.Int("explain", 200, "compare `healthgate explain` in one state out of this many; 0: never")
	replay := flag.String("events", "", "`file` with a JSON list of events to replay, such as the shortest list of a result")
	drained := flag.Bool("drained", false, "start Envoy in drain mode, if the result says so; only with -events")
	soak := flag.Bool("soak", false, "put Envoy under load, log a line a minute, and fail if Envoy grows;\n"+
		"memory is compared in runs of 5m or more, goroutines and configurations in all")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	variants, err := variantsOf(*variant)
	options := Options{Variants: variants, Explain: *explain}
	if err == nil {
		options.Without, err = parseWithout(*without)
	}
	switch {
	case err != nil:
	case *replay != "":
		options.Drained = *drained
		err = replayFile(ctx, options, *replay)
	case *soak:
		err = Soak(ctx, options, *seed, *duration, min(time.Minute, *duration/5), func(line string) { fmt.Println(line) })
	default:
		err = search(ctx, options, *seed, *duration, *shorten)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		cancel()
		os.Exit(1)
	}
}

func search(ctx context.Context, o Options, seed uint64, duration, shorten time.Duration) error {
	log := func(line string) { fmt.Fprintln(os.Stderr, line) }
	log(fmt.Sprintf("seed %d, for %v", seed, duration))
	result, err := Search(ctx, o, seed, duration, shorten, log)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	if result.Disagreement != nil {
		return fmt.Errorf("seed %d: %s; shortest list of events: %s", seed, result.Disagreement, asJSON(result.Shortest))
	}
	fmt.Printf("%d comparisons in %d states, %.0f a second, no disagreement\n", result.Comparisons(), result.States,
		float64(result.Comparisons())/result.Seconds)
	return nil
}

func replayFile(ctx context.Context, o Options, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var events []Event
	if err := json.Unmarshal(text, &events); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r, err := Start(ctx, o)
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
			return fmt.Errorf("event %d, %s: %s", i+1, asJSON(event), found)
		}
	}
	fmt.Printf("%d events, %d comparisons, no disagreement\n", len(events), r.Comparisons())
	return nil
}

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
