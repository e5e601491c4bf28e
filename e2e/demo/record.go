package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

func record(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("record", flag.ExitOnError)
	way := variantFlag(flags)
	file := flags.String("file", "docs/demo.svg", "`file` that is written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := &recorder{out: os.Stdout, began: time.Now()}
	if err := play(ctx, *way, recorded, readable, r); err != nil {
		return err
	}
	title := "make demo"
	if *way != "plugin" {
		title += " VARIANT=module"
	}
	title += fmt.Sprintf("   # %d of its %d steps", len(recorded), len(steps))
	return os.WriteFile(*file, []byte(drawn(title, r.lines)), 0o644)
}

// recorded are the steps that fit on a page, and readable is how long each stays before the next.
var recorded = []step{steps[0], steps[2], steps[3]}

const readable = 2 * time.Second

// shown is a line with when it was printed, since the start.
type shown struct {
	text string
	at   time.Duration
	of   string // the whole line, where this is a part
}

// recorder passes on what is written, and keeps when each line was.
type recorder struct {
	out   io.Writer
	began time.Time

	mutex sync.Mutex
	part  string // of a line that has not ended
	lines []shown
}

func (r *recorder) Write(text []byte) (int, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.part += string(text)
	for {
		line, rest, whole := strings.Cut(r.part, "\n")
		if !whole {
			break
		}
		r.lines, r.part = append(r.lines, shown{line, time.Since(r.began), line}), rest
	}
	return r.out.Write(text)
}

// Of the drawing, in pixels. A character of the fonts named there is 0.6 of their size wide.
const (
	fontSize   = 14
	lineHeight = 19
	margin     = 16
	bar        = 34 // with the title
	mostWide   = 100
)

// pause is how long the whole is shown before it begins again.
const pause = 6 * time.Second

// drawn is a terminal as an SVG, in which each line appears when it was printed. It brings its own background, so that it is as readable
// on a dark page as on a light one; without animations it shows all lines.
func drawn(title string, all []shown) string {
	lines := wrapped(all)
	var b strings.Builder
	total := pause
	if len(lines) > 0 {
		total += lines[len(lines)-1].at
	}
	width, height := 2*margin+mostWide*fontSize*6/10, bar+margin+len(lines)*lineHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" role="img" aria-label="%[3]s, recorded">
<style>
text { font: %[4]dpx ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; fill: #e6edf3; white-space: pre }
.head { fill: #ffffff; font-weight: bold } .good { fill: #56d364 } .bad { fill: #ff7b72 } .dim { fill: #9da7b3 } .next { fill: #e3b341 }
`, width, height, escaped(title), fontSize)
	b.WriteString("@media (prefers-reduced-motion: no-preference) {\n")
	for i, line := range lines {
		fmt.Fprintf(&b, " .l%d { animation: l%d %.1fs infinite step-end } @keyframes l%d { 0%% { opacity: 0 } %.2f%% { opacity: 1 } }\n",
			i, i, total.Seconds(), i, 100*line.at.Seconds()/total.Seconds())
	}
	fmt.Fprintf(&b, "}\n</style>\n<rect width=\"100%%\" height=\"100%%\" rx=\"8\" fill=\"#0d1117\" stroke=\"#6e7681\"/>\n<text class=\"dim\" x=\"%d\" y=\"23\">$ %s</text>\n", margin, escaped(title))
	for i, line := range lines {
		fmt.Fprintf(&b, "<text class=\"l%d %s\" x=\"%d\" y=\"%d\" xml:space=\"preserve\">%s</text>\n", i, class(line.of), margin, bar+(i+1)*lineHeight-5, escaped(line.text))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// wrapped breaks lines that are too long at their spaces.
func wrapped(all []shown) []shown {
	var lines []shown
	for _, line := range all {
		indent := len(line.text) - len(strings.TrimLeft(line.text, " ")) + 4
		for len([]rune(line.text)) > mostWide {
			cut := strings.LastIndexByte(line.text[:mostWide], ' ')
			if cut <= indent {
				break
			}
			lines = append(lines, shown{line.text[:cut], line.at, line.of})
			line.text = strings.Repeat(" ", indent) + line.text[cut+1:]
		}
		lines = append(lines, line)
	}
	return lines
}

// class is how a line is coloured.
func class(line string) string {
	switch text := strings.TrimSpace(line); {
	case strings.HasPrefix(text, "#"), strings.HasPrefix(text, "$"):
		return "head"
	case strings.HasPrefix(text, "next "):
		return "next"
	case strings.Contains(line, " 503 "), strings.Contains(line, "NOT_SERVING"), strings.Contains(line, "/failed_"):
		return "bad"
	case strings.Contains(line, " 200 "), strings.HasSuffix(line, "SERVING"):
		return "good"
	}
	return ""
}

func escaped(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text)
}
