package lint

import (
	"flag"
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
	var documented []string
	for _, s := range sections(t) {
		documented = append(documented, s.rule)
	}
	if !slices.Equal(documented, rules) {
		t.Errorf("docs/lint.md has\n%v\nthe rules are\n%v", documented, rules)
	}
}

// Each rule has a test in a real Envoy, by name, which is there.
func TestDocumentationNamesATestOfEachRulesEffect(t *testing.T) {
	text, err := os.ReadFile("../../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	testName := regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|[^|]*\\|([^|]*)\\|$").FindAllStringSubmatch(string(text), -1) {
		for _, name := range testName.FindAllStringSubmatch(row[2], -1) {
			rows[row[1]] = append(rows[row[1]], name[1])
		}
	}
	files, err := filepath.Glob("../../e2e/suite/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	var suite strings.Builder
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		suite.Write(source)
	}
	for _, rule := range rules {
		t.Run(rule, func(t *testing.T) {
			if aboutTheFile := rule == "ignore" || rule == "unread"; (len(rows[rule]) == 0) != aboutTheFile {
				t.Errorf("its tests are %q", rows[rule])
			}
			for _, name := range rows[rule] {
				if !strings.Contains(suite.String(), "\nfunc "+name+"(t *testing.T) {") {
					t.Errorf("e2e/suite has no %s", name)
				}
			}
		})
	}
}

var update = flag.Bool("update", false, "write the findings of this lint into docs/lint.md")

var findingsFile = regexp.MustCompile(`^([a-z./]+):\d+`)

// Each example is a change to a file that users copy, and its finding stands in the page word by word.
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
			if slices.ContainsFunc(found, func(f Finding) bool { return f.String() == s.finding }) {
				return
			}
			if own := slices.IndexFunc(found, func(f Finding) bool { return f.Rule == s.rule }); *update && own >= 0 {
				replaceInPage(t, s.finding, found[own].String())
			} else {
				t.Errorf("the page shows\n  %s\nfound:\n%s", s.finding, render(found))
			}
		})
	}
}

func replaceInPage(t *testing.T, old, new string) {
	t.Helper()
	const page = "../../docs/lint.md"
	text, err := os.ReadFile(page)
	if err == nil {
		err = os.WriteFile(page, []byte(strings.Replace(string(text), old, new, 1)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
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
		t.Fatalf("the changed lines are there %d times:\n%s", n, before.String())
	}
	return strings.Replace(text, before.String(), after.String(), 1)
}
