package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"text/tabwriter"
	"text/template"
)

//go:embed results.md.tmpl
var page string

var pageTemplate = template.Must(template.New("results.md").Funcs(template.FuncMap{
	"figure": figure, "median": median, "ratio": ratio, "without": without, "more": more,
	"longest":     func(values []float64) float64 { return slices.Max(append([]float64{0}, values...)) },
	"percent":     func(part, of int64) float64 { return 100 * float64(part) / float64(of) },
	"measured":    func(g Goal) bool { return !math.IsInf(g.Got, 0) },
	"memorySizes": func() []string { return []string{sizes[small].Name, sizes[thousand].Name} },
	"connections": func() int { return connections },
	"proberRate":  func() int { return proberRate },
	"checked":     func() int { return checkedClusters + 1 },
}).Parse(page))

// markdown returns RESULTS.md. The template's tables have a tab before each | but the first; they are aligned.
func (r *Results) markdown() ([]byte, error) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	err := errors.Join(pageTemplate.Execute(w, r), w.Flush())
	return b.Bytes(), err
}

// Checked returns how many health checks failed.
func (w Watched) Checked() string { return fmt.Sprintf("%d of %d", w.Failed, w.Checks) }

// Answered returns how many probes were not answered with 200.
func (w Watched) Answered() string { return fmt.Sprintf("%d of %d", w.Rejected+w.Lost, w.Probes) }

// more formats how much more an Envoy uses than the one without Healthgate, which may be 0.
func more(row *ScaleRow, with, without float64) string {
	if row.Envoy == withoutUs {
		return "–"
	}
	return fmt.Sprintf("%.2f", with-without)
}

func (s Spread) String() string {
	if s.Median == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Q1, s.Q3)
}

// figure formats a figure with some decimals, or a dash if it was not measured.
func figure(v float64, decimals int) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", decimals, v)
}
