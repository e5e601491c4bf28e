package suite

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

// web is a gRPC-Web client.
type web struct {
	s      *site
	client *http.Client
	text   bool // base64
}

// call sends a request, and returns the gRPC status, from headers or trailers, and the message.
func (w web) call(path, body string) (grpcStatus, message string, header http.Header) {
	w.s.t.Helper()
	contentType := "application/grpc-web+proto"
	if w.text {
		contentType = "application/grpc-web-text"
		body = base64.StdEncoding.EncodeToString([]byte(body))
	}
	reply := w.s.mustDo(w.client, "POST", path, strings.NewReader(body), "content-type", contentType, "accept", contentType, "x-grpc-web", "1")
	if reply.status != 200 || !strings.HasPrefix(reply.header.Get("content-type"), "application/grpc-web") {
		w.s.t.Fatalf("%s: got %d %v", path, reply.status, reply.header)
	}
	if grpcStatus = reply.header.Get("grpc-status"); grpcStatus != "" { // headers alone
		if reply.body != "" {
			w.s.t.Errorf("%s: the body is %q", path, reply.body)
		}
		text, err := url.PathUnescape(reply.header.Get("grpc-message"))
		if err != nil {
			w.s.t.Error(err)
		}
		return grpcStatus, text, reply.header
	}
	frames := []byte(reply.body)
	if w.text {
		frames = nil
		for at := 0; at+4 <= len(reply.body); at += 4 { // each frame has its own padding
			part, err := base64.StdEncoding.DecodeString(reply.body[at : at+4])
			if err != nil {
				w.s.t.Fatalf("%s: %v", path, err)
			}
			frames = append(frames, part...)
		}
	}
	for len(frames) >= 5 {
		length := 5 + int(binary.BigEndian.Uint32(frames[1:]))
		switch frames[0] {
		case 0:
			message += string(frames[5:length])
		case 0x80:
			for line := range strings.Lines(string(frames[5:length])) {
				if value, found := strings.CutPrefix(line, "grpc-status:"); found {
					grpcStatus = strings.TrimSpace(value)
				}
			}
		}
		frames = frames[length:]
	}
	return grpcStatus, message, reply.header
}

// withGRPCWeb puts Envoy's grpc_web before the gate.
func withGRPCWeb() option {
	return withFilter(true,
		`{name: envoy.filters.http.grpc_web, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}}`)
}

// webCall is a gRPC-Web call and its expected answer. The message of an error is text, any other is protobuf.
type webCall struct{ path, body, status, message, details string }

// mustBeAnswered makes each call over each protocol, as bytes and as text.
func (s *site) mustBeAnswered(calls ...webCall) (header http.Header) {
	s.t.Helper()
	s.stats("healthgate.") // after a sample
	for _, protocol := range protocols {
		for _, text := range []bool{false, true} {
			client := web{s, s.client(protocol), text}
			for _, call := range calls {
				var status, message string
				if status, message, header = client.call(call.path, call.body); status != call.status || message != call.message {
					s.t.Errorf("%s, text %v: %s %q: got %s %q, want %s %q", protocol, text, call.path, call.body, status, message, call.status,
						call.message)
				}
			}
		}
	}
	for _, call := range calls {
		if call.details != "" {
			s.awaitLog(`"details":"`+call.details+`"`, settle)
		}
	}
	return header
}

// With grpc_web before the gate each answer keeps its status, and the access log has its details.
func TestAnswersKeepTheirStatusThroughGRPCWeb(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withConfig(func(c *testbed.Bootstrap) {
		c.SetGateKey("grpc_max_watchers", 1)
		c.SetGateKey("response", map[string]any{"unhealthy": map[string]any{"body": "50 % of\nthe hösts~"}})
		c.HCM().AccessLog[0].Filter = nil
	}), withGRPCWeb())
	s.setServing(1)
	s.newCrowd(1, s.dialGRPC()).await(serving, 1)
	const health = "/grpc.health.v1.Health/"
	s.mustBeAnswered(
		webCall{health + "Check", known, "0", "\x08\x01", ""},
		webCall{health + "Check", "\x00\x00\x00\x00\x03\x0a\x01x", "5", "unknown service", "healthgate_grpc_not_found"},
		webCall{health + "Check", known[:10], "3", "the request is not one whole message", "healthgate_grpc_invalid_argument"},
		webCall{health + "Other", known, "12", "unknown method of grpc.health.v1.Health", "healthgate_grpc_unimplemented"},
		webCall{health + "Watch", known, "8", "too many calls of Watch", "healthgate_grpc_resource_exhausted"},
		webCall{"/", whole, "0", "ok\n", "healthgate_ok"},
	)
	s.setServing(0)
	header := s.mustBeAnswered(
		webCall{health + "Check", known, "0", "\x08\x02", ""},
		webCall{"/", whole, "14", "50 % of\nthe hösts~", "healthgate_cluster_unhealthy"},
	)
	if header.Get("cache-control") != "no-store" {
		t.Errorf("the gate's headers are %v", header)
	}
	s.post("/healthcheck/fail")
	header = s.mustBeAnswered(webCall{"/", whole, "14", "50 % of\nthe hösts~", "healthgate_draining"})
	if header.Get("x-envoy-immediate-health-check-fail") != "true" {
		t.Errorf("the gate's headers while it drains are %v", header)
	}
}
