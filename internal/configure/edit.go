package configure

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// edit is one addition: an item at the beginning of a list, or a key with its value in a mapping.
type edit struct {
	at    value    // the list, or the mapping
	key   string   // "" for an item
	lines []string // a block without indentation: "- …", or "key:" with its value
	name  string   // of the place, for errors
}

// put adds an item at the beginning of the list at a key of a mapping. An empty or missing list becomes a list of this item.
func put(in value, key string, item []string) edit {
	at := in.get(key)
	if at.Node == nil {
		return edit{at: in, key: key, lines: append([]string{key + ":"}, item...), name: key}
	}
	return edit{at: at, lines: item, name: key}
}

// applied returns the text with an edit. It tries several places, the best first, and takes one only if the text then reads back as
// before, with exactly this addition.
func (t *text) applied(e edit) (*document, error) {
	d := t.document
	added, err := parse([]byte(strings.Join(e.lines, "\n") + "\n"))
	if err != nil || len(added.tree.children) != 1 {
		return nil, fmt.Errorf("%s: the addition can't be read back: %w", e.name, err)
	}
	want := d.tree.with(e.at.path, func(t *tree) { e.grow(t, added.tree.children[0]) })
	for candidate := range e.candidates(d, added.root.Content[0]) {
		if result, err := parse(candidate); err == nil && result.tree.equal(want) {
			return result, nil
		}
	}
	reason := "the text around it has a form that is not supported"
	if d.shared(e.at.path) {
		reason = "an anchor (&) uses it in more than one place"
	}
	return nil, fmt.Errorf("%s in line %d can't be added to without changing something else: %s; add it by hand:\n%s",
		e.name, t.line((&text{document: t.original}).at(e.at.path).Line), reason, strings.Join(e.lines, "\n"))
}

// grow adds the addition to a tree.
func (e edit) grow(t, added *tree) {
	switch {
	case e.key != "":
		t.children = append(t.children, added.children...)
	case t.kind != yaml.SequenceNode: // null
		*t = *added
	default:
		t.children = append(slices.Clone(added.children), t.children...)
	}
}

// shared reports whether a path passes an alias or an anchor.
func (d *document) shared(path []int) bool {
	n := d.root
	for _, i := range path {
		if n = n.Content[i]; n.Kind == yaml.AliasNode || n.Anchor != "" {
			return true
		}
	}
	return false
}

// candidates returns texts with the addition, the best place first.
func (e edit) candidates(d *document, added *yaml.Node) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		flow := e.at.Style&yaml.FlowStyle != 0
		switch {
		case e.key != "" && flow:
			yieldAll(yield, e.intoBrackets(d, "{", flowPairs(added), len(e.at.Content) > 0))
		case e.key != "":
			e.keyInBlock(d, yield)
		case len(e.at.items()) == 0:
			if !yieldAll(yield, e.inPlaceOfEmpty(d)) {
				return
			}
			if flow {
				yieldAll(yield, e.intoBrackets(d, "[", flowItems(added), false))
			}
		case flow:
			yieldAll(yield, e.intoBrackets(d, "[", flowItems(added), true))
		default:
			e.itemInBlock(d, yield)
		}
	}
}

func yieldAll(yield func([]byte) bool, all [][]byte) bool {
	for _, one := range all {
		if !yield(one) {
			return false
		}
	}
	return true
}

// itemInBlock adds an item before the first item of a block list, and before that item's comments.
func (e edit) itemInBlock(d *document, yield func([]byte) bool) {
	first := e.at.Content[0].Line
	for line := min(first, len(d.lines)); line >= max(1, e.at.Line, first-20); line-- {
		text := d.lines[line-1]
		dash := len(text) - len(strings.TrimLeft(text, " "))
		if rest := text[dash:]; rest != "-" && !strings.HasPrefix(rest, "- ") && !strings.HasPrefix(rest, "-\t") {
			continue
		}
		for _, at := range []int{d.comments(line), line} {
			if !yield(d.edited(at, at, indented(dash, e.lines))) {
				return
			}
		}
	}
}

