package configure

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"healthgate/internal/envoyyaml"
)

// document is a text in YAML or JSON: a file, or a value of a ConfigMap.
type document struct {
	lines []string // without their ends
	end   string   // the line ending: "\n" or "\r\n"
	root  *yaml.Node
	tree  *tree
}

// maxNodes is the limit of values in a text with its aliases expanded: a few lines of YAML can expand to billions.
const maxNodes = 5_000_000

// parse reads a text. The root is a sequence of its documents.
func parse(content []byte) (*document, error) {
	d := &document{end: "\n", root: &yaml.Node{Kind: yaml.SequenceNode}}
	if first, _, _ := bytes.Cut(content, []byte("\n")); bytes.HasSuffix(first, []byte("\r")) {
		d.end = "\r\n"
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(content), "\n"), "\n") {
		d.lines = append(d.lines, strings.TrimSuffix(line, "\r"))
	}
	var err error
	if d.root.Content, err = envoyyaml.Decode(content); err != nil {
		return nil, fmt.Errorf("not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	left := maxNodes
	d.tree, err = expand(d.root, &left, 0)
	return d, err
}

// text returns the whole text.
func (d *document) text() []byte { return []byte(strings.Join(d.lines, d.end) + d.end) }

// edited returns the text with lines from (from 1) to before (not included) replaced.
func (d *document) edited(from, before int, lines []string) []byte {
	all := make([]string, 0, len(d.lines)+len(lines))
	all = append(append(append(all, d.lines[:from-1]...), lines...), d.lines[before-1:]...)
	return []byte(strings.Join(all, d.end) + d.end)
}

// comments returns the first line of the comments directly above a line.
func (d *document) comments(line int) int {
	for line > 1 && strings.HasPrefix(strings.TrimLeft(d.lines[line-2], " \t"), "#") {
		line--
	}
	return line
}

// tree is a value with its aliases expanded, as a program reads it.
type tree struct {
	kind     yaml.Kind
	tag      string
	value    string
	children []*tree
}

// ignored is the tag of keys that Envoy ignores: their values are there for their anchors.
const ignored = "!ignore"

func expand(n *yaml.Node, left *int, depth int) (*tree, error) {
	if *left--; *left < 0 || depth > 500 {
		return nil, errors.New("its aliases expand to too many values, or it is nested too deeply")
	}
	n = resolved(n)
	t := &tree{kind: n.Kind, tag: n.ShortTag(), value: n.Value}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Tag == ignored {
			t.children = append(t.children, &tree{})
			continue
		}
		below, err := expand(child, left, depth+1)
		if err != nil {
			return nil, err
		}
		t.children = append(t.children, below)
	}
	return t, nil
}

// equal compares two values. The order of a mapping's keys does not count.
func (t *tree) equal(other *tree) bool {
	if t.kind != other.kind || t.tag != other.tag || t.value != other.value || len(t.children) != len(other.children) {
		return false
	}
	ours, theirs := t.sorted(), other.sorted()
	for i, child := range ours {
		if !child.equal(theirs[i]) {
			return false
		}
	}
	return true
}

// sorted returns the children, of a mapping in the order of its keys. Two equal keys keep their order.
func (t *tree) sorted() []*tree {
	byKey := func(i int) string { return t.children[2*i].value }
	inOrder := func(i, j int) int { return strings.Compare(byKey(i), byKey(j)) }
	order := make([]int, len(t.children)/2)
	for i := range order {
		order[i] = i
	}
	if t.kind != yaml.MappingNode || slices.IsSortedFunc(order, inOrder) {
		return t.children
	}
	slices.SortStableFunc(order, inOrder)
	all := make([]*tree, 0, len(t.children))
	for _, i := range order {
		all = append(all, t.children[2*i], t.children[2*i+1])
	}
	return all
}

// with returns a copy in which change was applied to the value at a path. The copy shares all other values.
func (t *tree) with(path []int, change func(*tree)) *tree {
	copied := *t
	copied.children = append([]*tree(nil), t.children...)
	if len(path) == 0 {
		change(&copied)
		return &copied
	}
	copied.children[path[0]] = t.children[path[0]].with(path[1:], change)
	return &copied
}

// resolved follows aliases.
func resolved(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// value is a value of a document, with its path. A missing value has no node.
type value struct {
	*yaml.Node            // aliases resolved
	key        *yaml.Node // of the value in its mapping, or nil
	path       []int      // indexes into Content, from the root
}

func (d *document) top() value { return value{Node: d.root} }

// get follows keys, in protobuf's or JSON's form.
func (v value) get(keys ...string) value {
	for _, key := range keys {
		v = v.child(key)
	}
	return v
}

func (v value) child(key string) value {
	if v.Node == nil || v.Kind != yaml.MappingNode {
		return value{}
	}
	for i := len(v.Content) - 2; i >= 0; i -= 2 { // of a repeated key the last counts, as in Envoy
		if at := v.step(i + 1); v.Content[i].Tag != ignored && sameKey(resolved(v.Content[i]).Value, key) {
			at.key = v.Content[i]
			return at
		}
	}
	return value{}
}

// sameKey reports whether a written key, perhaps in lowerCamelCase, is a field's.
func sameKey(written, key string) bool {
	return strings.EqualFold(strings.ReplaceAll(written, "_", ""), strings.ReplaceAll(key, "_", ""))
}

func (v value) step(i int) value {
	return value{Node: resolved(v.Content[i]), path: append(v.path[:len(v.path):len(v.path)], i)}
}

// items returns the items of a list.
func (v value) items() []value {
	if v.Node == nil || v.Kind != yaml.SequenceNode {
		return nil
	}
	all := make([]value, len(v.Content))
	for i := range v.Content {
		all[i] = v.step(i)
	}
	return all
}

// text returns the scalar at keys, or "".
func (v value) text(keys ...string) string {
	if v = v.get(keys...); v.Node == nil || v.Kind != yaml.ScalarNode || v.ShortTag() == "!!null" {
		return ""
	}
	return v.Value
}

// there reports whether a value is there, and not null.
func (v value) there() bool {
	return v.Node != nil && !(v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null")
}

// each calls visit for each mapping in a value, the outer ones first.
func (v value) each(visit func(value)) {
	if v.Node == nil {
		return
	}
	if v.Kind == yaml.MappingNode {
		visit(v)
		for i := 1; i < len(v.Content); i += 2 {
			if v.Content[i-1].Tag != ignored {
				v.step(i).each(visit)
			}
		}
		return
	}
	for _, item := range v.items() {
		item.each(visit)
	}
}
