package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// section is one of docs/lint.md: a rule with an example.
type section struct {
	rule, diff, finding string
}

func sections(t *testing.T) []section {
	t.Helper()
	text, err := os.ReadFile("../../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []section
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		block := func(kind string) string {
			_, rest, _ := strings.Cut(part, "```"+kind+"\n")
			inside, _, _ := strings.Cut(rest, "```")
			return inside
		}
		rule, _, _ := strings.Cut(part, "\n")
		all = append(all, section{rule, block("diff"), strings.TrimSpace(block("text"))})
	}
	return all
}

func TestDocumentationHasASectionForEachRule(t *testing.T) {
	var documented, known []string
	for _, s := range sections(t) {
		documented = append(documented, s.rule)
	}
	for _, rule := range Rules {
		known = append(known, rule.Name)
	}
	if !slices.Equal(documented, known) {
		t.Errorf("docs/lint.md has\n%v\nthe rules are\n%v", documented, known)
	}
}

var findingsFile = regexp.MustCompile(`^([a-z./]+):\d+`)

// Each example is a change to a file that users copy, and what is found there stands in the page word by word.
func TestDocumentationFindsWhatItShows(t *testing.T) {
	for _, s := range sections(t) {
		t.Run(s.rule, func(t *testing.T) {
			file := findingsFile.FindStringSubmatch(s.finding)
			if file == nil {
				t.Fatalf("%q names no file", s.finding)
			}
			folder := "envoy"
			if strings.Contains(file[1], "/") {
				folder = "manifests"
			}
			text, err := os.ReadFile(filepath.Join("../..", folder, file[1]))
			if err != nil {
				t.Fatal(err)
			}
			found, err := Run([]Input{{file[1], []byte(patched(t, string(text), s.diff))}})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(found, func(f Finding) bool { return f.String() == s.finding }) {
				t.Errorf("the page shows\n  %s\nfound:\n%s", s.finding, render(found))
			}
		})
	}
}

// patched makes the change that a diff without positions says.
func patched(t *testing.T, text, diff string) string {
	t.Helper()
	var before, after strings.Builder
	for line := range strings.Lines(diff) {
		if line[0] != '+' {
			before.WriteString(line[1:])
		}
		if line[0] != '-' {
			after.WriteString(line[1:])
		}
	}
	if n := strings.Count(text, before.String()); n != 1 {
		t.Fatalf("what is changed is there %d times:\n%s", n, before.String())
	}
	return strings.Replace(text, before.String(), after.String(), 1)
}
