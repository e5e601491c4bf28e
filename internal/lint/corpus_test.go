package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// whole is one configuration of the corpus: a file, or a folder whose files belong together.
type whole struct {
	name   string
	inputs []Input
	want   string // the findings, each on a line
}

// findingsOfCorpus has the findings in each configuration of testdata, below its name. -update writes it.
const findingsOfCorpus = "testdata/findings.txt"

// corpus reads testdata.
func corpus(t testing.TB) []whole {
	t.Helper()
	content, err := os.ReadFile(findingsOfCorpus)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, section := range strings.Split("\n"+string(content), "\n== ")[1:] {
		name, found, _ := strings.Cut(section, "\n")
		want[name] = strings.TrimSpace(found)
	}
	names, err := filepath.Glob("testdata/*-*")
	if err != nil {
		t.Fatal(err)
	}
	var all []whole
	for _, name := range names {
		files, err := filepath.Glob(filepath.Join(name, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			files = []string{name}
		}
		w := whole{name: filepath.Base(name), want: want[filepath.Base(name)]}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w.inputs = append(w.inputs, Input{filepath.Base(file), content})
		}
		all = append(all, w)
	}
	return all
}

func TestCorpusHasItsFindings(t *testing.T) {
	var golden strings.Builder
	for _, w := range corpus(t) {
		t.Run(w.name, func(t *testing.T) {
			found, err := Run(w.inputs)
			if err != nil {
				t.Error(err)
			}
			got := render(found)
			golden.WriteString("== " + w.name + "\n" + got)
			if got = strings.TrimSpace(got); got != w.want && !*update {
				t.Errorf("found:\n%s\nwant:\n%s", got, w.want)
			}
			if strings.HasPrefix(w.name, "good-") != (got == "") {
				t.Errorf("its name says good or bad, and it has %d findings", len(found))
			}
		})
	}
	if *update {
		if err := os.WriteFile(findingsOfCorpus, []byte(golden.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Each finding stands where something begins: a key, a value or a comment.
func TestFindingsAreAtTheBeginningOfSomething(t *testing.T) {
	for _, w := range corpus(t) {
		for _, input := range w.inputs {
			if w.name == "bad-api-syntax.yaml" { // the library knows the line alone
				continue
			}
			lines := strings.Split(string(input.Content), "\n")
			found, err := Run([]Input{input})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				line := lines[f.Line-1]
				if f.Column > len(line) || strings.ContainsRune(" \t", rune(line[f.Column-1])) ||
					f.Column > 1 && !strings.ContainsRune(" \t{[", rune(line[f.Column-2])) {
					t.Errorf("%s: %s stands inside %q", w.name, f, line)
				}
			}
		}
	}
}

func render(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

// A rule that no configuration of the corpus breaks is not tested.
func TestCorpusBreaksEachRule(t *testing.T) {
	broken, all, good := "", 0, 0
	note := func(want string) {
		broken += want + ",\n"
		if all++; want == "" {
			good++
		}
	}
	for _, w := range corpus(t) {
		note(w.want)
	}
	for _, one := range cases(t) {
		note(one["want"])
	}
	for _, rule := range rules {
		if !regexp.MustCompile(`(error|warning) ` + rule + `,|\[` + rule + `\]`).MatchString(broken) {
			t.Errorf("nothing in the corpus breaks %s", rule)
		}
	}
	if all < 60 || good < 15 {
		t.Errorf("the corpus has %d configurations, %d of them good", all, good)
	}
}
