package main

import (
	"fmt"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// plot draws a timeline: what was done, and below it each value, all over one axis of time.
func (t Timeline) plot(title string) ([]byte, error) {
	end := 1.0
	for _, s := range t.Series {
		if n := len(s.Points); n > 0 {
			end = max(end, s.Points[n-1][0])
		}
	}
	plots, heights := []*plot.Plot{t.plotMarks(title, end)}, []vg.Length{vg.Length(40 + 16*len(t.Marks))}
	for i, s := range t.Series {
		p, err := s.plot(t.Marks, end)
		if err != nil {
			return nil, err
		}
		height := vg.Length(104)
		if i == len(t.Series)-1 {
			p.X.Label.Text, p.X.Tick.Label.Color = "time, s", color.Black
			height += 18
		}
		plots, heights = append(plots, p), append(heights, height)
	}
	return svg(720, heights, plots...)
}

// plotMarks is what was done, each with a line of its own.
func (t Timeline) plotMarks(title string, end float64) *plot.Plot {
	p := newPlot(title, "", "done")
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, end, 0, float64(max(len(t.Marks), 1))
	hideTime(p)
	p.Y.Tick.Marker = plot.ConstantTicks(nil)
	p.Y.Label.TextStyle.Color = color.White // as wide as the others
	p.Add(lines(t.Marks))
	for i, mark := range t.Marks {
		at := plotter.XY{X: mark.At, Y: float64(len(t.Marks)-i) - 0.5}
		style := text.Style{Color: color.Black, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 10), YAlign: draw.YCenter,
			XAlign: draw.XLeft, Handler: plot.DefaultTextHandler}
		label := fmt.Sprintf(" %.1f s: %s", mark.At, mark.Text)
		if mark.At > 0.6*end {
			style.XAlign, label = draw.XRight, strings.TrimSpace(label)+" "
		}
		p.Add(&plotter.Labels{XYs: plotter.XYs{at}, Labels: []string{label}, TextStyle: []text.Style{style}})
	}
	return p
}

// hideTime leaves the axis of time to the lowest plot.
func hideTime(p *plot.Plot) {
	p.X.Tick.Label.Color = color.Transparent
	p.X.Tick.Label.Font.Size = 1
}

// plot is one value over time, in steps.
func (s Series) plot(marks []Mark, end float64) (*plot.Plot, error) {
	p := newPlot("", "", s.Name)
	p.Y.Label.TextStyle.Font.Size = 10
	p.X.Min, p.X.Max = 0, end
	p.X.Tick.Label.Color = color.Transparent
	p.Add(lines(marks))
	if len(s.Points) > 0 {
		var points plotter.XYs
		for _, point := range s.Points {
			points = append(points, plotter.XY{X: point[0], Y: s.height(point[1])})
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.StepStyle, line.Width, line.Color = plotter.PostStep, vg.Points(1.8), colours[byContrib]
		p.Add(line)
	}
	p.Y.Tick.Marker = s.ticks()
	p.Y.Min, p.Y.Max = s.bounds()
	return p, nil
}

// kinds of values: answers are 503 or 200, or none; what is yes or no; numbers.
func (s Series) isAnswer() bool { return strings.HasPrefix(s.Name, "answer") }
func (s Series) isYesOrNo() bool {
	return strings.HasPrefix(s.Name, "the balancer")
}

// height is where a value is drawn.
func (s Series) height(value float64) float64 {
	if !s.isAnswer() {
		return value
	}
	switch value {
	case 200:
		return 2
	case 0:
		return 0
	}
	return 1
}

func (s Series) bounds() (least, most float64) {
	switch {
	case s.isAnswer() && s.refused():
		return -0.3, 2.3
	case s.isAnswer():
		return 0.7, 2.3
	case s.isYesOrNo():
		return -0.3, 1.3
	}
	for _, point := range s.Points {
		most = max(most, point[1])
	}
	return 0, math.Ceil(1.1*most + 0.1)
}

// refused says whether there was no answer at any time.
func (s Series) refused() bool {
	for _, point := range s.Points {
		if point[1] == 0 {
			return true
		}
	}
	return false
}

func (s Series) ticks() plot.Ticker {
	switch {
	case s.isAnswer():
		ticks := plot.ConstantTicks{{Value: 2, Label: "200"}, {Value: 1, Label: "503"}}
		if s.refused() {
			ticks = append(ticks, plot.Tick{Value: 0, Label: "none"})
		}
		return ticks
	case s.isYesOrNo():
		return plot.ConstantTicks{{Value: 1, Label: "yes"}, {Value: 0, Label: "no"}}
	}
	_, most := s.bounds()
	step := math.Ceil(most / 4)
	var ticks plot.ConstantTicks
	for v := 0.0; v <= most; v += step {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.0f", v)})
	}
	return ticks
}

// lines are the moments at which something was done.
type lines []Mark

// Plot draws them from top to bottom.
func (l lines) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	for _, mark := range l {
		c.StrokeLine2(draw.LineStyle{Color: grey, Width: vg.Points(0.8), Dashes: []vg.Length{3, 2}}, x(mark.At), c.Min.Y, x(mark.At), c.Max.Y)
	}
}
