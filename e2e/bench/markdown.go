package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// markdown is RESULTS.md.
func (r *Results) markdown() string {
	var b bytes.Buffer
	b.WriteString("# What it costs\n\nWritten by `make bench`; do not edit. Each section says when and by which command it was measured.\n" +
		"Figures are medians; the quartiles are in brackets. Ratios are taken within a round, between contenders that take turns.\n\n## Goals\n\n")
	rows := [][]string{{"", "goal", "seen", ""}}
	for _, g := range r.goals() {
		seen, met := fmt.Sprintf("%.2f", g.Got), map[bool]string{true: "met", false: "**missed**"}[g.Met]
		if math.IsInf(g.Got, 0) {
			seen, met = "–", "**not measured**"
		}
		rows = append(rows, []string{g.What, g.Want, seen, met})
	}
	grid(&b, rows)
	r.Probes.markdown(&b)
	r.Memory.markdown(&b)
	r.Traffic.markdown(&b)
	r.Scale.markdown(&b)
	return b.String()
}

// heading writes the heading of a section and how it was measured. It returns false if it was not.
func (r Run) heading(b *bytes.Buffer, title string) bool {
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if r.Date == "" {
		b.WriteString("Not measured.\n")
		return false
	}
	fmt.Fprintf(b, "%s, `%s`: Healthgate %s, Envoy %s with one worker, %s; %s, shared by Envoy and the load.\n\n",
		r.Date, r.Command, r.Versions["healthgate"], r.Versions["envoy"], r.Versions["go"], r.Host)
	return true
}

func (p Probes) markdown(b *bytes.Buffer) {
	if !p.heading(b, "Probes") {
		return
	}
	fmt.Fprintf(b, "`GET /` in clear text, %d clients that each send their next probe when they have their reply; %d rounds of %v (twice as many of the\n"+
		"first table). Worker: CPU time of Envoy's worker for a probe. Load: CPU time of the clients. Smallest: the smallest module or plugin of\n"+
		"the same kind, which sends 200 and does nothing else.\n", connections, p.Settings.Rounds, p.Settings.Load)
	if p.Substitute {
		b.WriteString("\nThis Envoy lacks the golang extension: plugins run in the contrib host of the tests (`e2e/standin`), and their figures include its\n" +
			"cost, which the empty C plugin shows.\n")
	}
	b.WriteString("\n### HTTP/1.1\n\n")
	p.Sizes[small].probes(b)
	b.WriteString("\n### HTTP/2\n\n")
	p.HTTP2.probes(b)
	b.WriteString("\n### By the size of Envoy\n\nCPU time of Envoy's process for a probe, less that of an idle Envoy, in µs; in brackets the worker's, to Envoy's own filter.\n\n" +
		"![CPU time of a probe by the number of clusters](cost.svg)\n\n")
	rows := [][]string{{""}}
	for _, t := range p.Sizes {
		rows[0] = append(rows[0], t.Name)
	}
	for _, r := range p.Sizes[hundred].Rows {
		row := []string{r.Contender}
		for _, t := range p.Sizes {
			row = append(row, fmt.Sprintf("%.0f (%.2f)", t.row(r.Contender).Process.Median, t.row(r.Contender).WorkerRatio.Median))
		}
		rows = append(rows, row)
	}
	grid(b, rows)
}

// probes writes a comparison of probes.
func (t Table) probes(b *bytes.Buffer) {
	rows := [][]string{{t.Name, "probes/s", "to " + t.Peer, "to smallest", "worker, µs", "to " + t.Peer, "to smallest", "load, µs", "p50, µs", "p99, µs"}}
	for _, r := range t.Rows {
		rows = append(rows, []string{r.Contender, decimals(r.Rate.Median, 0), r.RateRatio.ratio(), r.RateToSmallest.ratio(),
			decimals(r.Worker.Median, 1), r.WorkerRatio.ratio(), r.WorkerToSmallest.ratio(),
			decimals(r.Load.Median, 0), decimals(r.P50.Median, 0), decimals(r.P99.Median, 0)})
	}
	grid(b, rows)
}

func (m MemoryResults) markdown(b *bytes.Buffer) {
	if !m.heading(b, "Memory") {
		return
	}
	fmt.Fprintf(b, "An Envoy with one listener. The file of the dynamic module has %.1f MiB, that of the Go plugin %.1f MiB.\n\n",
		m.FileMiB[byModule], m.FileMiB[byPlugin])
	rows := [][]string{{"", "idle, MiB", fmt.Sprintf("after %d probes, MiB", m.Settings.Probes), "more than " + native + ", MiB"}}
	for _, row := range m.Rows {
		rows = append(rows, []string{row.Size + ", " + row.Contender, decimals(row.IdleMiB, 1), decimals(row.UsedMiB, 1), decimals(m.more(row.Size, row.Contender), 1)})
	}
	grid(b, rows)
}

