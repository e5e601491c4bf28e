package lint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// jsonReader makes nodes of JSON. A config_dump has tens of megabytes, for which YAML's reader takes five times as long.
type jsonReader struct {
	place
	rest   []byte
	length int // of the whole
	row    int // the current line, from 1
	start  int // where that line starts
	nodes  int
	keys   map[string]string // so that a key that is repeated a million times is kept once
}

func parseJSON(content []byte, at place) (*Node, error) {
	if len(content) > maxJSON {
		return nil, fmt.Errorf("it has more than %d MiB, up to which JSON is read", maxJSON>>20)
	}
	r := &jsonReader{place: at, rest: bytes.TrimPrefix(content, []byte("\uFEFF")), row: 1, keys: map[string]string{}}
	r.length = len(r.rest)
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if r.space(); len(r.rest) > 0 {
		return nil, r.fail("something follows the document")
	}
	return n, nil
}

func (r *jsonReader) column() int { return r.length - len(r.rest) - r.start + 1 }

func (r *jsonReader) fail(format string, args ...any) error {
	n := r.node(null)
	return &syntaxError{n.line, n.column, "not JSON: " + fmt.Sprintf(format, args...)}
}

func (r *jsonReader) node(k kind) *Node {
	n := &Node{kind: k}
	r.put(n, r.row, r.column())
	return n
}

func (r *jsonReader) space() {
	for i, c := range r.rest {
		switch c {
		case '\n':
			r.row++
			r.start = r.length - len(r.rest) + i + 1
		case ' ', '\t', '\r':
		default:
			r.rest = r.rest[i:]
			return
		}
	}
	r.rest = nil
}

// next skips space, and says which byte comes then; 0 at the end.
func (r *jsonReader) next() byte {
	r.space()
	if len(r.rest) == 0 {
		return 0
	}
	return r.rest[0]
}

func (r *jsonReader) value(depth int) (*Node, error) {
	if r.nodes++; depth > maxDepth || r.nodes > maxNodes {
		return nil, r.fail("more than %d values, or nested more than %d deep", maxNodes, maxDepth)
	}
	switch c := r.next(); {
	case c == '{':
		return r.object(depth)
	case c == '[':
		return r.array(depth)
	case c == '"':
		n := r.node(text)
		s, err := r.quoted()
		n.scalar = s
		return n, err
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	}
	for _, word := range []struct {
		word string
		kind kind
	}{{"true", boolean}, {"false", boolean}, {"null", null}} {
		if bytes.HasPrefix(r.rest, []byte(word.word)) {
			n := r.node(word.kind)
			n.scalar = word.word
			r.rest = r.rest[len(word.word):]
			return n, nil
		}
	}
	return nil, r.fail("no value")
}

func (r *jsonReader) number() (*Node, error) {
	n := r.node(number)
	end := 0
	for end < len(r.rest) && strings.IndexByte("+-.0123456789eE", r.rest[end]) >= 0 {
		end++
	}
	if !json.Valid(r.rest[:end]) {
		return nil, r.fail("%.20q is no number", r.rest[:end])
	}
	n.scalar, r.rest = string(r.rest[:end]), r.rest[end:]
	return n, nil
}

func (r *jsonReader) array(depth int) (*Node, error) {
	n := r.node(list)
	r.rest = r.rest[1:]
	if r.next() == ']' {
		r.rest = r.rest[1:]
		return n, nil
	}
	for {
		item, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, item)
		done, err := r.separator(']')
		if done || err != nil {
			return n, err
		}
	}
}

func (r *jsonReader) object(depth int) (*Node, error) {
	n := r.node(mapping)
	r.rest = r.rest[1:]
	if r.next() == '}' {
		r.rest = r.rest[1:]
		return n, nil
	}
	for {
		if r.next() != '"' {
			return nil, r.fail("no key")
		}
		at := r.node(null)
		key, err := r.quoted()
		if err != nil {
			return nil, err
		}
		if r.next() != ':' {
			return nil, r.fail("no colon after the key %.40q", key)
		}
		r.rest = r.rest[1:]
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		value.line, value.column = at.line, at.column
		n.entries = append(n.entries, entry{r.intern(key), value})
		done, err := r.separator('}')
		if done || err != nil {
			return n, err
		}
	}
}

// separator reads a comma, or the end.
func (r *jsonReader) separator(end byte) (done bool, err error) {
	switch r.next() {
	case end:
		done = true
	case ',':
	default:
		return false, r.fail("neither a comma nor %q", end)
	}
	r.rest = r.rest[1:]
	return done, nil
}

func (r *jsonReader) intern(key string) string {
	if known, ok := r.keys[key]; ok {
		return known
	}
	if len(key) < 64 && len(r.keys) < 10_000 {
		r.keys[key] = key
	}
	return key
}

// quoted reads a string.
func (r *jsonReader) quoted() (string, error) {
	for i := 1; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == '\\':
			i++
		case c < ' ':
			return "", r.fail("a control character in a string")
		case c == '"':
			raw := r.rest[:i+1]
			plain := raw[1:i]
			if bytes.IndexByte(plain, '\\') < 0 && utf8.Valid(plain) {
				r.rest = r.rest[i+1:]
				return string(plain), nil
			}
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return "", r.fail("%.20q is no string", raw)
			}
			r.rest = r.rest[i+1:]
			return s, nil
		}
	}
	return "", r.fail("a string that does not end")
}
