package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
)

//go:embed results.md.tmpl
var page string

var pageTemplate = template.Must(template.New("results.md").Funcs(template.FuncMap{
	"goals": goalsTable, "probes": probesTable, "clusters": clustersTable, "chains": chainsTable, "routes": routesTable,
	"connections": func() int { return connections },
	"proberRate":  func() int { return proberRate },
	"checked":     func() int { return checkedClusters + 1 },
	"oneLine":     func(text string) string { return strings.Join(strings.Fields(text), " ") },
}).Parse(page))

// markdown returns RESULTS.md.
func (r *Results) markdown() ([]byte, error) {
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, r)
	return b.Bytes(), err
}

func goalsTable(r *Results) string {
	rows := [][]string{{"", "goal", "seen", ""}}
	for _, g := range r.goals() {
		seen, met := fmt.Sprintf("%.2f", g.Got), "met"
		switch {
		case math.IsInf(g.Got, 0):
			seen, met = "–", "**not measured**"
		case !g.Met:
			met = "**missed**"
		}
		rows = append(rows, []string{g.What, g.Want, seen, met})
	}
	return grid(rows)
}

// probesTable has a row for each contender.
func probesTable(p Probes) string {
	rows := [][]string{{"", "probes/s", "to native", "to smallest", "worker, µs", "to native", "to smallest", "p99, µs"}}
	for _, size := range p.Sizes {
		rows[0] = append(rows[0], "process, µs: "+size.Name)
	}
	rows[0] = append(rows[0], "MiB: "+sizes[small].Name, "MiB: "+sizes[thousand].Name, "load, µs", "not 200, %")
	for _, r := range p.Sizes[small].Rows {
		row := []string{r.Contender, figure(r.Rate.Median, 0), r.RateRatio.brief(), r.RateToSmallest.brief(),
			figure(r.Worker.Median, 1), r.WorkerRatio.brief(), r.WorkerToSmallest.brief(), figure(r.P99.Median, 0)}
		for _, size := range p.Sizes {
			row = append(row, figure(size.row(r.Contender).Process.Median, 0))
		}
		for _, s := range []int{small, thousand} {
			mib := 0.0
			for _, m := range p.Memory {
				if m.Size == sizes[s].Name && m.Contender == r.Contender {
					mib = m.MiB
				}
			}
			row = append(row, figure(mib, 1))
		}
		rows = append(rows, append(row, figure(r.Load.Median, 0), figure(100*float64(r.Rejected)/float64(r.Requests), 1)))
	}
	return grid(rows)
}

func clustersTable(s Scale) string {
	rows := [][]string{{"clusters", "", "main thread, %", "more, %", "all threads, more, %",
		"between samples, ms", "delay, ms", "longest, ms", "memory, MiB",
		"failed checks", "false replies"}}
	for _, r := range s.Clusters {
		longest := slices.Max(append([]float64{0}, r.Delays...))
		rows = append(rows, []string{fmt.Sprint(r.Size), r.Envoy, figure(r.MainPercent, 2),
			more(s.Clusters, r, moreMain), more(s.Clusters, r, moreInAll),
			figure(r.Period, 0), figure(median(r.Delays), 0), figure(longest, 0), figure(r.MiB, 0), r.failed(), r.unanswered()})
	}
	return grid(rows)
}

func chainsTable(s Scale) string {
	rows := [][]string{{"chains", "", "start, ms", "ratio", "LDS update, ms", "ratio", "main thread, %", "more, %",
		"all threads, more, %", "failed checks", "false replies"}}
	for _, r := range s.Chains {
		without := find(s.Chains, r.Size, withoutUs)
		rows = append(rows, []string{fmt.Sprint(r.Size), r.Envoy,
			figure(median(r.Starts), 0), figure(ratioOf(r.Starts, without.Starts), 2),
			figure(median(r.Updates), 1), figure(ratioOf(r.Updates, without.Updates), 2),
			figure(r.MainPercent, 2),
			more(s.Chains, r, moreMain), more(s.Chains, r, moreInAll), r.failed(), r.unanswered()})
	}
	return grid(rows)
}

func routesTable(s Scale) string {
	rows := [][]string{{"clusters", "", "RDS update, ms", "ratio", "failed checks", "false replies"}}
	for _, r := range s.Routes {
		rows = append(rows, []string{fmt.Sprint(r.Size), r.Envoy, figure(median(r.Updates), 1),
			figure(ratioOf(r.Updates, find(s.Routes, r.Size, withoutUs).Updates), 2), r.failed(), r.unanswered()})
	}
	return grid(rows)
}

func (w Watched) failed() string     { return fmt.Sprintf("%d of %d", w.Failed, w.Checks) }
func (w Watched) unanswered() string { return fmt.Sprintf("%d of %d", w.Rejected+w.Lost, w.Probes) }

// more formats the difference to the Envoy without Healthgate, which may be 0.
func more(rows []ScaleRow, row ScaleRow, difference func(row, without ScaleRow) float64) string {
	v := difference(row, find(rows, row.Size, withoutUs))
	if row.Envoy == withoutUs || math.IsInf(v, 0) {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

func (s Spread) brief() string {
	if s.Median == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Q1, s.Q3)
}

// figure formats a figure with some decimals, or a dash if it was not measured.
func figure(v float64, decimals int) string {
	if math.IsInf(v, 0) || v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

// grid returns an aligned Markdown table.
func grid(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for i, row := range rows {
		fmt.Fprintln(w, "| "+strings.Join(row, "\t| ")+"\t|")
		if i == 0 {
			fmt.Fprintln(w, "|"+strings.Repeat("---\t|", len(row)))
		}
	}
	_ = w.Flush() // into memory
	return b.String()
}
