// Command bench measures what a probe costs, answered by Healthgate by either door and by each of its peers in the same Envoy, what
// other traffic pays for them, what Envoy's main thread does and what they hold in memory. It records two timelines too: hosts that go
// and come against the answer, and a drain.
//
// Rounds of all contenders are interleaved, so that what else the machine does hits all alike. Figures are medians over the
// rounds; ratios are taken within a round first.
//
// The golang extension is the stand-in's, where Envoy lacks it: the results say which it was.
//
//	main.go      what is measured, in which order
//	envoy.go     the one Envoy with its contenders
//	load.go      what it is loaded with
//	sample.go    what Envoy uses meanwhile
//	idle.go      what it uses while nobody asks: the main thread, and memory
//	timeline.go  what happens when
//	results.go   what has come of it, and what was aimed at
//	markdown.go  RESULTS.md, made of results.json
//	plots.go     the SVG, made of results.json
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
	Rounds int           `json:"rounds"`
	Load   time.Duration `json:"load_ns"` // of each contender in each round
	Probes int64         `json:"probes"`  // before memory is looked at again
	Starts int           `json:"starts"`
	Idle   time.Duration `json:"idle_ns"` // of one look at what an idle Envoy uses
	// Seconds of the timelines are shorter by this: 1 is as they are told.
	Pace    float64 `json:"pace"`
	results string  // folder
}

func main() {
	var s settings
	flag.IntVar(&s.Rounds, "rounds", 31, "how many rounds")
	flag.DurationVar(&s.Load, "load", 300*time.Millisecond, "how long each contender is loaded in each round")
	flag.Int64Var(&s.Probes, "probes", 1_000_000, "how many probes before memory is looked at again")
	flag.IntVar(&s.Starts, "starts", 5, "how many starts of Envoy are timed")
	flag.DurationVar(&s.Idle, "idle", 2*time.Second, "how long each look at an idle Envoy takes; there are five")
	flag.Float64Var(&s.Pace, "pace", 1, "how much faster the timelines go than told")
	flag.StringVar(&s.results, "results", filepath.Join(bed.Root(), "e2e", "bench"), "`folder` for RESULTS.md, results.json and the plots")
	render := flag.Bool("render", false, "measure nothing, and make RESULTS.md and the plots of the results.json that is there")
	flag.Parse()
	log.SetLogLevelQuiet(log.Error) // fortio's
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	var err error
	if !*render {
		err = run(ctx, s)
	}
	if err == nil {
		err = renderIn(s.results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything, and writes results.json.
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
	b := &bench{settings: s, ctx: ctx, dir: dir, backend: backend}
	for _, name := range []string{"contrib", "stock"} {
		d, err := door.Named(name)
		if err != nil {
			return err
		}
		b.doors = append(b.doors, d)
	}
	results := &Results{Date: time.Now().UTC().Format(time.DateOnly), Settings: s, Connections: connections, Host: hostOf(), Bed: bedOf(b.doors[0])}
	if results.Versions, err = versions(); err != nil {
		return err
	}
	for _, part := range []func(*Results) error{b.probes, b.checks, b.traffic, b.idle, b.memory, b.timelines} {
		if err := part(results); err != nil {
			return err
		}
	}
	results.judge()
	text, err := json.MarshalIndent(results, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.results, "results.json"), append(text, '\n'), 0o644)
}

// renderIn makes what people look at of a folder's results.json.
func renderIn(folder string) error {
	text, err := os.ReadFile(filepath.Join(folder, "results.json"))
	if err != nil {
		return err
	}
	results := &Results{}
	if err := json.Unmarshal(text, results); err != nil {
		return err
	}
	plots, err := results.plots()
	if err != nil {
		return err
	}
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(folder, name), svg, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "RESULTS.md"), []byte(results.markdown()), 0o644)
}

type bench struct {
	settings
	ctx     context.Context
	dir     string
	backend string // of the echo server
	doors   []door.Door
}

func (b *bench) start(s scenario, contenders ...string) (*bed.Envoy, map[string]string, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, nil, err
	}
	return start(b.ctx, b.doors, dir, b.backend, s, contenders...)
}

// rounds loads each contender in each round, in an order that changes, after a round that is not counted.
func (b *bench) rounds(envoy *bed.Envoy, contenders []string, load func(contender string) (done, error)) (map[string][]Round, error) {
	idle, err := idleOf(b.ctx, envoy.Pid(), b.Idle)
	if err != nil {
		return nil, err
	}
	seen := map[string][]Round{}
	for round := -1; round < b.Rounds; round++ {
		for i := range contenders {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			contender := contenders[(i+round+1)%len(contenders)]
			r, err := measure(envoy.Pid(), idle.process.Seconds(), func() (done, error) { return load(contender) })
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
	contenders := []string{direct, native, byContrib, byStock, lua}
	for i, s := range scenarios {
		contenders := contenders
		if i == small && door.HasStandIn(b.doors[0]) {
			contenders = append(contenders, empty, emptyGo)
		}
		say("probes, %s: %d rounds of %d contenders", s.Name, b.Rounds, len(contenders))
		envoy, addresses, err := b.start(s, contenders...)
		if err != nil {
			return err
		}
		seen, err := b.rounds(envoy, contenders, func(contender string) (done, error) { return probes(addresses[contender], b.Load, 0) })
		envoy.Kill()
		if err != nil {
			return err
		}
		results.Probes = append(results.Probes, table(s.Name, contenders, seen, native))
		if i == small {
			results.Latency = distributions([]string{native, byContrib, byStock, lua}, seen)
		}
	}
	return nil
}

// checks compares a Check that the stock door answers with one that Envoy hands on to a host.
func (b *bench) checks(results *Results) error {
	contenders := []string{through, check}
	say("Checks: %d rounds of %d contenders", b.Rounds, len(contenders))
	envoy, addresses, err := b.start(scenarios[small], direct, byStock)
	if err != nil {
		return err
	}
	defer envoy.Kill()
	addresses[through] = addresses[direct]
	seen, err := b.rounds(envoy, contenders, func(contender string) (done, error) {
		return calls(addresses[contender], checking[contender], b.Load)
	})
	if err != nil {
		return err
	}
	results.Checks = table("a Check", contenders, seen, through)
	return nil
}

// traffic compares what proxied gRPC calls pay.
func (b *bench) traffic(results *Results) error {
	contenders := []string{direct, byContrib, byStock, contribEverywhere, stockEverywhere, native, lua}
	envoy, addresses, err := b.start(scenarios[small], contenders...)
	if err != nil {
		return err
	}
	defer envoy.Kill()
	for _, k := range kinds {
		say("traffic, %s: %d rounds of %d contenders", k.Name, b.Rounds, len(contenders))
		seen, err := b.rounds(envoy, contenders, func(contender string) (done, error) { return calls(addresses[contender], k, b.Load) })
		if err != nil {
			return err
		}
		results.Traffic = append(results.Traffic, table(k.Name, contenders, seen, direct))
	}
	return nil
}

func say(format string, values ...any) { fmt.Fprintf(os.Stderr, format+"\n", values...) }

func indexOf(rows []Row, contender string) int {
	return slices.IndexFunc(rows, func(r Row) bool { return r.Contender == contender })
}
