package suite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"healthgate/e2e/testbed"
)

// wire is a connection of HTTP/2 on which anything can be sent.
type wire struct {
	net.Conn
	*http2.Framer
	header  bytes.Buffer
	encoder *hpack.Encoder
}

func (s *site) dialWire() *wire {
	s.t.Helper()
	conn := s.dialTLS(s.t.Context(), "h2")
	w := &wire{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.encoder = hpack.NewEncoder(&w.header)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(w.WriteSettings(), conn.SetDeadline(time.Now().Add(3*settle))); err != nil {
		s.t.Fatal(err)
	}
	return w
}

// fields sends a block of headers, or of trailers. What can't be sent any more shows in what is heard.
func (w *wire) fields(stream uint32, end bool, fields ...string) {
	w.header.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = w.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.header.Bytes(), EndHeaders: true, EndStream: end})
}

// call begins a call of the health service.
func (w *wire) call(stream uint32, method, contentType string, more ...string) {
	fields := []string{":method", "POST", ":scheme", "https", ":path", "/grpc.health.v1.Health/" + method, ":authority", "localhost", "te", "trailers"}
	if contentType != "" {
		fields = append(fields, "content-type", contentType)
	}
	w.fields(stream, false, append(fields, more...)...)
}

func (w *wire) data(stream uint32, end bool, bytes string) {
	_ = w.WriteData(stream, end, []byte(bytes))
}

// raw sends a frame as it is said to be, whatever it holds.
func (w *wire) raw(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) {
	_ = w.WriteRawFrame(kind, flags, stream, []byte(payload))
}

// heard is how a stream has ended: its gRPC status, "http" and its status where it has none, "reset", or "closed" with the whole
// connection.
func (w *wire) heard(stream uint32) string {
	status := ""
	for {
		frame, err := w.ReadFrame()
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				return "nothing"
			}
			return "closed"
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = w.WriteSettingsAck()
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "closed"
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream && f.ErrCode != http2.ErrCodeNo { // after an answer that is whole
				return "reset"
			}
		case *http2.DataFrame:
			if f.StreamID == stream && f.StreamEnded() {
				return status
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream {
				continue
			}
			for _, field := range f.Fields {
				switch {
				case field.Name == "grpc-status":
					status = field.Value
				case field.Name == ":status" && field.Value != "200":
					status = "http " + field.Value
				}
			}
			if f.StreamEnded() {
				return status
			}
		}
	}
}

const whole = "\x00\x00\x00\x00\x00" // a message that asks for all

// abuse is what is sent on a stream, and what may be heard then: "any" is whatever Envoy makes of it.
type abuse struct {
	send func(w *wire, stream uint32)
	want string
}

// check sends a Check with a body, in pieces of a size.
func check(body string, piece int) func(*wire, uint32) {
	return func(w *wire, stream uint32) {
		w.call(stream, "Check", "application/grpc")
		for at := 0; at < len(body); at += piece {
			w.data(stream, false, body[at:min(at+piece, len(body))])
		}
		w.data(stream, true, "")
	}
}

// typed sends a Check that says another content type, or none.
func typed(contentType string) func(*wire, uint32) {
	return func(w *wire, stream uint32) {
		w.call(stream, "Check", contentType)
		w.data(stream, true, whole)
	}
}

// begun begins a call with some of its body, and then does something else.
func begun(method, body string, then func(w *wire, stream uint32)) func(*wire, uint32) {
	return func(w *wire, stream uint32) {
		w.call(stream, method, "application/grpc")
		w.data(stream, false, body)
		then(w, stream)
	}
}

func reset(w *wire, stream uint32) {
	_ = w.WriteRSTStream(stream, http2.ErrCodeCancel)
	w.call(stream+2, "Check", "application/grpc") // which shows that it was read
	w.data(stream+2, true, whole)
}

func trailers(w *wire, stream uint32) { w.fields(stream, true, "x-trailer", "1") }

const (
	known   = "\x00\x00\x00\x00\x0f\x0a\x0drouter.Router"
	fourGiB = "\x00\xff\xff\xff\xff"
	tooLong = fourGiB + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
)

