package main

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"
)

// markdown is RESULTS.md.
func (r *Results) markdown() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What it costs\n\nWritten by `make bench` on %s; `make plots` makes this page and its pictures again of results.json. Do not edit.\n\n", r.Date)
	fmt.Fprintf(&b, "%s. Envoy %s with one worker, Healthgate %s, %s.\n\n%s\n\n", r.Host, r.Versions["envoy"], r.Versions["healthgate"], r.Versions["go"], r.Bed)
	fmt.Fprintf(&b, "%d rounds of %v for each contender, interleaved; %d clients that each ask again when they have their answer. Medians, with the\n"+
		"quartiles in brackets; ratios are taken within a round. Times are microseconds.\n", r.Settings.Rounds, r.Settings.Load, r.Connections)
	r.aims(&b)
	fmt.Fprint(&b, "\n## Probes\n\n`GET /` over HTTP/1.1, in the clear, on connections that are kept, answered by each contender in one Envoy. Worker and process: CPU\n"+
		"time a probe, the process's without what it uses when nobody asks (below).\n\n"+
		"![What a probe costs over the number of clusters](cost.svg)\n\n![The distribution of latency](latency.svg)\n")
	for _, t := range r.Probes {
		t.markdown(&b, "probes/s")
	}
	fmt.Fprint(&b, "\n## Checks\n\n`grpc.health.v1.Health/Check` over HTTP/2, answered by the stock door, beside a call of the same size that Envoy hands on to a host.\n")
	r.Checks.markdown(&b, "calls/s")
	fmt.Fprint(&b, "\n## Other traffic\n\ngRPC to a server that sends back what it gets. `direct_response` has no filter; each door is disabled but for the probe's route, and asked\n"+
		"on every route where the name says so.\n")
	for _, t := range r.Traffic {
		t.markdown(&b, "calls/s")
	}
	r.mainThread(&b)
	r.memory(&b)
	fmt.Fprintf(&b, "\n## Timelines\n\nFrom a real run: %s.\n\n![Hosts that go and come against the answer](hosts.svg)\n\n", r.Hosts.Says)
	fmt.Fprintf(&b, "And a drain: %s.\n\n![A drain](drain.svg)\n", r.Drain.Says)
	return b.String()
}

func (r *Results) aims(b *bytes.Buffer) {
	fmt.Fprint(b, "\n## What was aimed at\n\n")
	rows := [][]string{{"", "aim", "seen", ""}}
	for _, t := range r.Targets {
		rows = append(rows, []string{t.What, t.Want, fmt.Sprintf("%.2f", t.Got), map[bool]string{true: "met", false: "missed"}[t.Met]})
	}
	grid(b, rows)
}

func (t Table) markdown(b *bytes.Buffer, unit string) {
	fmt.Fprintf(b, "\n### %s\n\n", t.Name)
	rows := [][]string{{t.Name, unit, "to " + t.Peer, "p50", "p99", "worker", "to " + t.Peer, "process"}}
	for _, row := range t.Rows {
		rows = append(rows, []string{
			row.Contender, fmt.Sprintf("%.0f", row.Rate.Median), ratio(row.RateRatio),
			fmt.Sprintf("%.0f", row.P50.Median), fmt.Sprintf("%.0f", row.P99.Median),
			fmt.Sprintf("%.1f", row.Worker.Median), ratio(row.WorkerRatio), fmt.Sprintf("%.1f", row.Process.Median),
		})
	}
	grid(b, rows)
}

func (r *Results) mainThread(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## The main thread\n\nThe stock door looks at all gauges between probes, on Envoy's main thread, whoever asks. An Envoy that nobody asks anything, %d times for %v,\n"+
		"beside one with nothing of Healthgate's; the contrib door does nothing there.\n\n", looks, r.Settings.Idle)
	rows := [][]string{{"", "gauges", "of a core, %", "without, %", "the door's, %", "looks a second", "a look, µs"}}
	for _, m := range r.Main {
		rows = append(rows, []string{m.Scenario, fmt.Sprint(m.Gauges), fmt.Sprintf("%.2f", m.Percent.Median), fmt.Sprintf("%.2f", m.WithoutPercent.Median),
			fmt.Sprintf("%.2f", m.own()), fmt.Sprintf("%.1f", m.Looks), fmt.Sprintf("%.0f", m.PerLook)})
	}
	grid(b, rows)
}

func (r *Results) memory(b *bytes.Buffer) {
	fmt.Fprint(b, "\n## Memory and start\n\nAn Envoy with one listener: with nothing of Healthgate's, and with each door. ")
	for _, o := range r.Objects {
		fmt.Fprintf(b, "The %s door's file has %.1f MiB. ", o.Door, o.MiB)
	}
	fmt.Fprint(b, "\n\n")
	rows := [][]string{{"", "start, ms", "idle, MiB", fmt.Sprintf("after %d probes, MiB", r.Settings.Probes), "more than native, MiB"}}
	for _, m := range r.Memory {
		rows = append(rows, []string{m.Contender + ", " + m.Scenario, fmt.Sprintf("%.0f", m.StartMilliseconds.Median), fmt.Sprintf("%.1f", m.IdleMiB),
			fmt.Sprintf("%.1f", m.UsedMiB), fmt.Sprintf("%.1f", r.grown(m.Scenario, m.Contender))})
	}
	grid(b, rows)
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
