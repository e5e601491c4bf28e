package lint

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

// kind is the kind of a node.
type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	mapping
	list
)

var kindNames = [...]string{null: "null", boolean: "true or false", number: "a number", text: "a string", mapping: "an object",
	list: "a list"}

func (k kind) String() string { return kindNames[k] }

// position is a place in a file. Lines and columns count from 1.
type position struct {
	file         *file
	line, column int
}

func (p position) where() position { return p }

// Node is a value of a YAML or JSON document. A nil Node is a missing value; all methods accept it.
type Node struct {
	position      // of the key that has the value, else of the value
	valueLine int // of the first line of text in a block scalar; else 0
	kind      kind
	isText    bool    // of a number: a string in Envoy's YAML, which protobuf parses if the field is a number
	scalar    string  // as YAML or JSON resolves it; of a number, as written
	entries   []entry // of a mapping, as written
	items     []*Node // of a list
}

// entry is a key of a mapping and its value.
type entry struct {
	key   string
	value *Node
}

// get follows keys down through mappings.
func (n *Node) get(keys ...string) *Node {
	for _, key := range keys {
		n = n.child(key)
	}
	return n
}

// child returns a key's value; of a repeated key the last, as Envoy does. A null is a missing value.
func (n *Node) child(key string) *Node {
	if n == nil {
		return nil
	}
	for i := len(n.entries) - 1; i >= 0; i-- {
		if e := &n.entries[i]; e.key == key && e.value.kind != null {
			return e.value
		}
	}
	return nil
}

// at returns the node at keys; if it is missing, the nearest node above, for a finding about it.
func (n *Node) at(keys ...string) *Node {
	for _, key := range keys {
		below := n.child(key)
		if below == nil {
			return n
		}
		n = below
	}
	return n
}

var missing = &Node{}

// found returns the value at keys, or an empty node.
func (n *Node) found(keys ...string) *Node { return cmp.Or(n.get(keys...), missing) }

// list returns the items of the list at keys.
func (n *Node) list(keys ...string) []*Node { return n.found(keys...).items }

// pairs returns the entries of the mapping at keys.
func (n *Node) pairs(keys ...string) []entry { return n.found(keys...).entries }

// text returns the scalar at keys, or "".
func (n *Node) text(keys ...string) string { return n.found(keys...).scalar }

// first returns the first item of a list, or nil.
func (n *Node) first() *Node {
	if len(n.list()) > 0 {
		return n.items[0]
	}
	return nil
}

func (n *Node) has(words ...string) bool {
	return slices.ContainsFunc(n.list(), func(item *Node) bool { return slices.Contains(words, item.scalar) })
}

func (n *Node) isTrue(keys ...string) bool {
	return n.found(keys...).kind == boolean && n.text(keys...) == "true"
}

// number returns the number at keys, which may be quoted, or byDefault.
func (n *Node) number(byDefault float64, keys ...string) float64 {
	value, err := strconv.ParseFloat(n.text(keys...), 64)
	if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
		return byDefault
	}
	return value
}

// duration returns the duration at keys (as in 1.5s), or byDefault.
func (n *Node) duration(byDefault time.Duration, keys ...string) time.Duration {
	s := n.text(keys...)
	if d, err := time.ParseDuration(s); err == nil && strings.HasSuffix(s, "s") && !strings.HasSuffix(s, "ms") {
		return d
	}
	return byDefault
}

// value returns a node as a protobuf Value, as Envoy passes it to a filter.
func (n *Node) value() *structpb.Value {
	switch n.kind {
	case boolean:
		return structpb.NewBoolValue(n.scalar == "true")
	case number:
		if v, err := strconv.ParseFloat(n.scalar, 64); err == nil && !n.isText {
			return structpb.NewNumberValue(v)
		}
		return structpb.NewStringValue(n.scalar)
	case text:
		return structpb.NewStringValue(n.scalar)
	case mapping:
		return structpb.NewStructValue(n.structure())
	case list:
		values := &structpb.ListValue{}
		for _, item := range n.items {
			values.Values = append(values.Values, item.value())
		}
		return structpb.NewListValue(values)
	}
	return structpb.NewNullValue()
}

func (n *Node) structure() *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, e := range n.pairs() {
		s.Fields[e.key] = e.value.value()
	}
	return s
}

// follow returns the node at a path in an error of the decoder (clusters[0].min_healthy), or the nearest above; whole reports whether
// the node itself is there.
func (n *Node) follow(path string) (found *Node, whole bool) {
	for path != "" {
		below, rest := n.step(strings.TrimPrefix(path, "."))
		if below == nil {
			return n, false
		}
		n, path = below, rest
	}
	return n, true
}

// step returns the node at the first key or index of a path, and the rest. Of keys with dots, it takes the longest that matches.
func (n *Node) step(path string) (below *Node, rest string) {
	if index, after, indexed := strings.Cut(path, "]"); indexed && index[0] == '[' {
		if i, err := strconv.Atoi(index[1:]); err == nil && i >= 0 && i < len(n.list()) {
			return n.items[i], after
		}
	}
	longest := -1
	for _, e := range n.pairs() {
		for _, shown := range []string{e.key, strconv.Quote(clip(e.key))} {
			after, found := strings.CutPrefix(path, shown)
			if found && len(shown) > longest && (after == "" || after[0] == '.' || after[0] == '[') {
				below, rest, longest = e.value, after, len(shown)
			}
		}
	}
	return below, rest
}
