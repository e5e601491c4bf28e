package adminsource

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Bounds on what is held of an answer while it is read. The answer itself may have any length.
const (
	maxValue = 64 << 10 // bytes of one string, number or host; Envoy writes some 750 for a host
	maxDepth = 64       // objects and lists inside each other
)

var (
	errTooLong = fmt.Errorf("a value in it has more than %d bytes", maxValue)
	errTooDeep = fmt.Errorf("it nests more than %d objects and lists", maxDepth)
)

// stream reads one JSON value piece by piece. After an error it is of no more use.
type stream struct{ decoder *json.Decoder }

func newStream(from io.Reader) stream {
	bounded := &boundedReader{from: from}
	s := stream{json.NewDecoder(bounded)}
	s.decoder.UseNumber() // a number that is passed over may have any size
	bounded.used = s.decoder.InputOffset
	return s
}

// boundedReader reads no more than maxValue bytes ahead of what its decoder has used: a decoder keeps all of a value that has
// not ended.
type boundedReader struct {
	from io.Reader
	read int64
	used func() int64 // bytes
}

func (b *boundedReader) Read(p []byte) (int, error) {
	left := b.used() + maxValue - b.read
	if left <= 0 {
		return 0, errTooLong
	}
	n, err := b.from.Read(p[:min(int64(len(p)), left)])
	b.read += int64(n)
	return n, err
}

// object reads an object, and has value read the value of each of its fields.
func (s stream) object(value func(field string) error) error {
	if err := s.delimiter('{'); err != nil {
		return err
	}
	for s.decoder.More() {
		field, err := s.text()
		if err != nil {
			return err
		}
		if err := value(field); err != nil {
			return err
		}
	}
	return s.delimiter('}')
}

// list reads a list, and has element read each of its elements. null is an empty list, as in the JSON of Protobuf.
func (s stream) list(element func() error) error {
	switch start, err := s.token(); {
	case err != nil:
		return err
	case start == nil:
		return nil
	case start != json.Delim('['):
		return misplaced(start, "a list")
	}
	for s.decoder.More() {
		if err := element(); err != nil {
			return err
		}
	}
	return s.delimiter(']')
}

// text reads a string. null is the empty one, as in the JSON of Protobuf.
func (s stream) text() (string, error) {
	token, err := s.token()
	if err != nil || token == nil {
		return "", err
	}
	text, ok := token.(string)
	if !ok {
		return "", misplaced(token, "a string")
	}
	return text, nil
}

// value reads a whole value of at most maxValue bytes, as json.Unmarshal does.
func (s stream) value(into any) error { return inside(s.decoder.Decode(into)) }

// skip passes over a value of any length.
func (s stream) skip() error {
	for depth := 0; ; {
		token, err := s.token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		switch {
		case depth == 0:
			return nil
		case depth > maxDepth:
			return errTooDeep
		}
	}
}

// end fails unless the value was all there is.
func (s stream) end() error {
	switch token, err := s.decoder.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	default:
		return misplaced(token, "its end")
	}
}

func (s stream) delimiter(want json.Delim) error {
	token, err := s.token()
	if err == nil && token != want {
		err = misplaced(token, want.String())
	}
	return err
}

func (s stream) token() (json.Token, error) {
	token, err := s.decoder.Token()
	return token, inside(err)
}

// misplaced is the error of a token that is not what has to stand in its place. It goes into a log line.
func misplaced(token json.Token, want string) error {
	if token == nil {
		token = "null"
	}
	return fmt.Errorf("%.40q stands in the place of %s", fmt.Sprint(token), want)
}

// inside is an error on the way: before the end of the value, the end of the answer is one too.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
