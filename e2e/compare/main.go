// Command compare looks for a wrong answer. It takes an Envoy through random events, by a real control plane, and after each compares all
// gates of both variants, in the one Envoy, to a model, and to Envoy's own health_check filter if that can be configured to the same;
// also Check and Watch of grpc.health.v1.Health, and in some states the command's explain. Answers that differ are asked for again until
// they agree, and are a disagreement if they don't within a bounded time. It prints the shortest list of events that shows a
// disagreement, and the seed.
//
//	model.go      the world, the contract of a gate
//	events.go     the events, and the generator
//	timing.go     the contract of hold and stale_after: which answers are allowed at a time
//	resources.go  a world as Envoy's configuration
//	control.go    the control plane
//	run.go        an Envoy that goes through the events
//	compare.go    asking until two sides agree
//	streams.go    calls and Watches that stay open
//	explain.go    the command's view
//	search.go     random events, and the shortest list that shows a disagreement
//	soak.go       the same for hours, under load, with growth checks
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
	seed := flag.Uint64("seed", 0, "the seed of the events; 0 for a random one")
	duration := flag.Duration("for", time.Minute, "how long to look")
	shorten := flag.Duration("shorten", 2*time.Minute, "how long to shorten the events that show a disagreement")
	variant := flag.String("variant", "", "the `variants` in the one Envoy: plugin, module or both; by itself all that it can load")
	without := flag.String("without", "", "kinds of events to leave out, with commas between; "+strings.Join(kindNames(), ","))
	explain := flag.Int("explain", 200, "in one state of so many the command explains each gate; 0 is in none")
	replay := flag.String("events", "", "`file` with a list of events to go through, such as the shortest of a result")
	soak := flag.Bool("soak", false, "put Envoy under load meanwhile, log a line a minute, and fail on growth")
	drained := flag.Bool("drained", false, "start Envoy in drain mode, as a result says; with -events")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	variants, err := variantsOf(*variant)
	options := Options{Variants: variants, Explain: *explain}
	if err == nil {
		options.Without, err = withoutKinds(*without)
	}
	switch {
	case err != nil:
	case *replay != "":
		options.Drained = *drained
		err = replayFile(ctx, options, *replay)
	case *soak:
		err = Soak(ctx, options, *seed, *duration, min(time.Minute, *duration/5), func(line string) { fmt.Println(line) })
	default:
		err = run(ctx, options, *seed, *duration, *shorten)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		cancel()
		os.Exit(1)
	}
}

func kindNames() (all []string) {
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

// withoutKinds reads the kinds that are left out.
func withoutKinds(list string) (Without, error) {
	known, without := map[string]bool{}, Without{}
	for _, name := range kindNames() {
		known[name] = true
	}
	for name := range strings.SplitSeq(list, ",") {
		if name != "" && !known[name] {
			return nil, fmt.Errorf("no kind %q: there are %s", name, strings.Join(kindNames(), ", "))
		}
		without[name] = true
	}
	if without["freeze"] {
		without["long freeze"] = true
	}
	return without, nil
}

func run(ctx context.Context, o Options, seed uint64, duration, shorten time.Duration) error {
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

// replayFile goes through the events of a file.
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
