package dynamicmodule

/*
#include "healthgate.h"
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

// gate is one gate, and its replies as C has them.
type gate struct {
	c             *C.hg_gate // referenced
	configuration *lifecycle.Configuration
	filter        *configuration // that the gate is of, and the route override; both guarded by module.mutex
	override      *override      // nil if the gate is the filter's own
	core          *gates.Gate
	reader        *reader
	handle        cgo.Handle
	warnings      []dueWarning // guarded by module.mutex
	supersededBy  uint64       // the serial of what has replaced its configuration, 0 if nothing has; guarded by module.mutex

	mutex     sync.Mutex
	replies   map[*gates.Reply]*C.hg_reply
	published *C.hg_reply // nil before the first evaluation
	pass      uint64      // that the last evaluation was after
	ended     bool
}

// dueWarning is a warning and its time.
type dueWarning struct {
	at    time.Time
	check func()
}

// newGate makes what C needs of a gate. Its first reply is published at its first probe.
func newGate(c *lifecycle.Configuration, core *gates.Gate, r *reader) *gate {
	g := &gate{c: C.hg_gate_create(), configuration: c, core: core, reader: r, replies: make(map[*gates.Reply]*C.hg_reply)}
	g.handle = cgo.NewHandle(g)
	g.c.handle = C.uintptr_t(g.handle)
	config := c.Config()
	g.setPaths(c.Paths())
	g.c.details = C.bool(config.Details)
	g.c.age_limit = C.int64_t(defaultAgeLimit)
	if config.StaleAfter > 0 {
		g.c.age_limit = C.int64_t(config.StaleAfter)
	}
	g.c.stale = g.reply(core.FailingReply(policy.Stale))
	g.c.error = g.reply(core.FailingReply(policy.Error))
	if len(config.GRPCServices) > 0 {
		g.serveGRPC(config)
	}
	for _, warning := range core.Warnings() {
		g.warnings = append(g.warnings, dueWarning{r.Now().Add(warning.After), warning.Check})
	}
	return g
}

func (g *gate) setPaths(paths []string) {
	for _, path := range paths {
		C.hg_gate_add_path(g.c, text(path))
	}
}

// failAlways makes the gate one that sends the same reply to all probes.
func (g *gate) failAlways(paths []string, reply *C.hg_reply) {
	g.setPaths(paths)
	g.c.age_limit = math.MaxInt64
	g.c.error, g.c.stale = reply, reply
	C.hg_gate_publish(g.c, reply)
}

func (g *gate) serveGRPC(config *config.Config) {
	prefix, services := config.StatPrefix, config.GRPCServices
	g.c.config_hash = C.uint64_t(contentOf(config))
	g.c.watchers_max = C.size_t(config.GRPCMaxWatchers)
	C.hg_gate_set_services(g.c, C.size_t(len(services)), text(string(list(services, notServing))), text(string(list(services, serving))))
	for i, service := range services {
		C.hg_gate_set_service(g.c, C.size_t(i), text(service))
	}
	counters := grpcCounters(prefix)
	g.c.checks = g.reader.metric(counters[0], false).c
	g.c.watches = g.reader.metric(counters[1], false).c
	g.c.watchers = g.reader.metric(grpcGauge(prefix), true).c
}

// end releases the gate. Its streams are still answered by what it has published.
func (g *gate) end() {
	g.mutex.Lock()
	if g.ended = true; g.published == nil {
		C.hg_gate_publish(g.c, g.c.error)
	}
	g.mutex.Unlock()
	g.handle.Delete()
	C.hg_gate_unref(g.c)
}

// reply returns a reply as C has it, made once.
func (g *gate) reply(r *gates.Reply) *C.hg_reply {
	made := g.replies[r]
	if made == nil {
		made = g.newReply(r)
		C.hg_gate_add_reply(g.c, made)
		g.replies[r] = made
	}
	return made
}

func (g *gate) newReply(r *gates.Reply) *C.hg_reply {
	made := newReply(r)
	all, byReason := g.core.Counters(r)
	made.counters[0] = all.(*metric).c
	if byReason != nil {
		made.counters[1] = byReason.(*metric).c
	}
	return made
}

func newReply(r *gates.Reply) *C.hg_reply {
	made := C.hg_reply_create(C.uint32_t(r.Status), C.bool(r.Verdict.Passing), text(r.Body), text(r.Details))
	for key, values := range r.Headers {
		for _, value := range values {
			C.hg_reply_add_header(made, text(key), text(value))
		}
	}
	return made
}

// evaluate evaluates the gate by the samples of a pass or newer ones, and publishes its reply. It reports whether the reply has changed
// between passing and failing.
func (g *gate) evaluate(pass uint64) (changed bool) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.ended {
		return false
	}
	before := g.published
	g.published, g.pass = g.newestReply(), pass
	C.hg_gate_publish(g.c, g.published)
	return before != nil && before.passing != g.published.passing
}

// newestReply fails closed if anything goes wrong.
func (g *gate) newestReply() (made *C.hg_reply) {
	defer func() {
		if cause := recover(); cause != nil {
			g.reader.module.process.LogPanic(g.reader, "in an evaluation, answered with "+strconv.Itoa(int(g.c.error.status)), cause)
			made = (*C.hg_reply)(g.c.error)
		}
	}()
	return g.reply(g.core.Evaluate())
}

// outdated reports whether the gate may have another reply than it has published.
func (g *gate) outdated() bool {
	g.mutex.Lock()
	pass := g.pass
	g.mutex.Unlock()
	return g.reader.changedSince(pass) || g.core.DependsOnTime()
}

// now is the reply that is published.
func (g *gate) now() *C.hg_reply {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.published
}

// warn writes the warnings that are due.
func (g *gate) warn(now time.Time) {
	g.warnings = slices.DeleteFunc(g.warnings, func(w dueWarning) bool {
		if now.Before(w.at) {
			return false
		}
		defer func() {
			if cause := recover(); cause != nil {
				g.reader.module.process.LogPanic(g.reader, "in a warning", cause)
			}
		}()
		w.check()
		return true
	})
}

// nextWarning is when the next warning is due, zero if none is.
func (g *gate) nextWarning() (next time.Time) {
	for _, w := range g.warnings {
		if next.IsZero() || w.at.Before(next) {
			next = w.at
		}
	}
	return next
}

// report is the reply with a report, for one probe.
func (g *gate) report() *C.hg_reply {
	g.core.Activate()
	made := g.newReply(g.core.EvaluateAndReport())
	made.single_use = true
	return made
}