// messages are those whose frames are as they should be.
var messages = map[string]abuse{
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
	"neither compressed nor":   {check("\x07\x00\x00\x00\x00", 5), "3"},
	"compressed":               {check("\x01\x00\x00\x00\x00", 5), "12"},
	"compressed, of 4 GiB":     {check("\x01\xff\xff\xff\xff", 5), "12"},
	"4 GiB":                    {check(fourGiB, 5), "3"},
	"4 GiB, a byte a frame":    {check(tooLong, 1), "3"},
	"4 GiB, and a lot of them": {check(fourGiB+strings.Repeat("x", 60_000), 16_000), "3"},
	"60 kB of unknown fields":  {check("\x00\x00\x00\xea\x73\x12\xe0\xd4\x03"+strings.Repeat("u", 60_000)+known[5:], 16_000), "0"},
	"groups":                   {check("\x00\x00\x00\x00\x15\x13\x1b\x08\x01\x1c\x14"+known[5:], 3), "0"},
	"a name that is no UTF-8":  {check("\x00\x00\x00\x00\x03\x0a\x01\xff", 3), "3"},
	"a name of 3 kB":           {check("\x00\x00\x00\x0b\xbb\x0a\xb8\x17"+strings.Repeat("n", 3000), 1000), "3"},
	"another method":           {begun("Other", whole, func(w *wire, s uint32) { w.data(s, true, "") }), "12"},
	"trailers last":            {begun("Check", known, trailers), "0"},
	"trailers, half a message": {begun("Check", known[:9], trailers), "3"},
	"trailers first":           {func(w *wire, s uint32) { w.call(s, "Check", "application/grpc"); trailers(w, s) }, "3"},
	"application/grpc+proto":   {typed("application/grpc+proto"), "0"},
	// The route's own answer, since the gate takes it for no call.
	"text/plain":           {typed("text/plain"), "http 503"},
	"application/grpc-web": {typed("application/grpc-web"), "http 503"},
	"application/grpcx":    {typed("application/grpcx"), "http 503"},
	"application/json":     {typed("application/json"), "http 503"},
	"no type":              {typed(""), "http 503"},
}

// frames are those that HTTP/2 forbids, or a client that goes.
var frames = map[string]abuse{
	"reset in the prefix":       {begun("Check", whole[:2], reset), "next 0"},
	"reset in the message":      {begun("Check", known[:12], reset), "next 0"},
	"reset in 4 GiB":            {begun("Check", tooLong, reset), "next 0"},
	"reset of a Watch":          {begun("Watch", known, func(w *wire, s uint32) { w.data(s, true, ""); reset(w, s) }), "next 0"},
	"an unknown frame":          {begun("Check", whole[:2], func(w *wire, s uint32) { w.raw(0xfa, 0xff, s, "garbage"); w.data(s, true, whole[2:]) }), "0"},
	"DATA of no stream":         {begun("Check", whole, func(w *wire, _ uint32) { w.raw(http2.FrameData, 0, 0, "garbage") }), "closed"},
	"DATA of a stream to come":  {begun("Check", whole, func(w *wire, s uint32) { w.raw(http2.FrameData, 0, s+20, "garbage") }), "closed"},
	"more padding than DATA":    {begun("Check", whole, func(w *wire, s uint32) { w.raw(http2.FrameData, http2.FlagDataPadded, s, "\xff\x00") }), "closed"},
	"SETTINGS of 3 bytes":       {begun("Check", whole, func(w *wire, _ uint32) { w.raw(http2.FrameSettings, 0, 0, "abc") }), "closed"},
	"WINDOW_UPDATE of 0":        {begun("Check", whole, func(w *wire, s uint32) { w.raw(http2.FrameWindowUpdate, 0, s, "\x00\x00\x00\x00") }), "any"},
	"HEADERS that are no HPACK": {begun("Check", whole, func(w *wire, s uint32) { w.raw(http2.FrameHeaders, 5, s+2, "\xff\xff\xff\xff\xff\xff") }), "closed"},
	"DATA after the end":        {begun("Check", whole, func(w *wire, s uint32) { w.data(s, true, ""); w.raw(http2.FrameData, 0, s, "more") }), "any"},
	"a length that is another": {func(w *wire, s uint32) {
		w.call(s, "Check", "application/grpc", "content-length", "3")
		w.data(s, true, whole)
	}, "any"},
	"HEADERS in the middle":       {begun("Check", whole, func(w *wire, s uint32) { w.fields(s, false, ":method", "GET") }), "any"},
	"a frame of 16 MiB, not sent": {begun("Check", whole, func(w *wire, s uint32) { w.frameOf16MiB(s) }), "closed"},
}

