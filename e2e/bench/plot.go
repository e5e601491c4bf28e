package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"math"
	"text/template"
)

//go:embed cost.svg.tmpl
var picture string

var pictureTemplate = template.Must(template.New("cost.svg").Parse(picture))

// line is a line of the picture.
type line struct {
	Contender, Colour, Dashes string
	Legend                    int // its place
	probes                    *Probes
}

// Y returns the place of the figure at a size; the picture has figures from 10 to 100,000.
func (l line) Y(size int) string {
	µs := l.probes.Sizes[size].Row(l.Contender).Process.Median
	return fmt.Sprintf("%.1f", 350-72.5*math.Log10(max(µs, 10)/10))
}

// plot draws the cost of a probe by the number of clusters, as SVG: in colours that colour-blind people can tell apart, and with dashes
// that all differ.
func (p *Probes) plot() ([]byte, error) {
	var b bytes.Buffer
	err := pictureTemplate.Execute(&b, []line{
		{lua, "#d55e00", "8 3 2 3", 74, p},
		{byPlugin, "#0072b2", "6 3", 94, p},
		{byModule, "#009e73", "2 2", 114, p},
		{native, "#000", "none", 134, p},
	})
	return b.Bytes(), err
}
