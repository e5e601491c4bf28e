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

// addItem adds an item at the beginning of the list at a key of a mapping. An empty or missing list becomes a list of this item.
func addItem(in value, key string, item []string) edit {
	at := in.get(key)
	if at.Node == nil {
		return edit{at: in, key: key, lines: append([]string{key + ":"}, item...), name: key}
	}
	return edit{at: at, lines: item, name: key}
}

// apply applies an edit. It tries several places, the best first, and takes one only if the text then reads back as before, with exactly
// this addition. Values that were found before are then invalid.
func (t *text) apply(e edit) error {
	parsed, err := parse([]byte(strings.Join(e.lines, "\n") + "\n"))
	if err != nil || len(parsed.root.Content) != 1 {
		return fmt.Errorf("%s: the addition can't be read back: %w", e.name, err)
	}
	added := parsed.root.Content[0]
	want := changedAt(t.root, e.at.path, func(n *yaml.Node) {
		switch {
		case e.key != "":
			n.Content = append(n.Content, added.Content...)
		case n.Kind != yaml.SequenceNode: // null
			*n = *added
		default:
			n.Content = append(slices.Clone(added.Content), n.Content...)
		}
	})
	for _, candidate := range e.candidates(t.document, added) {
		if result, err := parse(t.with(candidate)); err == nil && equal(result.root, want) {
			t.document = result
			return nil
		}
	}
	reason := "the text around it has a form that is not supported"
	n := t.root
	for _, i := range e.at.path {
		if n = n.Content[i]; n.Kind == yaml.AliasNode || n.Anchor != "" {
			reason = "an anchor (&) uses it in more than one place"
			break
		}
	}
	return fmt.Errorf("%s in line %d can't be added to without changing something else: %s; add it by hand:\n%s",
		e.name, t.line(t.original.at(e.at.path).Line), reason, strings.Join(e.lines, "\n"))
}

// candidates returns ways to write the addition, the best first.
func (e edit) candidates(d *document, added *yaml.Node) []replacement {
	flow := e.at.Style&yaml.FlowStyle != 0
	switch {
	case e.key != "" && !flow:
		return e.keyInBlock(d)
	case e.key == "" && len(e.at.items()) == 0:
		all := e.inPlaceOfEmpty(d)
		if flow {
			all = append(all, e.intoBrackets(d, added)...)
		}
		return all
	case flow:
		return e.intoBrackets(d, added)
	}
	return e.itemInBlock(d)
}

// before returns replacements that insert lines before a line and its comments, or else between these. The parser counts more lines than
// there are if one contains a line break of another kind.
func (d *document) before(line int, lines []string) []replacement {
	if line > len(d.lines) {
		return nil
	}
	above := d.comments(line)
	return []replacement{{above, above, lines}, {line, line, lines}}
}

// itemInBlock adds an item before the first item of a block list, and before that item's comments.
func (e edit) itemInBlock(d *document) (all []replacement) {
	first := e.at.Content[0].Line
	for line := min(first, len(d.lines)); line >= max(1, e.at.Line, first-20); line-- {
		item := strings.TrimLeft(d.lines[line-1], " ")
		if item == "-" || strings.HasPrefix(item, "- ") || strings.HasPrefix(item, "-\t") {
			all = append(all, d.before(line, indented(len(d.lines[line-1])-len(item), e.lines))...)
		}
	}
	return all
}

// keyInBlock adds a key before the second key of a block mapping and its comments, or else after the last.
func (e edit) keyInBlock(d *document) (all []replacement) {
	if len(e.at.Content) == 0 {
		return nil
	}
	first := e.at.Content[0]
	lines := indented(first.Column-1, e.lines)
	for i := 2; i < len(e.at.Content); i += 2 {
		if line := e.at.Content[i].Line; line > first.Line {
			all = append(all, d.before(line, lines)...)
		}
	}
	// The parser knows where a multi-line scalar begins, and not where it ends.
	last := lastLine(e.at.Node)
	for at := last + 1; at <= min(len(d.lines)+1, last+300); at++ {
		all = append(all, replacement{at, at, lines})
	}
	return all
}

func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, child := range n.Content {
		last = max(last, lastLine(child))
	}
	return last
}

// inPlaceOfEmpty replaces [], null or nothing after a key by a list.
func (e edit) inPlaceOfEmpty(d *document) (all []replacement) {
	if e.at.key == nil || e.at.key.Line != e.at.Line || e.at.Line > len(d.lines) {
		return nil
	}
	before, rest := d.split(e.at)
	empties := []string{"null", "~", ""}
	if e.at.Kind == yaml.SequenceNode {
		opening, closing := strings.Index(rest, "["), strings.Index(rest, "]")
		if opening < 0 || closing < opening || strings.TrimSpace(rest[opening+1:closing]) != "" {
			return nil
		}
		empties = []string{rest[:closing+1]}
	}
	for _, empty := range empties {
		if after, found := strings.CutPrefix(rest, empty); found {
			head := strings.TrimRight(strings.TrimRight(before, " ")+after, " ")
			lines := append([]string{head}, indented(e.at.key.Column-1, e.lines)...)
			all = append(all, replacement{e.at.Line, e.at.Line + 1, lines})
		}
	}
	return all
}

// intoBrackets adds to a flow list or mapping, after its opening bracket. It changes that line only.
func (e edit) intoBrackets(d *document, added *yaml.Node) []replacement {
	if e.at.Line > len(d.lines) {
		return nil
	}
	before, rest := d.split(e.at)
	addition := inFlow(added)
	bracket, addition := addition[:1], addition[1:len(addition)-1]
	if len(e.at.Content) > 0 {
		addition += ", "
	}
	space, rest, found := strings.Cut(rest, bracket)
	if !found {
		return nil
	}
	return []replacement{{e.at.Line, e.at.Line + 1, []string{before + space + bracket + addition + rest}}}
}

// split cuts the first line of a value before it. The parser counts columns in characters, from 1.
func (d *document) split(v value) (before, rest string) {
	line := []rune(d.lines[v.Line-1])
	at := min(v.Column-1, len(line))
	return string(line[:at]), string(line[at:])
}

// inFlow returns a value as JSON, which YAML accepts in brackets.
func inFlow(n *yaml.Node) string {
	var parts []string
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			parts = append(parts, inFlow(child))
		case i%2 == 1:
			parts = append(parts, inFlow(n.Content[i-1])+": "+inFlow(child))
		}
	}
	switch {
	case n.Kind == yaml.SequenceNode:
		return "[" + strings.Join(parts, ", ") + "]"
	case n.Kind == yaml.MappingNode:
		return "{" + strings.Join(parts, ", ") + "}"
	case n.ShortTag() != "!!str":
		return n.Value
	}
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(n.Value) // a string always can be
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
