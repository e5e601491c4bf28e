// Command bench measures the CPU time and memory of probes, and of Envoy's main thread, with Healthgate and its alternatives. It writes
// RESULTS.md.
//
// Contenders that are compared share one Envoy, or run side by side, and take turns, so that noise of the machine hits all of them. Ratios
// are taken within a round. Goals are reported as met or missed; a missed goal fails no run.
//
//	main.go        the parts, their settings, and the files that they write
//	contenders.go  an Envoy with a listener for each contender
//	probes.go      probes and memory
//	cpu.go         CPU time, from /proc
//	scale.go       many clusters, filter chains and route overrides
//	scaleenvoy.go  the Envoys for scale
//	results.go     results.json, and the goals
//	markdown.go    RESULTS.md, from results.md.tmpl
//	plot.go        cost.svg
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"healthgate/e2e/testbed"
)

// settings are how much a run measures.
type settings struct {
	Rounds int           `json:"rounds"`  // of each comparison; twice as many in the smallest Envoy
	Load   time.Duration `json:"load_ns"` // of each contender in each round
	Probes int64         `json:"probes"`  // before memory is read
	Starts int           `json:"starts"`
	Window time.Duration `json:"window_ns"` // for the CPU time of an idle Envoy

	Clusters    []int `json:"clusters"`
	RouteSize   int   `json:"route_size"`   // routes are updated at the largest of Clusters up to this
	Overrides   int   `json:"overrides"`    // in each update of the routes
	Chains      []int `json:"chains"`       // filter chains
	ChainedSize int   `json:"chained_size"` // clusters of an Envoy with many filter chains
	Updates     int   `json:"updates"`      // by LDS, and by RDS
	Changes     int   `json:"changes"`      // of hosts
}

var (
	// full takes up to half an hour.
	full = settings{Rounds: 31, Load: 300 * time.Millisecond, Probes: 300_000, Starts: 5, Window: 40 * time.Second,
		Clusters: []int{100, 1000, 5000, 10000}, RouteSize: 5000, Overrides: 100, Chains: []int{1, 100, 1000}, ChainedSize: 1000,
		Updates: 5, Changes: 6}
	// quick takes seconds and shows that all parts run. Its figures mean nothing.
	quick = settings{Rounds: 1, Load: 50 * time.Millisecond, Probes: 2000, Starts: 1, Window: 250 * time.Millisecond,
		Clusters: []int{30}, RouteSize: 30, Overrides: 5, Chains: []int{2}, ChainedSize: 10, Updates: 1, Changes: 2}
)

// deadline ends a run that is stuck.
const deadline = 40 * time.Minute

func main() {
	folder := filepath.Join(testbed.Root(), "e2e", "bench")
	results := flag.String("results", folder, "`folder` of results.json, RESULTS.md and cost.svg")
	only := flag.String("only", strings.Join(partNames(), ","), "comma-separated `parts` to measure, or none; the others keep their figures")
	rounds := flag.Int("rounds", full.Rounds, "rounds of each comparison")
	clusters := flag.String("clusters", list(full.Clusters), "comma-separated `numbers` of clusters for scale; may be empty")
	chains := flag.String("chains", list(full.Chains), "comma-separated `numbers` of filter chains for scale; may be empty")
	fast := flag.Bool("quick", false, "take seconds only; the figures mean nothing")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	s := full
	s.Rounds = *rounds
	err := errors.Join(parseList(*clusters, &s.Clusters), parseList(*chains, &s.Chains))
	if *fast {
		s = quick
	}
	if *fast && *results == folder {
		err = errors.New("-quick needs -results FOLDER: its figures must not be committed")
	}
	if err == nil {
		err = run(ctx, s, strings.Split(*only, ","), *results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func list(sizes []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(sizes), " ", ","), "[]")
}

func parseList(text string, sizes *[]int) error {
	if *sizes = nil; text == "" {
		return nil
	}
	for _, part := range strings.Split(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a list of numbers such as 100,1000", text)
		}
		*sizes = append(*sizes, n)
	}
	return nil
}

// part is a part that can be measured by itself.
type part struct {
	name    string
	measure func(*bench, *Results) error
}

var parts = []part{{"probes", (*bench).probes}, {"scale", (*bench).scale}}

func partNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// run measures parts, and writes the results after each. It measures the next part also if one fails.
func run(ctx context.Context, s settings, only []string, folder string) error {
	for _, name := range only {
		if name != "none" && !slices.Contains(partNames(), name) {
			return fmt.Errorf("-only %s: the parts are %s; or none", name, strings.Join(partNames(), ", "))
		}
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	results, err := readResults(folder)
	if err != nil {
		return err
	}
	b, end, err := newBench(ctx, s)
	if err != nil {
		return err
	}
	defer end()
	b.save = func() error { return results.write(folder) }
	var failed error
	for _, p := range parts {
		if !slices.Contains(only, p.name) {
			continue
		}
		began := time.Now()
		err := p.measure(b, results)
		progress("%s took %.0f s", p.name, time.Since(began).Seconds())
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		if err := b.save(); err != nil {
			return err
		}
	}
	return errors.Join(failed, b.save())
}

// command returns the make command of this run.
func command(flags []string) string {
	if len(flags) == 0 {
		return "make bench"
	}
	return "make bench BENCH='" + strings.Join(flags, " ") + "'"
}

func readResults(folder string) (*Results, error) {
	results := &Results{}
	text, err := os.ReadFile(filepath.Join(folder, "results.json"))
	if errors.Is(err, os.ErrNotExist) {
		return results, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, results); err != nil {
		return nil, fmt.Errorf("%s/results.json, which has the figures of parts that are not measured: %w", folder, err)
	}
	return results, nil
}

// write writes results.json, RESULTS.md and the picture.
func (r *Results) write(folder string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"results.json": append(text, '\n')}
	if files["RESULTS.md"], err = r.markdown(); err != nil {
		return err
	}
	if r.Probes != nil {
		if files["cost.svg"], err = r.Probes.plot(); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

type bench struct {
	settings
	ctx            context.Context
	made           Run          // how the results are measured
	save           func() error // writes the results so far
	dir            string
	plugin, module testbed.Variant
}

// newBench also returns a function that ends the bench.
func newBench(ctx context.Context, s settings) (*bench, func(), error) {
	now := time.Now().UTC().Format(time.DateOnly)
	b := &bench{settings: s, made: Run{Date: now, Command: command(os.Args[1:]), Host: hostName(), Settings: s}}
	var err error
	if b.made.Versions, err = versions(); err != nil {
		return nil, nil, err
	}
	if b.plugin, err = testbed.Named("plugin"); err != nil {
		return nil, nil, err
	}
	if b.module, err = testbed.Named("module"); err != nil {
		return nil, nil, err
	}
	b.made.Substitute = testbed.HasContribHost(b.plugin)
	if b.dir, err = os.MkdirTemp("", "healthgate-bench-"); err != nil {
		return nil, nil, err
	}
	var cancel func()
	b.ctx, cancel = context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not finished within %v", deadline))
	return b, func() {
		cancel()
		_ = os.RemoveAll(b.dir)
	}, nil
}

// pause waits, unless the run ends.
func (b *bench) pause(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	case <-time.After(d):
		return nil
	}
}

var began = time.Now()

// progress prints a line with the time since the start of the run.
func progress(format string, values ...any) {
	at := time.Since(began).Truncate(time.Second)
	fmt.Fprintf(os.Stderr, "%6v  "+format+"\n", append([]any{at}, values...)...)
}
