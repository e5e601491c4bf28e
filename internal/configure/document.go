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
	if left := maxNodes; !fits(d.root, &left, 0) {
		return nil, errors.New("its aliases expand to too many values, or it is nested too deeply")
	}
	return d, nil
}

func fits(n *yaml.Node, left *int, depth int) bool {
	*left--
	return *left >= 0 && depth <= 500 &&
		!slices.ContainsFunc(children(resolved(n)), func(child *yaml.Node) bool { return !fits(child, left, depth+1) })
}

// replacement puts lines in the place of the lines from (counted from 1) to before (not included).
type replacement struct {
	from, before int
	lines        []string
}

// with returns the text with a replacement.
func (d *document) with(r replacement) []byte {
	return []byte(strings.Join(slices.Concat(d.lines[:r.from-1], r.lines, d.lines[r.before-1:]), d.end) + d.end)
}

// comments returns the first line of the comments directly above a line.
func (d *document) comments(line int) int {
	for line > 1 && strings.HasPrefix(strings.TrimLeft(d.lines[line-2], " \t"), "#") {
		line--
	}
	return line
}

// at returns the value at a path.
func (d *document) at(path []int) value {
	v := value{Node: d.root}
	for _, i := range path {
		v = v.step(i)
	}
	return v
}

// ignored is the tag of keys that Envoy ignores: their values are there for their anchors.
const ignored = "!ignore"

// children returns the values in a value: of a mapping sorted by key, without the values of ignored keys.
func children(n *yaml.Node) []*yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n.Content
	}
	pairs := slices.Collect(slices.Chunk(n.Content, 2))
	for i, pair := range pairs {
		if pair[0].Tag == ignored {
			pairs[i] = pair[:1]
		}
	}
	slices.SortStableFunc(pairs, func(a, b []*yaml.Node) int { return strings.Compare(resolved(a[0]).Value, resolved(b[0]).Value) })
	return slices.Concat(pairs...)
}

// equal compares two values, as a program reads them.
func equal(a, b *yaml.Node) bool {
	a, b = resolved(a), resolved(b)
	return a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Value == b.Value && slices.EqualFunc(children(a), children(b), equal)
}

// changedAt returns a copy of a value in which change was applied to the value at a path. The copy shares all other values.
func changedAt(n *yaml.Node, path []int, change func(*yaml.Node)) *yaml.Node {
	copied := *resolved(n)
	copied.Content = slices.Clone(copied.Content)
	if len(path) == 0 {
		change(&copied)
	} else {
		copied.Content[path[0]] = changedAt(copied.Content[path[0]], path[1:], change)
	}
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

// get follows keys, in protobuf's or JSON's form.
func (v value) get(keys ...string) value {
	for _, key := range keys {
		key = strings.ReplaceAll(key, "_", "")
		v = v.find(func(written string) bool { return strings.EqualFold(strings.ReplaceAll(written, "_", ""), key) })
	}
	return v
}

// exactly returns the value at a key of a map, in which keys have one form.
func (v value) exactly(key string) value {
	return v.find(func(written string) bool { return written == key })
}

func (v value) find(is func(key string) bool) value {
	if v.Node == nil || v.Kind != yaml.MappingNode {
		return value{}
	}
	for i := len(v.Content) - 2; i >= 0; i -= 2 { // of a repeated key the last counts, as in Envoy
		if key := v.Content[i]; key.Tag != ignored && is(resolved(key).Value) {
			found := v.step(i + 1)
			found.key = key
			return found
		}
	}
	return value{}
}

func (v value) step(i int) value {
	return value{Node: resolved(v.Content[i]), path: append(slices.Clone(v.path), i)}
}

// items returns the items of the list at keys.
func (v value) items(keys ...string) (all []value) {
	if v = v.get(keys...); v.Node == nil || v.Kind != yaml.SequenceNode {
		return nil
	}
	for i := range v.Content {
		all = append(all, v.step(i))
	}
	return all
}

// text returns the scalar at keys, or "".
func (v value) text(keys ...string) string {
	if v = v.get(keys...); !v.there() || v.Kind != yaml.ScalarNode {
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
	if v.Kind == yaml.MappingNode {
		visit(v)
	}
	for i := range v.Content {
		if v.Kind != yaml.MappingNode || i%2 == 1 && v.Content[i-1].Tag != ignored {
			v.step(i).each(visit)
		}
	}
}
