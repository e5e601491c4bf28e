package suite

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is an HTTP/2 connection on which a test can send any bytes.
type wire struct {
	net.Conn
	*http2.Framer
	header  bytes.Buffer
	encoder *hpack.Encoder
}

func (s *site) dialWire() (*wire, error) {
	conn, err := tls.Dial("tcp", s.envoy.Ingress, s.tlsConfig("h2"))
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.encoder = hpack.NewEncoder(&w.header)
	_, err = io.WriteString(conn, http2.ClientPreface)
	return w, errors.Join(err, w.WriteSettings(), conn.SetDeadline(time.Now().Add(3*settle)))
}

func (s *site) mustDialWire() *wire {
	s.t.Helper()
	w, err := s.dialWire()
	mustSucceed(s.t, err)
	return w
}

// fields sends headers or trailers. A failure to send shows in the answer.
func (w *wire) fields(stream uint32, end bool, fields ...string) {
	w.header.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = w.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.header.Bytes(), EndHeaders: true, EndStream: end})
}

// call begins a call of the health service.
func (w *wire) call(stream uint32, method, contentType string, more ...string) {
	fields := []string{
		":method", "POST", ":scheme", "https", ":path", "/grpc.health.v1.Health/" + method, ":authority", "localhost", "te", "trailers",
	}
	if contentType != "" {
		fields = append(fields, "content-type", contentType)
	}
	w.fields(stream, false, append(fields, more...)...)
}

func (w *wire) data(stream uint32, end bool, bytes string) {
	_ = w.WriteData(stream, end, []byte(bytes))
}

// raw sends a frame without any check.
func (w *wire) raw(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) {
	_ = w.WriteRawFrame(kind, flags, stream, []byte(payload))
}

// outcome returns how a stream has ended: its gRPC status, "http" and the HTTP status if it has none, "reset", or "closed" if the
// connection was closed.
func (w *wire) outcome(stream uint32) (status string) {
	for {
		frame, err := w.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "nothing"
		}
		if f, goAway := frame.(*http2.GoAwayFrame); err != nil || goAway && f.ErrCode != http2.ErrCodeNo {
			return "closed"
		}
		if frame.Header().StreamID != stream {
			continue
		}
		switch f := frame.(type) {
		case *http2.RSTStreamFrame:
			if f.ErrCode != http2.ErrCodeNo { // not after a whole answer
				return "reset"
			}
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				switch {
				case field.Name == "grpc-status":
					status = field.Value
				case field.Name == ":status" && field.Value != "200":
					status = "http " + field.Value
				}
			}
		}
		if frame.Header().Flags.Has(http2.FlagDataEndStream) { // the same bit as of HEADERS
			return status
		}
	}
}

const whole = "\x00\x00\x00\x00\x00" // a message that asks for the overall status

// misuse sends something wrong or unusual on stream 1. The expected answer is as from outcome, or "next" and the answer on stream 3 if
// stream 1 was reset, or "any" if it depends on Envoy.
type misuse struct {
	send func(w *wire)
	want string
}

// check sends a Check with its body in pieces of a size.
func check(body string, piece int) func(*wire) {
	return func(w *wire) {
		w.call(1, "Check", "application/grpc")
		for part := range slices.Chunk([]byte(body), piece) {
			w.data(1, false, string(part))
		}
		w.data(1, true, "")
	}
}

// typed sends a Check with another content type, or none, and with more headers.
func typed(contentType string, more ...string) func(*wire) {
	return func(w *wire) {
		w.call(1, "Check", contentType, more...)
		w.data(1, true, whole)
	}
}

// begun begins a call with a part of its body, and then does something else.
func begun(method, body string, then func(w *wire)) func(*wire) {
	return func(w *wire) {
		w.call(1, method, "application/grpc")
		w.data(1, false, body)
		then(w)
	}
}

// frame begins a Check, and then sends a frame without any check.
func frame(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) func(*wire) {
	return begun("Check", whole, func(w *wire) { w.raw(kind, flags, stream, payload) })
}

