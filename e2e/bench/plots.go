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

// The colours can be told apart by those who see no red or no green, and on paper; each line has a dash of its own besides.
var (
	colours = map[string]color.Color{
		native: color.RGBA{0, 0, 0, 255}, byContrib: color.RGBA{0, 114, 178, 255}, byStock: color.RGBA{0, 158, 115, 255}, lua: color.RGBA{213, 94, 0, 255},
	}
	dashes = map[string][]vg.Length{native: nil, byContrib: {6, 3}, byStock: {2, 2}, lua: {8, 3, 2, 3}}
	names  = map[string]string{native: "Envoy's own filter", lua: "the Lua script"}
	grey   = color.RGBA{120, 120, 120, 255}
	faint  = color.RGBA{225, 225, 225, 255}
)

// plots are the pictures, by their files' names. The same results make the same pictures, byte by byte.
func (r *Results) plots() (map[string][]byte, error) {
	all := map[string][]byte{}
	for name, draw := range map[string]func() ([]byte, error){
		"cost.svg": r.plotCost, "latency.svg": r.plotLatency,
		"hosts.svg": func() ([]byte, error) { return r.Hosts.plot("Hosts go and come") },
		"drain.svg": func() ([]byte, error) { return r.Drain.plot("An Envoy is drained, and ended") },
	} {
		svg, err := draw()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = svg
	}
	return all, nil
}

// newPlot is a plot on white, with a grid.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.Padding = vg.Points(8)
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 11)
	}
	p.Title.TextStyle.Font.Size = 13
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint, faint
	p.Add(grid)
	return p
}

// svg draws plots below each other, of some height each.
func svg(width vg.Length, heights []vg.Length, plots ...*plot.Plot) ([]byte, error) {
	whole := vg.Length(0)
	for _, height := range heights {
		whole += height
	}
	canvas := vgsvg.New(width, whole)
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	// All data begin at one place from the left, and end at one.
	left, right := vg.Length(0), vg.Length(0)
	for _, p := range plots {
		data := p.DataCanvas(dc)
		left, right = max(left, data.Min.X-dc.Min.X), max(right, dc.Max.X-data.Max.X)
	}
	top := dc.Max.Y
	const margin = 8
	for i, p := range plots {
		part := draw.Crop(dc, margin, -margin, top-heights[i]-dc.Min.Y+margin/2, top-dc.Max.Y-margin/2)
		top -= heights[i]
		data := p.DataCanvas(part)
		p.Draw(draw.Crop(part, left-(data.Min.X-part.Min.X), -(right - (part.Max.X - data.Max.X)), 0, 0))
	}
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
}

func nameOf(contender string) string {
	if name := names[contender]; name != "" {
		return name
	}
	return contender
}

func addLine(p *plot.Plot, contender string, points plotter.XYs, marked bool) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.Color, line.Width, line.Dashes = colours[contender], vg.Points(1.8), dashes[contender]
	p.Add(line)
	if !marked {
		p.Legend.Add(nameOf(contender), line)
		return nil
	}
	dots, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	dots.Shape, dots.Color, dots.Radius = draw.CircleGlyph{}, colours[contender], vg.Points(3)
	p.Add(dots)
	p.Legend.Add(nameOf(contender), line, dots)
	return nil
}

// plotCost is what a probe costs over the number of clusters.
func (r *Results) plotCost() ([]byte, error) {
	p := newPlot("What a probe costs, by the clusters that Envoy has", "clusters besides the one that is asked for", "CPU time of Envoy's process a probe, µs (logarithmic)")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	var ticks []plot.Tick
	least, most := math.Inf(1), 0.0
	for _, contender := range []string{lua, byContrib, byStock, native} {
		var points plotter.XYs
		for i, at := range []int{small, hundred, thousand} {
			y := r.Probes[at].row(contender).Process.Median
			points = append(points, plotter.XY{X: float64(i), Y: y})
			least, most = min(least, y), max(most, y)
		}
		if err := addLine(p, contender, points, true); err != nil {
			return nil, err
		}
	}
	for i, label := range []string{"0", "100", "1,000"} {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: label})
	}
	p.X.Tick.Marker, p.X.Min, p.X.Max = plot.ConstantTicks(ticks), -0.15, 2.15
	p.Y.Min, p.Y.Max = max(math.Pow(10, math.Floor(math.Log10(least))), 1), math.Pow(10, math.Ceil(math.Log10(most)))
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs, p.Legend.YOffs = true, true, 10, -6
	return svg(640, []vg.Length{400}, p)
}

// decades are ticks at 1, 2 and 5 of each power of ten.
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

// thousands writes a number as people read it.
func thousands(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// plotLatency is the distribution of how long probes took.
func (r *Results) plotLatency() ([]byte, error) {
	p := newPlot(fmt.Sprintf("How long a probe takes, with %d clients that ask without a pause", r.Connections), "latency, µs (logarithmic)", "probes that took no longer, %")
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	least, most := math.Inf(1), 0.0
	for _, d := range r.Latency {
		var points plotter.XYs
		for _, point := range d.Points {
			points = append(points, plotter.XY{X: max(point[0], 1), Y: point[1]})
			least = min(least, max(point[0], 1))
			if point[1] <= 99.9 {
				most = max(most, point[0])
			}
		}
		if len(points) == 0 {
			continue
		}
		if err := addLine(p, d.Contender, points, false); err != nil {
			return nil, err
		}
	}
	if most <= least {
		most = 10 * least
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = least, most, 0, 100
	var ticks []plot.Tick
	for _, percent := range []float64{0, 25, 50, 75, 90, 100} {
		ticks = append(ticks, plot.Tick{Value: percent, Label: fmt.Sprintf("%.0f", percent)})
	}
	p.Y.Tick.Marker = plot.ConstantTicks(ticks)
	p.Legend.Left, p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = false, false, -10, 10
	return svg(640, []vg.Length{400}, p)
}
