package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// Results are what a run has shown; results.json holds them.
type Results struct {
	Date        string            `json:"date"`
	Versions    map[string]string `json:"versions"`
	Host        string            `json:"host"`
	Bed         string            `json:"bed"` // what took the place of what
	Settings    settings          `json:"settings"`
	Connections int               `json:"connections"`
	Probes      []Table           `json:"probes"`
	Traffic     []Table           `json:"traffic"`
	Memory      []Memory          `json:"memory"`
	PluginMiB   float64           `json:"plugin_mib"`
	Targets     []Target          `json:"targets"`
}

// Table is one comparison.
type Table struct {
	Name string `json:"name"`
	Peer string `json:"peer"` // whom the ratios are to
	Rows []Row  `json:"rows"`
}

// Row is one contender of it. Times are microseconds.
type Row struct {
	Contender string `json:"contender"`
	Rate      Spread `json:"rate"`
	P50       Spread `json:"p50_us"`
	P99       Spread `json:"p99_us"`
	Worker    Spread `json:"worker_us"`
	Process   Spread `json:"process_us"`
	// To the peer in the same round.
	RateRatio    Spread `json:"rate_ratio"`
	WorkerRatio  Spread `json:"worker_ratio"`
	ProcessRatio Spread `json:"process_ratio"`
}

// Memory is that of one Envoy.
type Memory struct {
	Contender         string  `json:"contender"`
	StartMilliseconds Spread  `json:"start_ms"`
	IdleMiB           float64 `json:"idle_mib"`
	UsedMiB           float64 `json:"used_mib"`
}

// Target is what was aimed at.
type Target struct {
	What string  `json:"what"`
	Want string  `json:"want"`
	Got  float64 `json:"got"`
	Met  bool    `json:"met"`
}

// table summarizes the rounds.
func table(name string, contenders []string, seen map[string][]Round, peer string) Table {
	t := Table{Name: name, Peer: peer}
	for _, contender := range contenders {
		of := func(figure func(r, peer Round) float64) Spread {
			var values []float64
			for i, r := range seen[contender] {
				values = append(values, figure(r, seen[peer][i]))
			}
			return spreadOf(values)
		}
		us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
		t.Rows = append(t.Rows, Row{
			Contender:    contender,
			Rate:         of(func(r, _ Round) float64 { return r.Rate }),
			P50:          of(func(r, _ Round) float64 { return us(r.P50) }),
			P99:          of(func(r, _ Round) float64 { return us(r.P99) }),
			Worker:       of(func(r, _ Round) float64 { return us(r.Worker) }),
			Process:      of(func(r, _ Round) float64 { return us(r.Process) }),
			RateRatio:    of(func(r, p Round) float64 { return r.Rate / p.Rate }),
			WorkerRatio:  of(func(r, p Round) float64 { return us(r.Worker) / us(p.Worker) }),
			ProcessRatio: of(func(r, p Round) float64 { return us(r.Process) / us(p.Process) }),
		})
	}
	return t
}

func (t Table) row(contender string) Row {
	if i := indexOf(t.Rows, contender); i >= 0 {
		return t.Rows[i]
	}
	return Row{}
}

// judge holds the results against what was aimed at.
func (r *Results) judge() {
	add := func(what, want string, got float64, met bool) {
		r.Targets = append(r.Targets, Target{what, want, got, met})
	}
	base, more, thousand := r.Probes[0], r.Probes[1], r.Probes[2]
	g := base.row(gate)
	add("probes a second, to native's", ">= 0.80", g.RateRatio.Median, g.RateRatio.Median >= 0.80)
	if e := base.row(empty); e.Rate.Median > 0 {
		// What an empty plugin takes of the worker, over answering without it.
		without := func(empty Row) float64 {
			return base.row(native).Worker.Median / (g.Worker.Median - (empty.Worker.Median - base.row(direct).Worker.Median))
		}
		got := without(e)
		add("the same by the worker's time, without the stand-in's (an empty plugin's)", ">= 0.90", got, got >= 0.90)
		got = without(base.row(emptyGo))
		add("and without that of Envoy's Go SDK (an empty plugin's in Go)", ">= 0.90", got, got >= 0.90)
	}
	times := func(t Table) float64 { return t.row(gate).Rate.Median / t.row(lua).Rate.Median }
	add("probes a second, to Lua's", ">= 3.5", times(base), times(base) >= 3.5)
	add("the same with 100 more clusters", ">= 15", times(more), times(more) >= 15)
	flat := thousand.row(gate).RateRatio.Median / g.RateRatio.Median
	add("with 1,000 hosts, to that with 3 (both to native's)", ">= 0.90", flat, flat >= 0.90)
	flat = more.row(gate).RateRatio.Median / g.RateRatio.Median
	add("with 100 more clusters, to that with none (both to native's)", ">= 0.90", flat, flat >= 0.90)
	add("the worker's time a probe, to native's", "<= 1.3", g.WorkerRatio.Median, g.WorkerRatio.Median <= 1.3)
	for _, t := range r.Traffic {
		w := t.row(gate).WorkerRatio
		same := w.Q1 <= 1 && w.Q3 >= 1 || w.Median >= 0.97 && w.Median <= 1.03
		add("traffic, "+t.Name+": the worker's time, disabled by default to no filter", "1.00, by its quartiles or within 0.03", w.Median, same)
	}
	grown := r.Memory[1].UsedMiB - r.Memory[0].UsedMiB
	add("memory after the probes, more than Envoy's alone, MiB", "<= 20", grown, grown <= 20)
}

