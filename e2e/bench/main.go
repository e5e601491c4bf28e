// Command bench measures the CPU time and memory of probes, and of Envoy's main thread, with Healthgate and its alternatives. It writes
// RESULTS.md.
//
// Contenders that are compared share one Envoy, or run side by side, and take turns, so that noise of the machine hits all of them. Ratios
// are taken within a round. Goals are reported as met or missed; a missed goal fails no run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
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
	RouteSize   int   `json:"route_size"`   // routes are updated at this one of Clusters
	Overrides   int   `json:"overrides"`    // in each update of the routes
	Chains      []int `json:"chains"`       // filter chains
	ChainedSize int   `json:"chained_size"` // clusters of an Envoy with many filter chains
	Updates     int   `json:"updates"`      // by LDS, and by RDS
	Changes     int   `json:"changes"`      // of hosts
}

// full takes up to half an hour.
var full = settings{
	Rounds: 31, Load: 300 * time.Millisecond, Probes: 300_000, Starts: 5, Window: 40 * time.Second,
	Clusters: []int{100, 1000, 5000, 10000}, RouteSize: 5000, Overrides: 100, Chains: []int{1, 100, 1000}, ChainedSize: 1000,
	Updates: 5, Changes: 6,
}

func main() {
	s := full
	only := flag.String("only", "probes,scale", "comma-separated `parts` to measure, or none; the others keep their figures")
	flag.IntVar(&s.Rounds, "rounds", s.Rounds, "rounds of each comparison")
	flag.Func("clusters", "comma-separated `numbers` of clusters for scale; may be empty (default 100,1000,5000,10000)", list(&s.Clusters))
	flag.Func("chains", "comma-separated `numbers` of filter chains for scale; may be empty (default 1,100,1000)", list(&s.Chains))
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	log.SetFlags(log.Ltime)
	if err := run(ctx, s, *only, filepath.Join(testbed.Root(), "e2e", "bench")); err != nil {
		log.Fatal("bench: ", err)
	}
}

// list returns a flag's function for numbers with commas between.
func list(numbers *[]int) func(string) error {
	return func(text string) error { return json.Unmarshal([]byte("["+text+"]"), numbers) }
}

// parts can be measured separately.
var parts = map[string]func(*bench, *Results) error{"probes": (*bench).probes, "scale": (*bench).scale}

// run measures parts, and writes the results into a folder after each. Without a part it writes RESULTS.md and the picture again.
func run(ctx context.Context, s settings, only, folder string) error {
	measured := strings.Split(only, ",")
	for _, name := range measured {
		if parts[name] == nil && only != "none" {
			return fmt.Errorf("-only %s: the parts are probes, scale; or none", name)
		}
	}
	results := &Results{}
	text, err := os.ReadFile(filepath.Join(folder, "results.json"))
	if err == nil {
		err = json.Unmarshal(text, results)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s/results.json, which has the figures of parts that are not measured: %w", folder, err)
	}
	if only == "none" {
		return results.render(folder)
	}
	dir, err := os.MkdirTemp("", "healthgate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := newBench(ctx, s, dir)
	if err != nil {
		return err
	}
	for _, name := range measured {
		began := time.Now()
		if err := parts[name](b, results); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		log.Printf("%s took %.0f s", name, time.Since(began).Seconds())
		text, err := json.MarshalIndent(results, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "results.json"), append(text, '\n'), 0o644); err != nil {
			return err
		}
		if err := results.render(folder); err != nil {
			return err
		}
	}
	return nil
}

// render writes RESULTS.md and the picture.
func (r *Results) render(folder string) error {
	page, err := r.markdown()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "RESULTS.md"), page, 0o644); err != nil || r.Probes == nil {
		return err
	}
	picture, err := r.Probes.plot()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "cost.svg"), picture, 0o644)
}

type bench struct {
	settings
	ctx            context.Context
	made           Run // how the results are measured
	dir            string
	plugin, module testbed.Variant
}

func newBench(ctx context.Context, s settings, dir string) (b *bench, err error) {
	command := "make bench"
	if len(os.Args) > 1 {
		command += " BENCH='" + strings.Join(os.Args[1:], " ") + "'"
	}
	b = &bench{settings: s, ctx: ctx, dir: dir,
		made: Run{Date: time.Now().UTC().Format(time.DateOnly), Command: command, Host: hostName(), Settings: s}}
	if b.made.Versions, err = versions(); err != nil {
		return nil, err
	}
	if b.plugin, err = testbed.VariantNamed("plugin"); err != nil {
		return nil, err
	}
	b.made.Substitute = testbed.HasContribHost(b.plugin)
	b.module, err = testbed.VariantNamed("module")
	return b, err
}

// idle returns a function that waits, unless the run ends.
func (b *bench) idle(d time.Duration) func() error {
	return func() error {
		select {
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		case <-time.After(d):
			return nil
		}
	}
}
