package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"healthgate/e2e/door"
)

func main() {
	seed := flag.Uint64("seed", 0, "the seed of the events; 0 for a random one")
	duration := flag.Duration("for", 10*time.Minute, "how long it goes on")
	way := flag.String("door", "contrib", "the `way` in which Healthgate comes into Envoy")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	d, err := door.Named(*way)
	if err == nil {
		err = soak(ctx, d, *seed, *duration, time.Minute, func(line string) { fmt.Println(line) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		cancel()
		os.Exit(1)
	}
}
