package lifecycle

import (
	"slices"
	"strings"

	"healthgate/filter/gate"
)

// IsProbe reports whether a request is a probe of this configuration. contentType is needed for POST only.
func (c *Configuration) IsProbe(method, path, contentType string) bool {
	return slices.ContainsFunc(c.paths, func(probed string) bool { return gate.IsProbe(probed, method, path, contentType) })
}

// HasReports reports whether clients that accept JSON get a report.
func (c *Configuration) HasReports() bool { return c.err == nil && c.config.Details }

// AcceptsJSON reports whether an accept header names JSON; a client that accepts anything gets text.
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

// Answer returns the reply to a probe, with a report if it is wanted and the configuration has reports. If a call into Envoy panics, Answer
// panics too, and the caller sends Failure instead.
func (c *Configuration) Answer(wantsReport bool) *gate.Reply {
	switch {
	case c.err != nil:
		c.logError()
		return c.Failure()
	case wantsReport && c.HasReports():
		return c.ensureGate().Report()
	}
	return c.ensureGate().Answer()
}

// Failure returns the reply that fails closed. It never panics. The configuration's gate counts it, or the filter's gate if the
// configuration has none.
func (c *Configuration) Failure() (reply *gate.Reply) {
	defer func() {
		if recover() != nil {
			reply = gate.FailClosed()
		}
	}()
	for _, counting := range []*Configuration{c, c.filter} {
		if g := counting.gate.Load(); g != nil {
			return g.Failure()
		}
	}
	return gate.FailClosed()
}