func (t Traffic) markdown(b *bytes.Buffer) {
	if !t.heading(b, "Other traffic") {
		return
	}
	fmt.Fprintf(b, "gRPC to a server that sends back each message, %d rounds of %v. The gate is disabled except on the probe's route, or enabled on every\n"+
		"route if the name says so. Calls a second, and in brackets the worker's CPU time for a call, to that without a filter.\n\n", t.Settings.Rounds, t.Settings.Load)
	rows := [][]string{{""}}
	for _, k := range t.Kinds {
		rows[0] = append(rows[0], k.Name)
	}
	for _, r := range t.Kinds[0].Rows {
		row := []string{r.Contender}
		for _, k := range t.Kinds {
			row = append(row, fmt.Sprintf("%.0f (%.2f)", k.row(r.Contender).Rate.Median, k.row(r.Contender).WorkerRatio.Median))
		}
		rows = append(rows, row)
	}
	grid(b, rows)
	answered, through := t.Checks.row(byModule), t.Checks.row(direct)
	fmt.Fprintf(b, "\nA Check of `grpc.health.v1.Health` that the dynamic module answers takes %.0f µs of the worker, %s of the same call to a host (%.0f µs).\n",
		answered.Worker.Median, answered.WorkerRatio.ratio(), through.Worker.Median)
}

func (s Scale) markdown(b *bytes.Buffer) {
	if !s.heading(b, "Scale") {
		return
	}
	fmt.Fprintf(b, "Each Envoy with the dynamic module beside the same one without Healthgate, at the same time. A prober sends %d probes a second to each, and\n"+
		"%d of its clusters are checked each second with a timeout of 1 s. All hosts are healthy, so a check that fails and a probe that is not\n"+
		"answered with 200 are false; those of all phases are counted, from the first reply of a start on. Main thread: %% of a core.\n", proberRate, checkedClusters+1)
	for _, err := range s.Errors {
		fmt.Fprintf(b, "\n- **not measured whole**: %s\n", strings.ReplaceAll(err, "\n", " "))
	}
	fmt.Fprintf(b, "\n### By clusters\n\nMain threads for %v. Then a host of the gate's cluster is removed and added in turn, %d times: the delay is between the reply of Envoy's\n"+
		"own filter in the same Envoy and that of the gate.\n\n", s.Settings.Window, s.Settings.Changes)
	rows := [][]string{{"clusters", "", "main thread, %", "more, %", "a pass each, ms", "delay, ms", "longest, ms", "memory, MiB", "failed checks", "false replies"}}
	for _, r := range s.Clusters {
		rows = append(rows, append([]string{fmt.Sprint(r.Size), r.Envoy, decimals(r.MainPercent, 2), more(s.Clusters, r), decimals(r.Period, 0),
			decimals(median(r.Delays), 0), decimals(slices.Max(append([]float64{0}, r.Delays...)), 0), decimals(r.MiB, 0)}, r.Watched.cells()...))
	}
	grid(b, rows)
	fmt.Fprintf(b, "\n### By filter chains\n\n%d clusters, and a gate in each filter chain that names a cluster of its own. The start is until a probe is answered with 200; %d starts.\n"+
		"%d updates of the listener, by LDS, change each chain; each is measured until a new connection gets it. Then the main threads for %v.\n\n",
		s.Settings.ChainedSize, s.Settings.Starts, s.Settings.Updates, s.Settings.Window)
	rows = [][]string{{"chains", "", "start, ms", "ratio", "LDS update, ms", "ratio", "main thread, %", "more, %", "failed checks", "false replies"}}
	for _, r := range s.Chains {
		without := find(s.Chains, r.Size, withoutUs)
		rows = append(rows, append([]string{fmt.Sprint(r.Size), r.Envoy, decimals(median(r.Starts), 0), decimals(ratioOf(r.Starts, without.Starts), 2),
			decimals(median(r.Updates), 1), decimals(ratioOf(r.Updates, without.Updates), 2), decimals(r.MainPercent, 2), more(s.Chains, r)}, r.Watched.cells()...))
	}
	grid(b, rows)
	fmt.Fprintf(b, "\n### By route overrides\n\n%d updates of the routes, by RDS, each with %d overrides that name clusters of their own. After each, each override is probed once.\n\n",
		s.Settings.Updates, s.Settings.Overrides)
	rows = [][]string{{"clusters", "", "RDS update, ms", "ratio", "failed checks", "false replies"}}
	for _, r := range s.Routes {
		rows = append(rows, append([]string{fmt.Sprint(r.Size), r.Envoy, decimals(median(r.Updates), 1),
			decimals(ratioOf(r.Updates, find(s.Routes, r.Size, withoutUs).Updates), 2)}, r.Watched.cells()...))
	}
	grid(b, rows)
}

func (w Watched) cells() []string {
	return []string{fmt.Sprintf("%d of %d", w.Failed, w.Checks), fmt.Sprintf("%d of %d", w.Rejected+w.Lost, w.Probes)}
}

func more(rows []ScaleRow, row ScaleRow) string {
	if row.Envoy == withoutUs {
		return "–"
	}
	return decimals(moreMain(row, find(rows, row.Size, withoutUs)), 2)
}

func (s Spread) ratio() string {
	if s.Median == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Q1, s.Q3)
}

// decimals writes a figure; one that is not there is a dash.
func decimals(v float64, n int) string {
	if math.IsInf(v, 0) || math.IsNaN(v) || v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", n, v)
}

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
