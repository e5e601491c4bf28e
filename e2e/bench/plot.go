package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
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
	plt := plot.New()
	plt.Title.Text = "The cost of a probe, by the number of clusters in Envoy"
	plt.X.Label.Text = "clusters besides the one that is checked"
	plt.Y.Label.Text = "CPU time of Envoy per probe, µs (logarithmic)"
	for _, style := range []*text.Style{&plt.Title.TextStyle, &plt.X.Label.TextStyle, &plt.Y.Label.TextStyle,
		&plt.X.Tick.Label, &plt.Y.Tick.Label, &plt.Legend.TextStyle} {
		style.Font = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 11)
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color = color.RGBA{225, 225, 225, 255}
	grid.Vertical.Color = grid.Horizontal.Color
	plt.Add(grid)
	plt.Y.Scale, plt.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	least, most := math.Inf(1), 0.0
	for _, style := range styles {
		var points plotter.XYs
		for i, at := range []int{small, hundred, thousand} {
			y := max(p.Sizes[at].row(style.contender).Process.Median, 1)
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

	canvas := vgsvg.New(640, 400)
	whole := draw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Rectangle.Path())
	plt.Draw(draw.Crop(whole, 8, -8, 4, -4))
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
}

// decades returns ticks at 1, 2 and 5 times each power of ten.
func decades(from, to float64) (ticks []plot.Tick) {
	for power := math.Floor(math.Log10(from)); power <= math.Ceil(math.Log10(to)); power++ {
		for _, n := range []float64{1, 2, 5} {
			if v := n * math.Pow(10, power); v >= from*0.999 && v <= to*1.001 {
				ticks = append(ticks, plot.Tick{Value: v, Label: thousands(v)})
			}
		}
	}
	return ticks
}

// thousands formats a number with commas.
func thousands(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
