package lint

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

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

// line returns a line, from 1, without its end.
func (f *file) line(n int) string {
	if n < 1 || n > len(f.starts) {
		return ""
	}
	rest := f.content[f.starts[n-1]:]
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		rest = rest[:end]
	}
	return strings.TrimRight(string(rest), "\r")
}

// ignored is a comment that silences a rule on its line or, if the line has nothing else, on the next line that is not a comment.
type ignored struct {
	line, column int // of the comment
	rules        []string
	reason       string
	applies      int // the line on which it silences
}

var (
	ignoreComment = regexp.MustCompile(`#[ \t]*healthgate:[ \t]*ignore\b(.*)$`)
	ignoreReason  = regexp.MustCompile(`(?:^|[,;: \t])because\b[ \t:,]*(.*)$`)
)

// ignores returns the comments of a file.
func (f *file) ignores() []ignored {
	if !bytes.Contains(f.content, []byte("healthgate:")) {
		return nil
	}
	var all []ignored
	for n := 1; n <= len(f.starts); n++ {
		line := f.line(n)
		at := ignoreComment.FindStringSubmatchIndex(line)
		if at == nil || at[0] > 0 && !strings.ContainsAny(line[at[0]-1:at[0]], " \t") {
			continue
		}
		i := ignored{line: n, column: at[0] + 1, applies: n}
		said := line[at[2]:at[3]]
		if because := ignoreReason.FindStringSubmatchIndex(said); because != nil {
			i.reason = strings.Trim(said[because[2]:because[3]], " \t.…")
			said = said[:because[0]]
		}
		said, _, _ = strings.Cut(said, "#")
		i.rules = strings.FieldsFunc(said, func(r rune) bool { return strings.ContainsRune(", \t;:", r) })
		if strings.TrimSpace(line[:at[0]]) == "" {
			i.applies = f.nextLine(n)
		}
		all = append(all, i)
	}
	return all
}

// nextLine returns the first line after n that is not a comment.
func (f *file) nextLine(n int) int {
	for n++; n < len(f.starts); n++ {
		if line := strings.TrimSpace(f.line(n)); line != "" && !strings.HasPrefix(line, "#") {
			break
		}
	}
	return n
}

// silence removes findings that a comment silences, and reports comments without a reason or a rule.
func (f *findings) silence(files []*file) {
	type key struct {
		file string
		line int
		rule string
	}
	silent := map[key]bool{}
	for _, file := range files {
		for _, i := range file.ignores() {
			at := &Node{file: file, line: i.line, column: i.column}
			if i.reason == "" {
				f.add(at, Error, "ignore", "a rule is ignored without a reason: write `# healthgate: ignore %s, because …`",
					strings.Join(i.rules, ", "))
				continue
			}
			if len(i.rules) == 0 {
				f.add(at, Error, "ignore", "no rule is named: write `# healthgate: ignore RULE, because …`, with the word in brackets "+
					"at the end of the finding")
			}
			for _, rule := range i.rules {
				if !slices.ContainsFunc(Rules, func(r Rule) bool { return r.Name == rule }) {
					f.add(at, Error, "ignore", "%q is no rule, so nothing is ignored: docs/lint.md lists the rules", rule)
				}
				silent[key{file.name, i.applies, rule}] = true
			}
		}
	}
	f.all = slices.DeleteFunc(f.all, func(found Finding) bool {
		return found.Rule != "ignore" && silent[key{found.File, found.Line, found.Rule}]
	})
}
