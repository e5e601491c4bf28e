package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Result is the result of one task.
type Result struct {
	Run      string            `json:"run"`
	Counts   map[string]Counts `json:"counts"` // by load
	Remark   string            `json:"remark,omitempty"`
	Error    string            `json:"error,omitempty"`
	Lossless bool              `json:"lossless"` // no call may fail
}

func (r Result) passed() bool {
	if r.Error != "" {
		return false
	}
	for _, counts := range r.Counts {
		if counts.Calls == 0 || r.Lossless && counts.Failed > 0 {
			return false
		}
	}
	return len(r.Counts) > 0
}

func failed(c Counts) string { return fmt.Sprintf("%d of %d", c.Failed, c.Calls) }

// remark returns a remark with the streams, and why calls failed.
func (r Result) remark() string {
	var parts []string
	if r.Remark != "" {
		parts = append(parts, r.Remark)
	}
	var streams, cut int64
	reasons := map[string]int64{}
	for _, counts := range r.Counts {
		streams += counts.Streams
		cut += counts.Cut
		for reason, n := range counts.Reasons {
			reasons[reason] += n
		}
	}
	if streams > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d streams cut", cut, streams))
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		parts = append(parts, fmt.Sprintf("%d %s", reasons[reason], reason))
	}
	if r.Error != "" {
		parts = append(parts, r.Error)
	}
	return strings.Join(parts, "; ")
}

// write prints results as an aligned Markdown table.
func write(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "| task\t| failed: A\t| B\t| C\t| passed\t| remark\t|")
	fmt.Fprintln(table, "|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, r := range results {
		verdict := map[bool]string{true: "yes", false: "NO"}[r.passed()]
		fmt.Fprintf(table, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n",
			r.Run, failed(r.Counts["A"]), failed(r.Counts["B"]), failed(r.Counts["C"]), verdict, r.remark())
	}
	return table.Flush()
}
