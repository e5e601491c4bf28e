package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// whole is one configuration of the corpus: a file, or a folder whose files belong together.
type whole struct {
	name   string
	inputs []Input
	want   []string // "file:line severity rule", sorted
}

var (
	wantComment = regexp.MustCompile(`# want(-next)?: (.*)$`)
	wantOne     = regexp.MustCompile(`^(error|warning) ([a-z0-9-]+)(?: ×(\d+))?$`)
)

// corpus reads testdata. The expected findings stand behind `# want:` on their lines or, for files that take no comments, as lines
// "LINE SEVERITY RULE" in a file beside it that ends in .want.
func corpus(t testing.TB) []whole {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var all []whole
	for _, entry := range entries {
		name := entry.Name()
		if name == "fuzz" || name == "cases" || strings.HasSuffix(name, ".want") {
			continue
		}
		files := []string{filepath.Join("testdata", name)}
		if entry.IsDir() {
			if files, err = filepath.Glob(filepath.Join("testdata", name, "*")); err != nil {
				t.Fatal(err)
			}
		}
		w := whole{name: name}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w.inputs = append(w.inputs, Input{filepath.Base(file), content})
			w.want = append(w.want, wants(t, file, string(content))...)
		}
		slices.Sort(w.want)
		all = append(all, w)
	}
	return all
}

func wants(t testing.TB, file, content string) (want []string) {
	t.Helper()
	base := filepath.Base(file)
	if beside, err := os.ReadFile(file + ".want"); err == nil {
		for line := range strings.Lines(string(beside)) {
			want = append(want, base+":"+strings.TrimSpace(line))
		}
	}
	for i, line := range strings.Split(content, "\n") {
		said := wantComment.FindStringSubmatch(line)
		if said == nil {
			continue
		}
		at := i + 1
		if said[1] != "" {
			at++
		}
		for one := range strings.SplitSeq(said[2], ", ") {
			parts := wantOne.FindStringSubmatch(one)
			if parts == nil {
				t.Fatalf("%s:%d: %q is no expectation", file, i+1, one)
			}
			times := 1
			if parts[3] != "" {
				times, _ = strconv.Atoi(parts[3])
			}
			for range times {
				want = append(want, fmt.Sprintf("%s:%d %s %s", base, at, parts[1], parts[2]))
			}
		}
	}
	return want
}

func TestCorpusHasItsFindings(t *testing.T) {
	for _, w := range corpus(t) {
		t.Run(w.name, func(t *testing.T) {
			found, err := Run(w.inputs)
			if err != nil {
				t.Error(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, fmt.Sprintf("%s:%d %s %s", f.File, f.Line, f.Severity, f.Rule))
			}
			slices.Sort(got)
			if !slices.Equal(got, w.want) {
				t.Errorf("found:\n%s\nwant:\n  %s", render(found), strings.Join(w.want, "\n  "))
			}
			if strings.HasPrefix(w.name, "good-") != (len(w.want) == 0) {
				t.Errorf("its name says good or bad, and %d findings are expected", len(w.want))
			}
		})
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
	lines := make([]string, len(found))
	for i, f := range found {
		lines[i] = "  " + f.String()
	}
	return strings.Join(lines, "\n")
}

// A rule that no configuration of the corpus breaks is not tested.
func TestCorpusBreaksEachRule(t *testing.T) {
	broken, good := map[string]int{}, 0
	all := corpus(t)
	for _, one := range cases(t) {
		w := whole{name: one["case"]}
		for want := range strings.SplitSeq(one["want"], ", ") {
			if want != "" {
				w.want = append(w.want, want)
			}
		}
		all = append(all, w)
	}
	for _, w := range all {
		rules := map[string]bool{}
		for _, want := range w.want {
			rules[want[strings.LastIndexByte(want, ' ')+1:]] = true
		}
		for rule := range rules {
			broken[rule]++
		}
		if len(rules) == 0 {
			good++
		}
	}
	for _, rule := range rules {
		if broken[rule] == 0 {
			t.Errorf("nothing in the corpus breaks %s", rule)
		}
	}
	if len(all) < 60 || good < 15 {
		t.Errorf("the corpus has %d configurations, %d of them good", len(all), good)
	}
}
