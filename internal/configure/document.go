package configure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is a text in YAML or JSON: a file, or a value of a ConfigMap.
type document struct {
	lines []string // without their ends
	end   string   // of each line: "\n" or "\r\n"
	root  *yaml.Node
	tree  *tree
}

// maxNodes bounds the values of a text, its aliases expanded: a few lines of YAML can stand for billions.
const maxNodes = 5_000_000

var (
	yaml12 = regexp.MustCompile(`(?m)^%YAML 1\.2`)
	// tabbed is a line with a comment behind a tab and nothing else, which Envoy's parser takes and this one does not.
	tabbed = regexp.MustCompile(`(?m)^[ \t]*\t[ \t]*#`)
)

// parse reads a text. The root is a sequence of its documents.
func parse(content []byte) (d *document, err error) {
	defer func() {
		if cause := recover(); cause != nil { // the library panics on some inputs that are no YAML
			d, err = nil, fmt.Errorf("not YAML: %v", cause)
		}
	}()
	d = &document{end: "\n", root: &yaml.Node{Kind: yaml.SequenceNode}}
	if first, _, _ := bytes.Cut(content, []byte("\n")); bytes.HasSuffix(first, []byte("\r")) {
		d.end = "\r\n"
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(content), "\n"), "\n") {
		d.lines = append(d.lines, strings.TrimSuffix(line, "\r"))
	}
	readable := yaml12.ReplaceAll(content, []byte("%YAML 1.1"))
	readable = tabbed.ReplaceAllFunc(readable, func(comment []byte) []byte { return bytes.ReplaceAll(comment, []byte("\t"), []byte(" ")) })
	for decoder := yaml.NewDecoder(bytes.NewReader(readable)); ; {
		var one yaml.Node
		switch err := decoder.Decode(&one); {
		case errors.Is(err, io.EOF):
			left := maxNodes
			d.tree, err = expand(d.root, &left, 0)
			return d, err
		case err != nil:
			return nil, fmt.Errorf("not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		case len(one.Content) > 0:
			d.root.Content = append(d.root.Content, one.Content[0])
		}
	}
}

// text is the whole of it.
func (d *document) text() []byte { return []byte(strings.Join(d.lines, d.end) + d.end) }

// edited returns the text with lines from (from 1) to before (not included) replaced.
func (d *document) edited(from, before int, lines []string) []byte {
	all := make([]string, 0, len(d.lines)+len(lines))
	all = append(append(append(all, d.lines[:from-1]...), lines...), d.lines[before-1:]...)
	return []byte(strings.Join(all, d.end) + d.end)
}

// comments is the first line of the comments right over a line.
func (d *document) comments(line int) int {
	for line > 1 && strings.HasPrefix(strings.TrimLeft(d.lines[line-2], " \t"), "#") {
		line--
	}
	return line
}

// tree is a value with its aliases expanded: all that a program reads of it.
type tree struct {
	kind     yaml.Kind
	tag      string
	value    string
	children []*tree
}

// ignored is the tag of keys that Envoy skips: their values are there for anchors alone.
const ignored = "!ignore"

func expand(n *yaml.Node, left *int, depth int) (*tree, error) {
	if *left--; *left < 0 || depth > 500 {
		return nil, errors.New("its anchors stand for too many values, or it is nested too deeply")
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

// sorted are the children, of a mapping in the order of its keys. Of a key that is there twice, the first stays first.
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

// with returns a copy in which change was made to the value at a path. What lies beside the path is shared.
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

// value is a value of a document, with the way to it. One that is not there has no node.
type value struct {
	*yaml.Node            // aliases resolved
	key        *yaml.Node // of the mapping it stands in, or nil
	path       []int      // indexes into Content, from the root
}

func (d *document) top() value { return value{Node: d.root} }

// get follows keys, as protobuf or JSON write them.
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

// sameKey says whether a key is one of protobuf's, which JSON may write as lowerCamelCase.
func sameKey(written, key string) bool {
	return strings.EqualFold(strings.ReplaceAll(written, "_", ""), strings.ReplaceAll(key, "_", ""))
}

func (v value) step(i int) value {
	return value{Node: resolved(v.Content[i]), path: append(v.path[:len(v.path):len(v.path)], i)}
}

// items are the items of a list.
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

// text is the scalar at keys, or "".
func (v value) text(keys ...string) string {
	if v = v.get(keys...); v.Node == nil || v.Kind != yaml.ScalarNode || v.ShortTag() == "!!null" {
		return ""
	}
	return v.Value
}

// there says whether a value is there, and not null.
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