func (w *wire) frameOf16MiB(stream uint32) {
	header := append([]byte{0xff, 0xff, 0xff, byte(http2.FrameData), 0}, binary.BigEndian.AppendUint32(nil, stream)...)
	_, _ = w.Write(append(header, "garbage"...))
}

// bear sends one kind of abuse, and returns what is heard.
func (s *site) bear(a abuse) string {
	w := s.dialWire()
	defer w.Close()
	a.send(w, 1)
	if a.want == "next 0" { // nothing is said on the stream that the client has left
		return "next " + w.heard(3)
	}
	return w.heard(1)
}

// random sends frames of which some are garbage, in the middle of calls, and goes.
func (s *site) random(r *rand.Rand) {
	w := s.dialWire()
	defer w.Close()
	for stream := uint32(1); stream < 20; stream += 2 {
		w.call(stream, []string{"Check", "Watch", "List"}[r.IntN(3)], []string{"application/grpc", "application/grpc+x", "text/plain"}[r.IntN(3)])
		for range r.IntN(6) {
			junk := make([]byte, r.IntN(40))
			for i := range junk {
				junk[i] = byte(r.Uint32() >> (8 * r.IntN(4))) // zeros among it
			}
			if len(junk) > 5 && r.IntN(2) == 0 {
				copy(junk, []byte{0, 0, 0, 0, byte(len(junk) - 5)})
			}
			w.data(stream, r.IntN(4) == 0, string(junk))
		}
		switch r.IntN(4) {
		case 0:
			trailers(w, stream)
		case 1:
			_ = w.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
	}
	if r.IntN(2) == 0 {
		w.raw(http2.FrameType(r.IntN(12)), http2.Flags(r.Uint32()), uint32(r.IntN(30)), "garbage")
	}
	// What is answered is read, or not.
	if r.IntN(2) == 0 {
		_ = w.SetDeadline(time.Now().Add(time.Duration(r.IntN(20)) * time.Millisecond))
		w.heard(0)
	}
}

// Garbage on the wire is answered by the rule, or has a clean end; Envoy lives, and nothing of it stays.
func TestGarbageIsAnsweredByTheRule(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs a configuration of its own")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	s.stats("healthgate.") // after a look
	for _, kind := range []map[string]abuse{messages, frames} {
		for name, a := range kind {
			if got := s.bear(a); got != a.want && (a.want != "any" || got == "nothing") {
				t.Errorf("%s: got %q, want %q", name, got, a.want)
			}
		}
	}
	s.mustBeUnharmed()
}

// mustBeUnharmed fails unless a Check is answered, and nothing is left of any call.
func (s *site) mustBeUnharmed() {
	s.t.Helper()
	if !s.envoy.Alive() {
		s.t.Fatal("envoy has ended")
	}
	if reply, err := s.health().Check(s.t.Context(), asked("")); err != nil || reply.Status != serving {
		s.t.Errorf("a Check afterwards: got %v, %v", reply.GetStatus(), err)
	}
	s.awaitStat("healthgate.default.grpc_watchers", 0)
	s.awaitStat("http.ingress.downstream_rq_active", 0)
}

func TestRandomGarbageHarmsNothing(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs a configuration of its own")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	warmUp, connections := times(50, 1000), times(150, 10_000)
	var before float64
	for i := range warmUp + connections {
		if i == warmUp {
			before = s.residentMiB()
		}
		s.random(r)
	}
	s.mustBeUnharmed()
	s.await(settle, func() error {
		if after := s.residentMiB(); after > before+16 {
			return fmt.Errorf("envoy has grown by %.1f MiB in %d connections", after-before, connections)
		}
		return nil
	})
	t.Logf("%d connections; %.1f MiB, then %.1f", connections, before, s.residentMiB())
}
