package filter

// Reply is what a probe is sent. Replies are made once a configuration and shared by all its probes: read them only.
type Reply struct {
	// Verdict is what it puts into words.
	Verdict Verdict
	Status  int
	Body    string
	Headers map[string][]string
	// GRPCStatus is sent instead of Status where the probe calls itself gRPC: 0 (OK) or 14 (UNAVAILABLE).
	GRPCStatus int64
	// Details is the response code details that Envoy logs as %RESPONSE_CODE_DETAILS%: healthgate_ok and so on.
	Details string
}

// The codes of gRPC, https://grpc.github.io/grpc/core/md_doc_statuscodes.html.
const (
	grpcOK          = 0
	grpcUnavailable = 14
)

// Details is the response code details of a reason, as Envoy logs them.
func (r Reason) Details() string { return "healthgate_" + r.String() }

// replies holds the finished replies of a configuration, so that a probe makes none.
type replies struct {
	failing  [reasons]Reply
	passing  [reasons]Reply // OK and Held alone
	degraded Reply          // for OK, thanks to degraded hosts alone
}

func newReplies(c *Config) *replies {
	r := &replies{}
	for reason := range reasons {
		r.failing[reason] = newReply(c.Unhealthy, grpcUnavailable, Verdict{Reason: reason})
		r.passing[reason] = newReply(c.Healthy, grpcOK, Verdict{Reason: reason, Passing: true})
	}
	r.failing[Draining].Headers["x-envoy-immediate-health-check-fail"] = []string{"true"}
	r.degraded = newReply(c.Healthy, grpcOK, Verdict{Reason: OK, Passing: true, Degraded: true})
	// Envoy's own filter sends the header empty; the host drops an empty value.
	r.degraded.Headers["x-envoy-degraded"] = []string{"true"}
	return r
}

func newReply(response Response, grpcStatus int64, verdict Verdict) Reply {
	r := Reply{
		Verdict:    verdict,
		Status:     response.Status,
		Body:       response.Body,
		Headers:    map[string][]string{"content-type": {"text/plain"}, "cache-control": {"no-store"}},
		GRPCStatus: grpcStatus,
		Details:    verdict.Reason.Details(),
	}
	if !hasBody(r.Status) {
		delete(r.Headers, "content-type")
	}
	return r
}

func (r *replies) of(v Verdict) *Reply {
	switch {
	case v.Degraded:
		return &r.degraded
	case v.Passing:
		return &r.passing[v.Reason]
	}
	return &r.failing[v.Reason]
}

var failClosed = newReplies(&Config{Unhealthy: defaultUnhealthy}).of(Verdict{Reason: Error})

// FailClosed is the reply where there is not even a gate to ask.
func FailClosed() *Reply { return failClosed }