// markdown is RESULTS.md.
func (r *Results) markdown() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What it costs\n\nWritten by `make bench` on %s. Do not edit.\n\n", r.Date)
	fmt.Fprintf(&b, "%s. Envoy %s with one worker, Healthgate %s, %s.\n\n%s\n\n", r.Host, r.Versions["envoy"], r.Versions["healthgate"], r.Versions["go"], r.Bed)
	fmt.Fprintf(&b, "%d rounds of %v for each contender, interleaved; %d clients that each ask again when they have their answer. Medians, with the\n"+
		"quartiles in brackets; ratios are taken within a round. Times are microseconds.\n", r.Settings.Rounds, r.Settings.Load, r.Connections)

	for _, part := range []struct {
		title, unit, says string
		tables            []Table
	}{
		{"Probes", "probes/s", "`GET /` over HTTP/1.1, in the clear, on connections that are kept. Worker and process: CPU time a probe.", r.Probes},
		{"Other traffic", "calls/s", "gRPC to a server that sends back what it gets. `direct_response` has no filter; `healthgate` is disabled but for the probe's route.", r.Traffic},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", part.title, part.says)
		for _, t := range part.tables {
			fmt.Fprintf(&b, "\n### %s\n\n", t.Name)
			rows := [][]string{{t.Name, part.unit, "to " + t.Peer, "p50", "p99", "worker", "to " + t.Peer, "process"}}
			for _, row := range t.Rows {
				rows = append(rows, []string{
					row.Contender, fmt.Sprintf("%.0f", row.Rate.Median), ratio(row.RateRatio),
					fmt.Sprintf("%.0f", row.P50.Median), fmt.Sprintf("%.0f", row.P99.Median),
					fmt.Sprintf("%.1f", row.Worker.Median), ratio(row.WorkerRatio), fmt.Sprintf("%.1f", row.Process.Median),
				})
			}
			grid(&b, rows)
		}
	}

	fmt.Fprintf(&b, "\n## Memory and start\n\nAn Envoy with one listener: with nothing of Healthgate's, and with it. The plugin's file has %.1f MiB.\n\n", r.PluginMiB)
	rows := [][]string{{"", "start, ms", "idle, MiB", fmt.Sprintf("after %d probes, MiB", r.Settings.Probes)}}
	for _, m := range r.Memory {
		rows = append(rows, []string{m.Contender, fmt.Sprintf("%.0f", m.StartMilliseconds.Median), fmt.Sprintf("%.1f", m.IdleMiB), fmt.Sprintf("%.1f", m.UsedMiB)})
	}
	grid(&b, rows)

	fmt.Fprintf(&b, "\n## What was aimed at\n\n")
	rows = [][]string{{"", "aim", "seen", ""}}
	for _, t := range r.Targets {
		rows = append(rows, []string{t.What, t.Want, fmt.Sprintf("%.2f", t.Got), map[bool]string{true: "met", false: "missed"}[t.Met]})
	}
	grid(&b, rows)
	return b.String()
}

func ratio(s Spread) string { return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Q1, s.Q3) }

// grid writes rows as a table that reads well as text too.
func grid(b *bytes.Buffer, rows [][]string) {
	w := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
	for i, row := range rows {
		fmt.Fprintln(w, "| "+strings.Join(row, "\t| ")+"\t|")
		if i == 0 {
			fmt.Fprintln(w, "|"+strings.Repeat("---\t|", len(row)))
		}
	}
	_ = w.Flush() // into memory
}

// versions are those of what was run.
func versions() (map[string]string, error) {
	commit, err := exec.Command("git", "-C", bed.Root(), "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		commit = []byte("unknown") // not a checkout
	}
	envoy, err := bed.EnvoyVersion()
	if err != nil {
		return nil, err
	}
	return map[string]string{"healthgate": strings.TrimSpace(string(commit)), "go": runtime.Version(), "envoy": envoy}, nil
}

func hostOf() string {
	model := "an unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s/%s, shared by Envoy and the load", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH)
}

func bedOf(d door.Door) string {
	if !door.HasStandIn(d) {
		return "The plugin is run by this Envoy's own golang extension."
	}
	return "This Envoy lacks the golang extension: the stand-in (`e2e/standin`) takes its place, and its cost is in the figures of Healthgate.\n" +
		"The `empty plugin` shows that cost: it answers at once, without Go; the `empty plugin in Go` does so by Envoy's Go SDK. The contrib\n" +
		"host has code of its own in the stand-in's place, whose cost no run here has seen."
}