func end(w *wire) { w.data(1, true, "") }

func trailers(w *wire) { w.fields(1, true, "x-trailer", "1") }

// reset ends the stream, and makes another call, whose answer shows that the reset was read.
func reset(w *wire) {
	_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
	w.call(3, "Check", "application/grpc")
	w.data(3, true, whole)
}

const (
	known   = "\x00\x00\x00\x00\x0f\x0a\x0drouter.Router"
	fourGiB = "\x00\xff\xff\xff\xff"
	tooLong = fourGiB + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
)

// messages have correct frames.
var messages = map[string]misuse{
	"the whole":                {check(whole, 5), "0"},
	"a byte a frame":           {check(known, 1), "0"},
	"split in the prefix":      {check(known, 3), "0"},
	"split in the name":        {check(known, 12), "0"},
	"an unknown service":       {check("\x00\x00\x00\x00\x03\x0a\x01x", 1), "5"},
	"nothing":                  {check("", 1), "3"},
	"half a prefix":            {check("\x00\x00", 1), "3"},
	"half a message":           {check(known[:10], 4), "3"},
	"two messages":             {check(whole+whole, 7), "3"},
	"no protobuf":              {check("\x00\x00\x00\x00\x01\x07", 2), "3"},
	"an invalid flag":          {check("\x07\x00\x00\x00\x00", 5), "3"},
	"compressed":               {check("\x01\x00\x00\x00\x00", 5), "12"},
	"compressed, of 4 GiB":     {check("\x01\xff\xff\xff\xff", 5), "12"},
	"4 GiB":                    {check(fourGiB, 5), "3"},
	"4 GiB, a byte a frame":    {check(tooLong, 1), "3"},
	"4 GiB, and a lot of them": {check(fourGiB+strings.Repeat("x", 60_000), 16_000), "3"},
	"60 kB of unknown fields":  {check("\x00\x00\x00\xea\x73\x12\xe0\xd4\x03"+strings.Repeat("u", 60_000)+known[5:], 16_000), "0"},
	"groups":                   {check("\x00\x00\x00\x00\x15\x13\x1b\x08\x01\x1c\x14"+known[5:], 3), "0"},
	"a name that is no UTF-8":  {check("\x00\x00\x00\x00\x03\x0a\x01\xff", 3), "3"},
	"a name of 3 kB":           {check("\x00\x00\x00\x0b\xbb\x0a\xb8\x17"+strings.Repeat("n", 3000), 1000), "3"},
	"another method":           {begun("Other", whole, end), "12"},
	"trailers last":            {begun("Check", known, trailers), "0"},
	"trailers, half a message": {begun("Check", known[:9], trailers), "3"},
	"trailers first":           {func(w *wire) { w.call(1, "Check", "application/grpc"); trailers(w) }, "3"},
	"application/grpc+proto":   {typed("application/grpc+proto"), "0"},
	// Not a gRPC call, so the route itself answers.
	"text/plain":           {typed("text/plain"), "http 503"},
	"application/grpc-web": {typed("application/grpc-web"), "http 503"},
	"application/grpcx":    {typed("application/grpcx"), "http 503"},
	"application/json":     {typed("application/json"), "http 503"},
	"no type":              {typed(""), "http 503"},
}

