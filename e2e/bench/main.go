// Command bench measures what a probe costs, answered by Healthgate and by each of its peers in the same Envoy, what other
// traffic pays for them, and what the plugin holds in memory.
//
// Rounds of all contenders are interleaved, so that what else the machine does hits all alike. Figures are medians over the
// rounds; ratios are taken within a round first.
//
// The golang extension is the stand-in's, where Envoy lacks it: the results say which it was.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"fortio.org/log"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// settings are how long it takes.
type settings struct {
	Rounds  int           `json:"rounds"`
	Load    time.Duration `json:"load_ns"` // of each contender in each round
	Probes  int64         `json:"probes"`  // before memory is looked at again
	Starts  int           `json:"starts"`
	results string        // folder
}

func main() {
	var s settings
	flag.IntVar(&s.Rounds, "rounds", 31, "how many rounds")
	flag.DurationVar(&s.Load, "load", 300*time.Millisecond, "how long each contender is loaded in each round")
	flag.Int64Var(&s.Probes, "probes", 1_000_000, "how many probes before memory is looked at again")
	flag.IntVar(&s.Starts, "starts", 5, "how many starts of Envoy are timed")
	flag.StringVar(&s.results, "results", filepath.Join(bed.Root(), "e2e", "bench"), "`folder` for RESULTS.md and results.json")
	flag.Parse()
	log.SetLogLevelQuiet(log.Error) // fortio's
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	backend, err := echo()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "healthgate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	contrib, err := door.Named("contrib")
	if err != nil {
		return err
	}
	b := &bench{settings: s, ctx: ctx, dir: dir, backend: backend, door: contrib}
	results := &Results{Date: time.Now().UTC().Format(time.DateOnly), Settings: s, Connections: connections, Host: hostOf(), Bed: bedOf(contrib)}
	if results.Versions, err = versions(); err != nil {
		return err
	}
	for _, part := range []func(*Results) error{b.probes, b.traffic, b.memory} {
		if err := part(results); err != nil {
			return err
		}
	}
	results.judge()
	text, err := json.MarshalIndent(results, "", " ")
	if err != nil {
		return err
	}
	markdown := results.markdown()
	if err := os.WriteFile(filepath.Join(s.results, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.results, "RESULTS.md"), []byte(markdown), 0o644); err != nil {
		return err
	}
	fmt.Print(markdown)
	return nil
}

type bench struct {
	settings
	ctx     context.Context
	dir     string
	backend string // of the echo server
	door    door.Door
}

func (b *bench) start(s scenario, contenders ...string) (*bed.Envoy, map[string]string, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, nil, err
	}
	return start(b.ctx, b.door, dir, b.backend, s, contenders...)
}

// rounds loads each contender in each round, in an order that changes, after a round that is not counted.
func (b *bench) rounds(envoy *bed.Envoy, contenders []string, load func(contender string) (int64, time.Duration, time.Duration, time.Duration, error)) (map[string][]Round, error) {
	seen := map[string][]Round{}
	for round := -1; round < b.Rounds; round++ {
		for i := range contenders {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			contender := contenders[(i+round+1)%len(contenders)]
			r, err := measure(envoy.Pid(), func() (int64, time.Duration, time.Duration, time.Duration, error) { return load(contender) })
			if err != nil {
				return nil, fmt.Errorf("%s: %w", contender, err)
			}
			if round >= 0 {
				seen[contender] = append(seen[contender], r)
			}
		}
	}
	return seen, nil
}

// probes compares who answers GET /.
func (b *bench) probes(results *Results) error {
	contenders := []string{direct, native, gate, lua}
	for i, s := range scenarios {
		contenders := contenders
		if i == 0 && door.HasStandIn(b.door) {
			contenders = append(contenders, empty, emptyGo)
		}
		say("probes, %s: %d rounds of %d contenders", s.Name, b.Rounds, len(contenders))
		envoy, addresses, err := b.start(s, contenders...)
		if err != nil {
			return err
		}
		seen, err := b.rounds(envoy, contenders, func(contender string) (int64, time.Duration, time.Duration, time.Duration, error) {
			return probes(addresses[contender], b.Load, 0)
		})
		envoy.Kill()
		if err != nil {
			return err
		}
		results.Probes = append(results.Probes, table(s.Name, contenders, seen, native))
	}
	return nil
}

// traffic compares what proxied gRPC calls pay.
func (b *bench) traffic(results *Results) error {
	contenders := []string{direct, gate, everyone, native, lua}
	envoy, addresses, err := b.start(scenarios[0], contenders...)
	if err != nil {
		return err
	}
	defer envoy.Kill()
	for _, k := range kinds {
		say("traffic, %s: %d rounds of %d contenders", k.Name, b.Rounds, len(contenders))
		seen, err := b.rounds(envoy, contenders, func(contender string) (int64, time.Duration, time.Duration, time.Duration, error) {
			return calls(addresses[contender], k, b.Load)
		})
		if err != nil {
			return err
		}
		results.Traffic = append(results.Traffic, table(k.Name, contenders, seen, direct))
	}
	return nil
}

// memory compares an Envoy with the plugin to one that has nothing of it.
func (b *bench) memory(results *Results) error {
	var err error
	if results.PluginMiB, err = sizeMiB(b.door.Object()); err != nil {
		return err
	}
	for _, contender := range []string{native, gate} {
		say("memory and start, %s: %d starts, %d probes", contender, b.Starts, b.Probes)
		m := Memory{Contender: contender}
		var starts []float64
		var envoy *bed.Envoy
		var addresses map[string]string
		for range b.Starts {
			if envoy != nil {
				envoy.Kill()
			}
			began := time.Now()
			if envoy, addresses, err = b.start(scenarios[0], contender); err != nil {
				return err
			}
			starts = append(starts, float64(time.Since(began).Milliseconds()))
		}
		defer envoy.Kill()
		m.StartMilliseconds = spreadOf(starts)
		if _, _, _, _, err := probes(addresses[contender], 0, connections); err != nil {
			return err
		}
		if m.IdleMiB, err = envoy.ResidentMiB(); err != nil {
			return err
		}
		if _, _, _, _, err := probes(addresses[contender], 0, b.Probes); err != nil {
			return err
		}
		if m.UsedMiB, err = envoy.ResidentMiB(); err != nil {
			return err
		}
		results.Memory = append(results.Memory, m)
	}
	return nil
}

func say(format string, values ...any) { fmt.Fprintf(os.Stderr, format+"\n", values...) }

func indexOf(rows []Row, contender string) int {
	return slices.IndexFunc(rows, func(r Row) bool { return r.Contender == contender })
}
