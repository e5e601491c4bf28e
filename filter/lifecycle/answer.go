package lifecycle

import (
	"strings"

	"healthgate/filter/gate"
)

// IsProbe says whether a request is a probe of this configuration. contentType is needed of a POST alone.
func (c *Configuration) IsProbe(method, path, contentType string) bool {
	for _, probed := range c.paths {
		if gate.IsProbe(probed, method, path, contentType) {
			return true
		}
	}
	return false
}

// Reports says whether a client that accepts JSON is given a report.
func (c *Configuration) Reports() bool { return c.err == nil && c.config.Details }

// AcceptsJSON says whether an accept header asks for JSON by name; a client that takes anything gets text.
func AcceptsJSON(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "application/json", "application/health+json":
			return true
		}
	}
	return false
}

// Answer answers a probe, with a report where report says so and the configuration gives them. It may panic where Envoy
// does; Failure is the answer then.
func (c *Configuration) Answer(report bool) *gate.Reply {
	switch {
	case c.err != nil:
		c.tell()
		return c.Failure()
	case report && c.Reports():
		return c.started().Report()
	}
	return c.started().Answer()
}

// Failure is the answer that fails closed. It never panics, and is counted where it can be: by the gate of the
// configuration, or by the filter's own where it has none.
func (c *Configuration) Failure() (r *gate.Reply) {
	defer func() {
		if recover() != nil {
			r = gate.FailClosed()
		}
	}()
	for _, of := range []*Configuration{c, c.filters} {
		if gate := of.gate.Load(); gate != nil {
			return gate.Failure()
		}
	}
	return gate.FailClosed()
}

// tell logs, once, why a configuration that a probe is answered by can't be used.
func (c *Configuration) tell() {
	if c.told.CompareAndSwap(false, true) {
		c.host.Error("healthgate: a route's configuration can't be used, its probes are answered with 503: " + c.err.Error())
	}
}