// frames are forbidden by HTTP/2, or end the stream early.
var frames = map[string]misuse{
	"reset in the prefix":         {begun("Check", whole[:2], reset), "next 0"},
	"reset in the message":        {begun("Check", known[:12], reset), "next 0"},
	"reset in 4 GiB":              {begun("Check", tooLong, reset), "next 0"},
	"reset of a Watch":            {begun("Watch", known, func(w *wire) { end(w); reset(w) }), "next 0"},
	"an unknown frame":            {begun("Check", known[:8], func(w *wire) { w.raw(0xfa, 0xff, 1, "?"); w.data(1, true, known[8:]) }), "0"},
	"DATA on stream 0":            {frame(http2.FrameData, 0, 0, "garbage"), "closed"},
	"DATA on a future stream":     {frame(http2.FrameData, 0, 21, "garbage"), "closed"},
	"more padding than DATA":      {frame(http2.FrameData, http2.FlagDataPadded, 1, "\xff\x00"), "closed"},
	"SETTINGS of 3 bytes":         {frame(http2.FrameSettings, 0, 0, "abc"), "closed"},
	"WINDOW_UPDATE of 0":          {frame(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x00"), "any"},
	"HEADERS without HPACK":       {frame(http2.FrameHeaders, 5, 3, "\xff\xff\xff\xff\xff\xff"), "closed"},
	"HEADERS in the middle":       {begun("Check", whole, func(w *wire) { w.fields(1, false, ":method", "GET") }), "any"},
	"DATA after the end":          {begun("Check", whole, func(w *wire) { end(w); w.raw(http2.FrameData, 0, 1, "more") }), "any"},
	"a wrong content-length":      {typed("application/grpc", "content-length", "3"), "any"},
	"a frame of 16 MiB, not sent": {begun("Check", whole, func(w *wire) { _, _ = io.WriteString(w, frameOf16MiB) }), "closed"},
}

const frameOf16MiB = "\xff\xff\xff\x00\x00\x00\x00\x00\x01garbage" // DATA of stream 1

// send sends one kind of misuse on a new connection, and returns the answer.
func (s *site) send(a misuse) string {
	w := s.mustDialWire()
	defer w.Close()
	a.send(w)
	if a.want == "next 0" { // the reset stream gets no answer
		return "next " + w.outcome(3)
	}
	return w.outcome(1)
}

// random sends calls with garbage in them, and closes the connection.
func (s *site) random(r *rand.Rand) {
	w := s.mustDialWire()
	defer w.Close()
	for stream := uint32(1); stream < 20; stream += 2 {
		w.call(stream, []string{"Check", "Watch", "List"}[r.IntN(3)], []string{"application/grpc", "application/grpc+x", "text/plain"}[r.IntN(3)])
		for range r.IntN(6) {
			junk := make([]byte, r.IntN(40))
			for i := range junk {
				junk[i] = byte(r.Uint32())
			}
			if len(junk) > 5 && r.IntN(2) == 0 {
				copy(junk, []byte{0, 0, 0, 0, byte(len(junk) - 5)})
			}
			w.data(stream, r.IntN(4) == 0, string(junk))
		}
		switch r.IntN(4) {
		case 0:
			w.fields(stream, true, "x-trailer", "1")
		case 1:
			_ = w.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
	}
	if r.IntN(2) == 0 {
		w.raw(http2.FrameType(r.IntN(12)), http2.Flags(r.Uint32()), uint32(r.IntN(30)), "garbage")
	}
	// Sometimes the answers are read.
	if r.IntN(2) == 0 {
		_ = w.SetDeadline(time.Now().Add(time.Duration(r.IntN(20)) * time.Millisecond))
		w.outcome(99)
	}
}

// Garbage gets the documented gRPC status or ends the connection; Envoy keeps running, and no call stays open.
func TestGarbageGetsItsStatus(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t)
	for _, kind := range []map[string]misuse{messages, frames} {
		for name, a := range kind {
			if got := s.send(a); got != a.want && (a.want != "any" || got == "nothing") {
				t.Errorf("%s: got %q, want %q", name, got, a.want)
			}
		}
	}
	s.mustBeUnharmed()
}

// mustBeUnharmed fails unless a Check is answered and no call is open.
func (s *site) mustBeUnharmed() {
	s.t.Helper()
	if !s.envoy.Alive() {
		s.t.Fatal("envoy has ended")
	}
	mustCheck(s.t, "afterwards", s.health(), serving)
	s.awaitStat("healthgate.default.grpc_watchers", 0)
	s.awaitStat("http.ingress.downstream_rq_active", 0)
}

func TestRandomGarbageLeavesEnvoyIntact(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s.mustNotGrow(16, times(50, 1000), times(150, 10_000), func(int) { s.random(r) })
	s.mustBeUnharmed()
}
