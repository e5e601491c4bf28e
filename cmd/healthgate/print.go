package main

import (
	_ "embed"
	"encoding/json"
	"io"
	"os"
	"strings"
	"text/template"
)

//go:embed print.tmpl
var printed string

// colours has the ANSI codes of a terminal.
var colours = map[string]string{"off": "0", "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}

// printAs prints a value as JSON, or as text by a part of print.tmpl: in colour on a terminal, without NO_COLOR.
func printAs(output string, out io.Writer, part string, v any) error {
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(v)
	}
	coloured := isTerminal(out) && os.Getenv("NO_COLOR") == ""
	funcs := template.FuncMap{}
	for name, code := range colours {
		funcs[name] = func() string {
			if coloured {
				return "\x1b[" + code + "m"
			}
			return ""
		}
	}
	var b strings.Builder
	if err := template.Must(template.New("").Funcs(funcs).Parse(printed)).ExecuteTemplate(&b, part, v); err != nil {
		return err
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
