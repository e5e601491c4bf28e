package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// rules has all rules, in the order of docs/lint.md, which has a section for each.
var rules = strings.Fields(`unread no-gate api config not-enabled leaks shadowed domains reach order unknown-cluster not-asked stat-name
	stats unchecked idle panic timers admin-open alpn local-reply underscores two-libraries native-is-enough ignore`)

// Severity reports how certain a problem is.
type Severity string

const (
	Error   Severity = "error"   // this will not work as configured
	Warning Severity = "warning" // whether it works depends on something that is not in the files
)

// Finding is one problem.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1
	Column   int      `json:"column"` // from 1
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	Message  string   `json:"message"` // the problem, the reason, the remedy; one line
}

// String returns the finding in the form of a compiler's message.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s [%s]", f.File, f.Line, f.Column, f.Severity, f.Message, f.Rule)
}

// findings has the findings of a run, each once.
type findings map[Finding]bool

// add adds a finding at a node or a position.
func (f findings) add(at interface{ where() position }, severity Severity, rule, format string, args ...any) {
	p := at.where()
	f[Finding{p.file.name, p.line, p.column, severity, rule, oneLine(fmt.Sprintf(format, args...))}] = true
}

// sorted returns the findings in the order of the inputs and their lines.
func (f findings) sorted(files []*file) []Finding {
	order := func(found Finding) int {
		return slices.IndexFunc(files, func(file *file) bool { return file.name == found.File })
	}
	return slices.SortedFunc(maps.Keys(f), func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message), cmp.Compare(a.Severity, b.Severity))
	})
}

// file is an input.
type file struct {
	name    string
	content []byte
	starts  []int // where each line starts
}

func newFile(name string, content []byte) *file {
	f := &file{name: name, content: content, starts: []int{0}}
	for i, c := range content {
		if c == '\n' {
			f.starts = append(f.starts, i+1)
		}
	}
	return f
}

func (f *file) at(line, column int) position { return position{f, line, column} }

// text returns a line, from 1, without its end.
func (f *file) text(n int) string {
	line, _, _ := bytes.Cut(f.content[f.starts[n-1]:], []byte("\n"))
	return strings.TrimRight(string(line), "\r")
}

var (
	ignoreComment = regexp.MustCompile(`(?:^|[ \t])(#[ \t]*healthgate:[ \t]*ignore\b(.*))$`)
	ignoreReason  = regexp.MustCompile(`(?:^|[,;: \t])because\b[ \t:,]*(.*)$`)
)

// silence removes findings that a comment silences, and reports comments without a reason or a rule. A comment silences a rule on its
// line or, if the line has nothing else, on the next line that is not a comment.
func (f findings) silence(files []*file) {
	silent := map[Finding]bool{} // a rule on a line
	for _, file := range files {
		if !bytes.Contains(file.content, []byte("healthgate:")) {
			continue
		}
		for n := range len(file.starts) {
			line := file.text(n + 1)
			if parts := ignoreComment.FindStringSubmatchIndex(line); parts != nil {
				applies := n + 1
				if strings.TrimSpace(line[:parts[2]]) == "" {
					applies = file.nextLine(applies)
				}
				for _, rule := range f.ignoredRules(file.at(n+1, parts[2]+1), line[parts[4]:parts[5]]) {
					silent[Finding{File: file.name, Line: applies, Rule: rule}] = true
				}
			}
		}
	}
	maps.DeleteFunc(f, func(found Finding, _ bool) bool {
		return found.Rule != "ignore" && silent[Finding{File: found.File, Line: found.Line, Rule: found.Rule}]
	})
}

// ignoredRules returns the rules that a comment silences, and reports mistakes in it.
func (f findings) ignoredRules(comment position, said string) []string {
	reason := ""
	if because := ignoreReason.FindStringSubmatchIndex(said); because != nil {
		reason, said = strings.Trim(said[because[2]:because[3]], " \t.…"), said[:because[0]]
	}
	said, _, _ = strings.Cut(said, "#")
	named := strings.FieldsFunc(said, func(r rune) bool { return strings.ContainsRune(", \t;:", r) })
	if reason == "" {
		f.add(comment, Error, "ignore", "a rule is ignored without a reason: write `# healthgate: ignore %s, because …`",
			strings.Join(named, ", "))
		return nil
	}
	if len(named) == 0 {
		f.add(comment, Error, "ignore", "no rule is named: write `# healthgate: ignore RULE, because …`, with the word in brackets "+
			"at the end of the finding")
	}
	for _, rule := range named {
		if !slices.Contains(rules, rule) {
			f.add(comment, Error, "ignore", "%q is no rule, so nothing is ignored: docs/lint.md lists the rules", rule)
		}
	}
	return named
}

// nextLine returns the first line after n that is not a comment.
func (f *file) nextLine(n int) int {
	for n++; n < len(f.starts); n++ {
		if line := strings.TrimSpace(f.text(n)); line != "" && !strings.HasPrefix(line, "#") {
			break
		}
	}
	return n
}
