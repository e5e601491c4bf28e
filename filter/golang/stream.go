package golang

import (
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"healthgate/filter/gate"
	"healthgate/filter/lifecycle"
)

// NewStream is the plugin's filter factory: it returns the filter of one stream. It must not panic: Envoy's SDK does not recover here.
func NewStream(parsed any, callbacks api.FilterCallbackHandler) api.StreamFilter {
	s := &stream{callbacks: callbacks}
	if c, ok := parsed.(hasConfiguration); ok {
		s.configuration = c.configuration()
	}
	return s
}

// stream is one HTTP stream. Its methods run on the stream's worker thread.
type stream struct {
	api.PassThroughStreamFilter
	callbacks     api.FilterCallbackHandler
	configuration *lifecycle.Configuration // nil if Envoy's is not of this package
	probe         bool                     // the request is a probe, and has not ended yet
	report        bool                     // the client accepts a report
}

// DecodeHeaders answers a probe once the request has ended: a client that gets its reply earlier sees its HTTP/2 stream reset. Every other
// request continues.
func (s *stream) DecodeHeaders(headers api.RequestHeaderMap, endStream bool) (status api.StatusType) {
	defer s.recoverTo(&status)
	if s.configuration == nil || !s.isProbe(headers) {
		return api.Continue
	}
	if s.configuration.HasReports() {
		// A gRPC reply has no body, but a message in a header.
		s.report = lifecycle.AcceptsJSON(headers.GetRaw("accept")) && !gate.IsGRPC(headers.GetRaw("content-type"))
	}
	if !endStream {
		s.probe = true
		return api.StopAndBufferWatermark // waits, and calls DecodeData with each part of the body
	}
	return s.answer()
}

// isProbe reads as few headers as it can: each is a call into Envoy.
func (s *stream) isProbe(headers api.RequestHeaderMap) bool {
	method, contentType := headers.GetRaw(":method"), ""
	if method == "POST" {
		contentType = headers.GetRaw("content-type")
	}
	return s.configuration.IsProbe(method, headers.GetRaw(":path"), contentType)
}

// DecodeData discards a probe's body.
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

// recoverTo turns a panic into the reply that fails closed. If that panics too, for example because the client has disconnected, the SDK
// recovers.
func (s *stream) recoverTo(status *api.StatusType) {
	cause := recover()
	if cause == nil {
		return
	}
	process.LogPanic(envoy{}, "in a probe, answered with 503", cause)
	*status = s.send(s.configuration.Failure())
}
