package main

import (
	"bytes"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgsvg" // the format svg
)

// styles are the lines of the picture: colours that colour-blind people can tell apart, and dashes that all differ.
var styles = []struct {
	contender string
	colour    color.Color
	dashes    []vg.Length
}{
	{lua, color.RGBA{213, 94, 0, 255}, []vg.Length{8, 3, 2, 3}},
	{byPlugin, color.RGBA{0, 114, 178, 255}, []vg.Length{6, 3}},
	{byModule, color.RGBA{0, 158, 115, 255}, []vg.Length{2, 2}},
	{native, color.RGBA{0, 0, 0, 255}, nil},
}

// plot draws the cost of a probe by the number of clusters, as SVG. The same results give the same bytes.
func (p Probes) plot() ([]byte, error) {
	plot.DefaultFont.Variant = "Sans"
	plt := plot.New()
	plt.Title.Text = "The cost of a probe, by the number of clusters in Envoy"
	plt.X.Label.Text = "clusters besides the one that is checked"
	plt.Y.Label.Text = "CPU time of Envoy per probe, µs (logarithmic)"
	plt.Y.Scale, plt.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	plt.Add(plotter.NewGrid())
	least, most := math.Inf(1), 0.0
	for _, style := range styles {
		var points plotter.XYs
		for i, at := range []int{small, hundred, thousand} {
			y := max(p.Sizes[at].Row(style.contender).Process.Median, 1)
			points = append(points, plotter.XY{X: float64(i), Y: y})
			least, most = min(least, y), max(most, y)
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width, line.Dashes = style.colour, vg.Points(1.8), style.dashes
		dots.Shape, dots.Color, dots.Radius = draw.CircleGlyph{}, style.colour, vg.Points(3)
		plt.Add(line, dots)
		plt.Legend.Add(style.contender, line, dots)
	}
	plt.X.Tick.Marker = plot.ConstantTicks([]plot.Tick{{Value: 0, Label: "0"}, {Value: 1, Label: "100"}, {Value: 2, Label: "1,000"}})
	plt.X.Min, plt.X.Max = -0.15, 2.15
	plt.Y.Min, plt.Y.Max = math.Pow(10, math.Floor(math.Log10(least))), math.Pow(10, math.Floor(math.Log10(most))+1)
	plt.Legend.Top, plt.Legend.Left, plt.Legend.XOffs, plt.Legend.YOffs = true, true, 10, -6
	picture, err := plt.WriterTo(640, 400, "svg")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = picture.WriteTo(&b)
	return b.Bytes(), err
}
