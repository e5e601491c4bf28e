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
//	clients.go    the load of a soak
//	soak.go       the growth checks of a soak
//	backends.go   the servers behind the hosts
//	variant.go    the variants that an Envoy can load
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
	var o Options
	flag.Uint64Var(&o.Seed, "seed", 0, "seed of the events; 0: a random one")
	flag.DurationVar(&o.Duration, "for", time.Minute, "duration of the run")
	flag.DurationVar(&o.Shorten, "shorten", 2*time.Minute, "time limit for shortening the events that show a disagreement")
	variant := flag.String("variant", "", "`variant` to load: plugin, module or both; default: all that this Envoy can load")
	without := flag.String("without", "", "comma-separated `kinds` of events to leave out: "+strings.Join(kindNames(), ", "))
	flag.IntVar(&o.Explain, "explain", 200, "compare `healthgate explain` in one state out of this many; 0: never")
	events := flag.String("events", "", "`file` with a JSON list of events to replay, such as the shortest list of a result")
	flag.BoolVar(&o.Drained, "drained", false, "start Envoy in drain mode, if the result says so; only with -events")
	flag.BoolVar(&o.Soak, "soak", false, "put Envoy under load, log a line a minute, and fail if Envoy grows;\n"+
		"memory is compared in runs of 5m or more, goroutines and configurations in all")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	var err error
	if o.Variants, err = variantsOf(*variant); err == nil {
		o.Without, err = parseWithout(*without)
	}
	switch {
	case err != nil:
	case *events != "":
		err = replayFile(ctx, o, *events)
	default:
		err = search(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		cancel()
		os.Exit(1)
	}
}

func search(ctx context.Context, o Options) error {
	log := func(line string) { fmt.Fprintln(os.Stderr, line) }
	log(fmt.Sprintf("seed %d, for %v", o.Seed, o.Duration))
	result, err := Search(ctx, o, log)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	if result.Disagreement != nil {
		return fmt.Errorf("seed %d: %s; shortest list of events: %s", o.Seed, result.Disagreement, asJSON(result.Shortest))
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
	result, err := Replay(ctx, o, events)
	if err != nil {
		return err
	}
	if result.Disagreement != nil {
		return fmt.Errorf("event %d, %s: %s", result.Events, asJSON(events[result.Events-1]), result.Disagreement)
	}
	fmt.Printf("%d events, %d comparisons, no disagreement\n", len(events), result.Comparisons())
	return nil
}

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
