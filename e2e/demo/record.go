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
	variant := variantFlag(flags)
	file := flags.String("file", "docs/demo.svg", "`file` to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := &recorder{out: os.Stdout, began: time.Now()}
	if err := play(ctx, *variant, recorded, pauseBetween, r); err != nil {
		return err
	}
	title := "make demo"
	if *variant != "plugin" {
		title += " VARIANT=module"
	}
	title += fmt.Sprintf("   # %d of %d steps", len(recorded), len(steps))
	return os.WriteFile(*file, []byte(draw(title, r.lines)), 0o644)
}

// recorded are the steps that fit on a page; pauseBetween gives readers time for each.
var recorded = []step{steps[0], steps[2], steps[3]}

const pauseBetween = 2 * time.Second

// printed is a line, or a part of one, with the time of its print since the start.
type printed struct {
	text string
	at   time.Duration
	line string // the whole line
}

// recorder passes on the output, and records the time of each line.
type recorder struct {
	out   io.Writer
	began time.Time

	mutex sync.Mutex
	part  string // of an incomplete line
	lines []printed
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
		r.lines, r.part = append(r.lines, printed{line, time.Since(r.began), line}), rest
	}
	return r.out.Write(text)
}

// Sizes in pixels. A character is 0.6 times the font size wide.
const (
	fontSize   = 14
	lineHeight = 19
	margin     = 16
	titleBar   = 34
	maxColumns = 100
)

// pauseAtEnd is how long everything is shown before the recording restarts.
const pauseAtEnd = 6 * time.Second

// draw returns an SVG of a terminal in which each line appears at its time. It has its own background, for dark and light pages. Without
// animations it shows all lines.
func draw(title string, all []printed) string {
	lines := wrap(all)
	var b strings.Builder
	total := pauseAtEnd
	if len(lines) > 0 {
		total += lines[len(lines)-1].at
	}
	width, height := 2*margin+maxColumns*fontSize*6/10, titleBar+margin+len(lines)*lineHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d"
role="img" aria-label="%[3]s, recorded">
<style>
text { font: %[4]dpx ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
  fill: #e6edf3; white-space: pre }
.head { fill: #ffffff; font-weight: bold } .good { fill: #56d364 } .bad { fill: #ff7b72 } .dim { fill: #9da7b3 } .next { fill: #e3b341 }
@media (prefers-reduced-motion: no-preference) {
`, width, height, escaped(title), fontSize)
	for i, line := range lines {
		fmt.Fprintf(&b, " .l%d { animation: l%d %.1fs infinite step-end }", i, i, total.Seconds())
		fmt.Fprintf(&b, " @keyframes l%d { 0%% { opacity: 0 } %.2f%% { opacity: 1 } }\n", i, 100*line.at.Seconds()/total.Seconds())
	}
	fmt.Fprintf(&b, `}
</style>
<rect width="100%%" height="100%%" rx="8" fill="#0d1117" stroke="#6e7681"/>
<text class="dim" x="%d" y="23">$ %s</text>
`, margin, escaped(title))
	for i, line := range lines {
		fmt.Fprintf(&b, `<text class="l%d %s" x="%d" y="%d" xml:space="preserve">%s</text>`+"\n",
			i, class(line.line), margin, titleBar+(i+1)*lineHeight-5, escaped(line.text))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// wrap breaks long lines at spaces.
func wrap(all []printed) []printed {
	var lines []printed
	for _, line := range all {
		indent := len(line.text) - len(strings.TrimLeft(line.text, " ")) + 4
		for len([]rune(line.text)) > maxColumns {
			cut := strings.LastIndexByte(line.text[:maxColumns], ' ')
			if cut <= indent {
				break
			}
			lines = append(lines, printed{line.text[:cut], line.at, line.line})
			line.text = strings.Repeat(" ", indent) + line.text[cut+1:]
		}
		lines = append(lines, line)
	}
	return lines
}

// class returns the CSS class of a line.
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
