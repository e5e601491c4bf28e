package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unique"
)

// jsonReader makes nodes of JSON. A config_dump has tens of megabytes, for which the YAML reader takes five times as long.
type jsonReader struct {
	place
	content   []byte
	tokens    *json.Decoder
	at        int // the offset up to which lines are counted
	row       int // the line of at, from 1
	lineStart int // the offset at which that line starts
	nodes     int
}

func parseJSON(content []byte, at place) (*Node, error) {
	if len(content) > maxJSON {
		return nil, fmt.Errorf("it has more than %d MiB, up to which JSON is read", maxJSON>>20)
	}
	content = bytes.TrimPrefix(content, byteOrderMark)
	r := &jsonReader{place: at, content: content, tokens: json.NewDecoder(bytes.NewReader(content)), row: 1}
	r.tokens.UseNumber()
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.tokens.Token(); !errors.Is(err, io.EOF) {
		return nil, r.fail("something follows the document")
	}
	return n, nil
}

// position moves to the next token, and returns its place.
func (r *jsonReader) position() *Node {
	next := int(r.tokens.InputOffset())
	for next < len(r.content) && bytes.IndexByte([]byte(" \t\r\n,:"), r.content[next]) >= 0 {
		next++
	}
	for ; r.at < next; r.at++ {
		if r.content[r.at] == '\n' {
			r.row, r.lineStart = r.row+1, r.at+1
		}
	}
	n := &Node{}
	r.put(n, r.row, next-r.lineStart+1)
	return n
}

func (r *jsonReader) fail(format string, args ...any) error {
	n := r.position()
	return &syntaxError{n.line, n.column, "not JSON: " + fmt.Sprintf(format, args...)}
}

// next reads a token.
func (r *jsonReader) next() (json.Token, error) {
	token, err := r.tokens.Token()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, r.fail("the document does not end")
	} else if err != nil {
		return nil, r.fail("%s", err)
	}
	return token, nil
}

func (r *jsonReader) value(depth int) (*Node, error) {
	if r.nodes++; depth > maxDepth || r.nodes > maxNodes {
		return nil, r.fail("more than %d values, or nested more than %d deep", maxNodes, maxDepth)
	}
	n := r.position()
	token, err := r.next()
	switch v := token.(type) {
	case json.Delim:
		if v == '{' {
			return n, r.object(n, depth)
		}
		return n, r.array(n, depth)
	case string:
		n.kind, n.scalar = text, v
	case json.Number:
		n.kind, n.scalar = number, v.String()
	case bool:
		n.kind, n.scalar = boolean, strconv.FormatBool(v)
	}
	return n, err
}

func (r *jsonReader) array(n *Node, depth int) error {
	n.kind = list
	for r.tokens.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, err := r.next()
	return err
}

func (r *jsonReader) object(n *Node, depth int) error {
	n.kind = mapping
	for r.tokens.More() {
		at := r.position()
		key, err := r.next()
		if err != nil {
			return err
		}
		value, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		value.line, value.column = at.line, at.column
		n.entries = append(n.entries, entry{unique.Make(key.(string)).Value(), value}) // a key may be there a million times
	}
	_, err := r.next()
	return err
}
