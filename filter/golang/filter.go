// Package golang connects the gate to Envoy's golang extension (contrib/golang in Envoy v1.39.1). It decides nothing: it
// turns Envoy's callbacks into calls of the package filter, and answers into Envoy's.
package golang

import (
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"healthgate/filter"
)

// NewStream makes the filter of one stream; it is the factory that Envoy is given. It is called outside the recover of
// Envoy's SDK, where a panic would end Envoy, so it does nothing that can.
func NewStream(parsed any, callbacks api.FilterCallbackHandler) api.StreamFilter {
	s := &stream{callbacks: callbacks}
	if c, ok := parsed.(*configuration); ok {
		s.responder = c.responder
	}
	return s
}

// responder is what a configuration does for a stream: a *filter.Gate, or where there is none for a route, broken.
type responder interface {
	IsProbe(method, path string) bool
	Answer() *filter.Reply
	Failure() *filter.Reply
	// Reports says whether a client that accepts JSON is given Report in the place of Answer.
	Reports() bool
	Report() *filter.Reply
}

// stream is one HTTP stream. Its methods run on the stream's worker thread.
type stream struct {
	api.PassThroughStreamFilter
	callbacks api.FilterCallbackHandler
	responder responder // nil where Envoy gave no configuration of this package's
	probe     bool      // a probe whose end has not come yet
	report    bool      // its client accepts a report
}

// DecodeHeaders answers a probe, or waits for its end: a client that is answered before it has finished sees its HTTP/2
// stream reset. Everything else goes on down the chain.
func (s *stream) DecodeHeaders(headers api.RequestHeaderMap, endStream bool) (status api.StatusType) {
	defer s.recoverTo(&status)
	if s.responder == nil || !s.responder.IsProbe(headers.GetRaw(":method"), headers.GetRaw(":path")) {
		return api.Continue
	}
	if s.responder.Reports() {
		s.report = acceptsJSON(headers.GetRaw("accept"))
	}
	if !endStream {
		s.probe = true
		return api.StopAndBufferWatermark // in headers: wait, and call for each piece of the body
	}
	return s.answer()
}

// DecodeData throws a probe's body away.
func (s *stream) DecodeData(_ api.BufferInstance, endStream bool) (status api.StatusType) {
	defer s.recoverTo(&status)
	switch {
	case !s.probe:
		return api.Continue
	case !endStream:
		return api.StopNoBuffer
	}
	return s.answer()
}

// DecodeTrailers answers a probe that ends with trailers.
func (s *stream) DecodeTrailers(api.RequestTrailerMap) (status api.StatusType) {
	defer s.recoverTo(&status)
	if !s.probe {
		return api.Continue
	}
	return s.answer()
}

func (s *stream) answer() api.StatusType {
	if s.report {
		return s.send(s.responder.Report())
	}
	return s.send(s.responder.Answer())
}

// acceptsJSON says whether an accept header asks for JSON by name; a client that takes anything gets text.
func acceptsJSON(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "application/json", "application/health+json":
			return true
		}
	}
	return false
}

func (s *stream) send(r *filter.Reply) api.StatusType {
	s.callbacks.DecoderFilterCallbacks().SendLocalReply(r.Status, r.Body, r.Headers, r.GRPCStatus, r.Details)
	return api.LocalReply
}

// recoverTo turns a panic into the reply that fails closed. A panic in that, such as Envoy's word that the client has
// gone, is left to the SDK.
func (s *stream) recoverTo(status *api.StatusType) {
	cause := recover()
	if cause == nil {
		return
	}
	logPanic(cause)
	*status = s.send(s.failure())
}

// logPanic writes a panic and its stack to Envoy's log, at most once a minute: a probe comes every second or so.
func logPanic(cause any) {
	now, last := time.Now().UnixNano(), lastPanic.Load()
	if last != 0 && now-last < int64(time.Minute) || !lastPanic.CompareAndSwap(last, now) {
		return
	}
	stack := strings.ReplaceAll(strings.TrimSpace(string(debug.Stack())), "\n", " | ") // one line, as all of Envoy's log
	api.LogErrorf("healthgate: panic, answered with 503: %v: %s", cause, stack)
}

var lastPanic atomic.Int64 // Unix time in nanoseconds of the last panic logged, 0 before

// failure is the responder's failure, or, where even counting it panics, that of no configuration.
func (s *stream) failure() (r *filter.Reply) {
	defer func() {
		if recover() != nil || r == nil {
			r = filter.FailClosed()
		}
	}()
	return s.responder.Failure()
}