// keyInBlock adds a key before the second key of a block mapping and its comments, or else after the last.
func (e edit) keyInBlock(d *document, yield func([]byte) bool) {
	if len(e.at.Content) == 0 {
		return
	}
	lines := indented(e.at.Content[0].Column-1, e.lines)
	for i := 2; i < len(e.at.Content); i += 2 {
		line := e.at.Content[i].Line
		if line > e.at.Content[0].Line {
			for _, at := range []int{d.comments(line), line} {
				if !yield(d.edited(at, at, lines)) {
					return
				}
			}
		}
	}
	// The parser knows where a multi-line scalar begins, and not where it ends.
	last := lastLine(e.at.Node)
	for at := last + 1; at <= min(len(d.lines)+1, last+300); at++ {
		if !yield(d.edited(at, at, lines)) {
			return
		}
	}
}

func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, child := range n.Content {
		last = max(last, lastLine(child))
	}
	return last
}

// inPlaceOfEmpty replaces [], null or nothing after a key by a list.
func (e edit) inPlaceOfEmpty(d *document) (all [][]byte) {
	if e.at.key == nil || e.at.key.Line != e.at.Line || e.at.Line > len(d.lines) {
		return nil
	}
	line := d.lines[e.at.Line-1]
	from := byteColumn(line, e.at.Column)
	rest := line[from:]
	for _, empty := range []string{"[]", "null", "~", ""} {
		if e.at.Kind == yaml.SequenceNode {
			opening, closing := strings.Index(rest, "["), strings.Index(rest, "]")
			if opening < 0 || closing < opening || strings.TrimSpace(rest[opening+1:closing]) != "" {
				return nil
			}
			empty = rest[:closing+1]
		}
		after, found := strings.CutPrefix(rest, empty)
		if !found {
			continue
		}
		head := strings.TrimRight(strings.TrimRight(line[:from], " ")+after, " ")
		all = append(all, d.edited(e.at.Line, e.at.Line+1, append([]string{head}, indented(e.at.key.Column-1, e.lines)...)))
	}
	return all
}

// intoBrackets adds to a flow list or mapping, after its opening bracket. It changes that line only.
func (e edit) intoBrackets(d *document, bracket, flow string, more bool) [][]byte {
	if e.at.Line > len(d.lines) {
		return nil
	}
	line := d.lines[e.at.Line-1]
	from := byteColumn(line, e.at.Column)
	at := strings.Index(line[from:], bracket)
	if at < 0 {
		return nil
	}
	if at += from + 1; more {
		flow += ", "
	}
	return [][]byte{d.edited(e.at.Line, e.at.Line+1, []string{line[:at] + flow + line[at:]})}
}

// byteColumn returns the byte offset of a column, which the parser counts in characters from 1.
func byteColumn(line string, column int) int {
	at := 0
	for i := range line {
		if at++; at == column {
			return i
		}
	}
	return len(line)
}

// flowItems returns a list's items as JSON, which YAML accepts in brackets.
func flowItems(list *yaml.Node) string {
	items := make([]string, len(list.Content))
	for i, item := range list.Content {
		items[i] = flowOf(item)
	}
	return strings.Join(items, ", ")
}

func flowPairs(mapping *yaml.Node) string {
	var pairs []string
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		pairs = append(pairs, jsonString(mapping.Content[i].Value)+": "+flowOf(mapping.Content[i+1]))
	}
	return strings.Join(pairs, ", ")
}

func flowOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "[" + flowItems(n) + "]"
	case n.Kind == yaml.MappingNode:
		return "{" + flowPairs(n) + "}"
	case n.ShortTag() == "!!str":
		return jsonString(n.Value)
	}
	return n.Value
}

func jsonString(s string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string always can be
	return strings.TrimSuffix(b.String(), "\n")
}

func indented(by int, lines []string) []string {
	all := make([]string, len(lines))
	for i, line := range lines {
		if line != "" {
			line = strings.Repeat(" ", by) + line
		}
		all[i] = line
	}
	return all
}
