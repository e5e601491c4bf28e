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
	task
	Counts map[string]Counts // by load
	Remark string
	Err    error
}

func (r Result) passed() bool {
	passed := r.Err == nil && len(r.Counts) > 0
	for _, counts := range r.Counts {
		calls, failed := sum(counts.Calls)
		passed = passed && calls > 0 && (failed == 0 || !r.lossless)
	}
	return passed
}

// String returns how many calls failed.
func (c Counts) String() string {
	calls, failed := sum(c.Calls)
	return fmt.Sprintf("%d of %d", failed, calls)
}

// remark returns the remark with the streams, and why calls failed.
func (r Result) remark() string {
	var parts []string
	if r.Remark != "" {
		parts = append(parts, r.Remark)
	}
	calls, streams := map[string]int64{}, map[string]int64{}
	for _, counts := range r.Counts {
		for answer, n := range counts.Calls {
			calls[answer] += n
		}
		for answer, n := range counts.Streams {
			streams[answer] += n
		}
	}
	if all, cut := sum(streams); all > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d streams cut", cut, all))
	}
	delete(calls, succeeded)
	for _, answer := range slices.Sorted(maps.Keys(calls)) {
		parts = append(parts, fmt.Sprintf("%d %s", calls[answer], answer))
	}
	if r.Err != nil {
		parts = append(parts, r.Err.Error())
	}
	return strings.Join(parts, "; ")
}

// write prints results as an aligned Markdown table.
func write(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(table, "| task\t| failed: A\t| B\t| C\t| passed\t| remark\t|\n|---\t|---\t|---\t|---\t|---\t|---\t|\n")
	for _, r := range results {
		verdict := map[bool]string{true: "yes", false: "NO"}[r.passed()]
		fmt.Fprintf(table, "| %s\t| %v\t| %v\t| %v\t| %s\t| %s\t|\n", r.what, r.Counts["A"], r.Counts["B"], r.Counts["C"], verdict, r.remark())
	}
	return table.Flush()
}
