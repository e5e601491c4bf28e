package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"math"
	"runtime/cgo"
	"slices"
	"strconv"
	"sync"
	"time"

	"healthgate/filter/config"
	gates "healthgate/filter/gate"
	"healthgate/filter/lifecycle"
	"healthgate/filter/policy"
)

// gate is one gate, with its replies in C.
type gate struct {
	c             *C.hg_gate // holds one reference
	configuration *lifecycle.Configuration
	core          *gates.Gate
	reader        *reader
	handle        cgo.Handle

	// Guarded by module.mutex.
	filter       *configuration // nil before the first stream
	override     *override      // nil if the gate is the filter's own
	warnings     []dueWarning
	supersededBy uint64 // the serial of the configuration or override that has replaced its own, 0 if none has

	mutex     sync.Mutex
	replies   map[*gates.Reply]*C.hg_reply
	published *C.hg_reply // nil before the first evaluation
	pass      uint64      // the last pass before the last evaluation
	ended     bool
}

type dueWarning struct {
	at    time.Time
	check func()
}

// newGate creates a gate, which publishes its first reply at its first probe.
func newGate(c *lifecycle.Configuration, core *gates.Gate, r *reader) *gate {
	g := &gate{c: C.hg_gate_create(), configuration: c, core: core, reader: r, replies: make(map[*gates.Reply]*C.hg_reply)}
	g.handle = cgo.NewHandle(g)
	g.c.handle = C.uintptr_t(g.handle)
	g.addPaths(c.Paths())
	g.c.details = C.bool(c.Config().Details)
	g.c.age_limit = C.int64_t(ageLimit(c.Config()))
	g.c.stale = g.reply(core.FailingReply(policy.Stale))
	g.c.error = g.reply(core.FailingReply(policy.Error))
	if len(c.Config().GRPCServices) > 0 {
		g.answerCalls(c.Config())
	}
	for _, warning := range core.Warnings() {
		g.warnings = append(g.warnings, dueWarning{r.Now().Add(warning.After), warning.Check})
	}
	return g
}

// ageLimit returns how old a sample may be, and how long the main thread may hang.
func ageLimit(c *config.Config) time.Duration {
	if c.StaleAfter > 0 {
		return c.StaleAfter
	}
	return defaultAgeLimit
}

// newBrokenGate returns a gate that fails each probe of a broken configuration. The filter's own gate counts its replies.
func newBrokenGate(paths []string, filter *gates.Gate) *gate {
	g := &gate{c: C.hg_gate_create(), core: filter, replies: make(map[*gates.Reply]*C.hg_reply)}
	g.failAlways(paths, g.reply(filter.FailingReply(policy.Error)))
	return g
}

// newErrorGate returns a gate that fails each probe without counting it.
func newErrorGate(paths []string) *gate {
	g := &gate{c: C.hg_gate_create()}
	reply := newReply(gates.FailClosed())
	C.hg_gate_add_reply(g.c, reply)
	g.failAlways(paths, reply)
	return g
}

func (g *gate) addPaths(paths []string) {
	for _, path := range paths {
		C.hg_list_add(&g.c.paths, text(path))
	}
}

func (g *gate) failAlways(paths []string, reply *C.hg_reply) {
	g.addPaths(paths)
	g.c.age_limit = math.MaxInt64
	g.c.error, g.c.stale = reply, reply
	C.hg_gate_publish(g.c, reply)
}

// answerCalls makes the gate answer grpc.health.v1.Health.
func (g *gate) answerCalls(c *config.Config) {
	services := c.GRPCServices
	g.c.config_hash = C.uint64_t(configHash(c))
	g.c.watchers_max = C.size_t(c.GRPCMaxWatchers)
	for i, status := range []uint64{notServing, serving} {
		g.c.list_responses[i] = C.hg_copy(text(listResponse(services, status)))
	}
	for _, service := range services {
		C.hg_list_add(&g.c.services, text(service))
	}
	checks, watches, watchers := grpcMetricNames(c.StatPrefix)
	g.c.checks, g.c.watches = g.reader.metric(checks, false).c, g.reader.metric(watches, false).c
	g.c.watchers = g.reader.metric(watchers, true).c
}

// release drops Go's reference to the gate. Streams that still have it get the last published reply.
func (g *gate) release() {
	g.mutex.Lock()
	if g.ended = true; g.published == nil {
		C.hg_gate_publish(g.c, g.c.error)
	}
	g.mutex.Unlock()
	g.handle.Delete()
	C.hg_gate_unref(g.c)
}

// reply returns r as a reply in C, always the same one for the same r.
func (g *gate) reply(r *gates.Reply) *C.hg_reply {
	reply := g.replies[r]
	if reply == nil {
		reply = g.newReply(r)
		C.hg_gate_add_reply(g.c, reply)
		g.replies[r] = reply
	}
	return reply
}

func (g *gate) newReply(r *gates.Reply) *C.hg_reply {
	reply := newReply(r)
	all, byReason := g.core.Counters(r)
	reply.counters[0] = all.(*metric).c
	if byReason != nil {
		reply.counters[1] = byReason.(*metric).c
	}
	return reply
}

func newReply(r *gates.Reply) *C.hg_reply {
	reply := C.hg_reply_create(C.uint32_t(r.Status), C.bool(r.Verdict.Passing), text(r.Body), text(r.Details))
	for key, values := range r.Headers {
		for _, value := range values {
			C.hg_reply_add_header(reply, text(key), text(value))
		}
	}
	return reply
}

// evaluate evaluates the gate with the samples of a pass, or with newer ones, and publishes its reply. It reports whether the verdict has
// changed.
func (g *gate) evaluate(pass uint64) (changed bool) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.ended {
		return false
	}
	before := g.published
	g.published, g.pass = g.currentReply(), pass
	C.hg_gate_publish(g.c, g.published)
	return before != nil && before.passing != g.published.passing
}

// currentReply fails closed: after a panic it returns the reply for an error.
func (g *gate) currentReply() (reply *C.hg_reply) {
	defer func() {
		if cause := recover(); cause != nil {
			g.logPanic("in an evaluation, answered with "+strconv.Itoa(int(g.c.error.status)), cause)
			reply = (*C.hg_reply)(g.c.error)
		}
	}()
	return g.reply(g.core.Evaluate())
}

func (g *gate) logPanic(where string, cause any) { g.reader.process.LogPanic(g.reader, where, cause) }

// isOutdated reports whether the published reply may no longer be right.
func (g *gate) isOutdated() bool {
	g.mutex.Lock()
	pass := g.pass
	g.mutex.Unlock()
	return g.reader.changedSince(pass) || g.core.DependsOnTime()
}

func (g *gate) publishedReply() *C.hg_reply {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.published
}

// checkWarnings runs the checks that are due.
func (g *gate) checkWarnings(now time.Time) {
	g.warnings = slices.DeleteFunc(g.warnings, func(w dueWarning) bool {
		if now.Before(w.at) {
			return false
		}
		defer func() {
			if cause := recover(); cause != nil {
				g.logPanic("in a warning", cause)
			}
		}()
		w.check()
		return true
	})
}

// nextWarning returns when the next warning is due, zero if none is.
func (g *gate) nextWarning() (next time.Time) {
	for _, w := range g.warnings {
		if next.IsZero() || w.at.Before(next) {
			next = w.at
		}
	}
	return next
}

// report returns a reply with a report, for one probe.
func (g *gate) report() *C.hg_reply {
	g.core.Activate()
	reply := g.newReply(g.core.EvaluateAndReport())
	reply.single_use = true
	return reply
}
