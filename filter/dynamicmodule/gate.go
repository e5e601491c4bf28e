package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"encoding/binary"
	"runtime/cgo"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

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
	supersededBy uint64         // the serial of the configuration or override that has replaced its own, 0 if none has

	mutex     sync.Mutex
	replies   map[*gates.Reply]*C.hg_reply
	published *C.hg_reply // nil before the first evaluation
	pass      uint64      // the last pass before the last evaluation
	ended     bool
}

// newGate creates a gate, which publishes its first reply at its first probe.
func newGate(c *lifecycle.Configuration, core *gates.Gate, r *reader) *gate {
	g := &gate{c: newCGate(c.Paths()), configuration: c, core: core, reader: r, replies: make(map[*gates.Reply]*C.hg_reply)}
	g.handle = cgo.NewHandle(g)
	g.c.handle = C.uintptr_t(g.handle)
	g.c.details = C.bool(c.Config().Details)
	g.c.age_limit = C.int64_t(ageLimit(c.Config()))
	g.c.strict_age = C.bool(c.Config().StaleAfter > 0)
	g.c.stale = g.reply(core.FailingReply(policy.Stale))
	g.c.error = g.reply(core.FailingReply(policy.Error))
	if len(c.Config().GRPCServices) > 0 {
		g.answerCalls(c.Config())
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

// newFailingGate returns a gate that fails each probe. counting counts its replies; it may be nil.
func newFailingGate(paths []string, counting *gates.Gate) *C.hg_gate {
	failing := gates.FailClosed()
	if counting != nil {
		failing = counting.FailingReply(policy.Error)
	}
	g, reply := newCGate(paths), newReply(failing, counting)
	C.hg_gate_add_reply(g, reply)
	g.error = reply // never stale: a new gate has no age limit
	C.hg_gate_publish(g, reply)
	return g
}

func newCGate(paths []string) *C.hg_gate {
	g := C.hg_gate_create()
	for _, path := range paths {
		C.hg_list_add(&g.paths, text(path))
	}
	return g
}

// answerCalls makes the gate answer grpc.health.v1.Health.
func (g *gate) answerCalls(c *config.Config) {
	services := c.GRPCServices
	g.c.config_hash = C.uint64_t(max(hashOf(c.Digest()), 1))
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
		reply = newReply(r, g.core)
		C.hg_gate_add_reply(g.c, reply)
		g.replies[r] = reply
	}
	return reply
}

// newReply returns a reply in C, counted by a gate unless that is nil.
func newReply(r *gates.Reply, counting *gates.Gate) *C.hg_reply {
	reply := C.hg_reply_create(C.uint32_t(r.Status), C.bool(r.Verdict.Passing), text(r.Body), text(r.Details))
	for key, values := range r.Headers {
		for _, value := range values {
			C.hg_reply_add_header(reply, text(key), text(value))
		}
	}
	if counting == nil {
		return reply
	}
	all, byReason := counting.Counters(r)
	reply.counters[0] = all.(*metric).c
	if byReason != nil {
		reply.counters[1] = byReason.(*metric).c
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

func (g *gate) logPanic(where string, cause any) {
	g.reader.module.process.LogPanic(g.reader, where, cause)
}

// isOutdated reports whether the published reply may no longer be right.
func (g *gate) isOutdated() bool {
	g.mutex.Lock()
	pass := g.pass
	g.mutex.Unlock()
	return g.reader.changedSince(pass) || g.core.DependsOnTime()
}

// report returns a reply with a report, for one probe.
func (g *gate) report() *C.hg_reply {
	g.core.Activate()
	reply := newReply(g.core.EvaluateAndReport(), g.core)
	reply.single_use = true
	return reply
}

// The values of HealthCheckResponse.ServingStatus.
const (
	serving    = 1
	notServing = 2
)

// listResponse returns a framed HealthListResponse: every service with one status.
func listResponse(services []string, status uint64) string {
	response := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), status)
	var message []byte
	for _, service := range services {
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
		entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), response)
		message = protowire.AppendBytes(protowire.AppendTag(message, 1, protowire.BytesType), entry)
	}
	return string(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
}
