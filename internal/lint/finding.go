package lint

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity reports how certain a problem is.
type Severity string

const (
	Error   Severity = "error"   // this will not work as configured
	Warning Severity = "warning" // whether it works depends on something that is not in the files
)

// Finding is one problem.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1
	Column   int      `json:"column"` // from 1
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	Message  string   `json:"message"` // the problem, the reason, the remedy; one line
}

// String returns the finding in the form of a compiler's message.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s [%s]", f.File, f.Line, f.Column, f.Severity, f.Message, f.Rule)
}

// findings has the findings of a run.
type findings struct {
	all  []Finding
	seen map[Finding]bool
}

// add adds a finding at a node, once.
func (f *findings) add(at *Node, severity Severity, rule, format string, args ...any) {
	found := Finding{File: at.file.name, Line: at.line, Column: at.column, Severity: severity, Rule: rule,
		Message: oneLine(fmt.Sprintf(format, args...))}
	if f.seen == nil {
		f.seen = map[Finding]bool{}
	}
	if !f.seen[found] {
		f.seen[found] = true
		f.all = append(f.all, found)
	}
}

// sorted returns the findings in the order of the inputs and their lines.
func (f *findings) sorted(files []*file) []Finding {
	order := map[string]int{}
	for i, file := range files {
		if _, known := order[file.name]; !known {
			order[file.name] = i
		}
	}
	slices.SortStableFunc(f.all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return f.all
}
