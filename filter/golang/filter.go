// Package golang is the variant into Envoy's golang extension (contrib/golang in Envoy v1.39.1). It decides nothing: it turns
// Envoy's callbacks into calls of the package serve, and answers into Envoy's.
package golang

import (
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"healthgate/filter/gate"
	"healthgate/filter/lifecycle"
)

// NewStream makes the filter of one stream; it is the factory that Envoy is given. It is called outside the recover of
// Envoy's SDK, where a panic would end Envoy, so it does nothing that can.
func NewStream(parsed any, callbacks api.FilterCallbackHandler) api.StreamFilter {
	s := &stream{callbacks: callbacks}
	if c, ok := parsed.(serving); ok {
		s.configuration = c.serving()
	}
	return s
}

// stream is one HTTP stream. Its methods run on the stream's worker thread.
type stream struct {
	api.PassThroughStreamFilter
	callbacks     api.FilterCallbackHandler
	configuration *lifecycle.Configuration // nil where Envoy gave none of this package's
	probe         bool                     // a probe whose end has not come yet
	report        bool                     // its client accepts a report
}

// DecodeHeaders answers a probe, or waits for its end: a client that is answered before it has finished sees its HTTP/2
// stream reset. Everything else goes on down the chain.
func (s *stream) DecodeHeaders(headers api.RequestHeaderMap, endStream bool) (status api.StatusType) {
	defer s.recoverTo(&status)
	if s.configuration == nil || !s.isProbe(headers) {
		return api.Continue
	}
	if s.configuration.Reports() {
		// The reply to a request that calls itself gRPC has a message, in a header, in the place of a body.
		s.report = lifecycle.AcceptsJSON(headers.GetRaw("accept")) && !gate.IsGRPC(headers.GetRaw("content-type"))
	}
	if !endStream {
		s.probe = true
		return api.StopAndBufferWatermark // in headers: wait, and call for each piece of the body
	}
	return s.answer()
}

// isProbe asks Envoy for as few headers as it can: each is a call.
func (s *stream) isProbe(headers api.RequestHeaderMap) bool {
	method, contentType := headers.GetRaw(":method"), ""
	if method == "POST" {
		contentType = headers.GetRaw("content-type")
	}
	return s.configuration.IsProbe(method, headers.GetRaw(":path"), contentType)
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

func (s *stream) answer() api.StatusType { return s.send(s.configuration.Answer(s.report)) }

func (s *stream) send(r *gate.Reply) api.StatusType {
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
	process.LogPanic(host{}, "in a probe, answered with 503", cause)
	*status = s.send(s.configuration.Failure())
}
