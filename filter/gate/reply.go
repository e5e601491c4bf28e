package gate

import (
	"healthgate/filter/config"
	"healthgate/filter/policy"
)

// Reply is the HTTP response to a probe. Replies are made once per configuration and shared by all its probes: treat them as immutable.
type Reply struct {
	Verdict policy.Verdict
	Status  int
	Body    string
	Headers map[string][]string
	// GRPCStatus replaces Status if the probe has a gRPC content type: 0 (OK) or 14 (UNAVAILABLE).
	GRPCStatus int64
	// Details are the response code details, which Envoy logs as %RESPONSE_CODE_DETAILS%: healthgate_ok and so on.
	Details string
}

// The codes of gRPC, https://grpc.github.io/grpc/core/md_doc_statuscodes.html.
const (
	grpcOK          = 0
	grpcUnavailable = 14
)

// replies holds all replies of a configuration, so that a probe allocates none.
type replies struct {
	failing  [policy.Reasons]Reply
	passing  [policy.Reasons]Reply // OK and Held only
	degraded Reply                 // OK only because of degraded hosts
}

func newReplies(c *config.Config) *replies {
	r := &replies{}
	for reason := range policy.Reasons {
		r.failing[reason] = newReply(c.Unhealthy, grpcUnavailable, policy.Verdict{Reason: reason})
		r.passing[reason] = newReply(c.Healthy, grpcOK, policy.Verdict{Reason: reason, Passing: true})
	}
	r.failing[policy.Draining].Headers["x-envoy-immediate-health-check-fail"] = []string{"true"}
	r.degraded = newReply(c.Healthy, grpcOK, policy.Verdict{Reason: policy.OK, Passing: true, Degraded: true})
	// Envoy's own filter sends the header empty; the golang extension drops an empty value.
	r.degraded.Headers["x-envoy-degraded"] = []string{"true"}
	return r
}

func newReply(response config.Response, grpcStatus int64, verdict policy.Verdict) Reply {
	r := Reply{
		Verdict:    verdict,
		Status:     response.Status,
		Body:       response.Body,
		Headers:    map[string][]string{"content-type": {"text/plain"}, "cache-control": {"no-store"}},
		GRPCStatus: grpcStatus,
		Details:    verdict.Reason.Details(),
	}
	if !config.HasBody(r.Status) {
		delete(r.Headers, "content-type")
	}
	return r
}

func (r *replies) of(v policy.Verdict) *Reply {
	switch {
	case v.Degraded:
		return &r.degraded
	case v.Passing:
		return &r.passing[v.Reason]
	}
	return &r.failing[v.Reason]
}

var failClosed = newReplies(&config.Config{Unhealthy: config.DefaultUnhealthy}).of(policy.Verdict{Reason: policy.Error})

// FailClosed returns the reply to probes of a configuration that has no gate.
func FailClosed() *Reply { return failClosed }
