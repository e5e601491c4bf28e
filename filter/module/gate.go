package module

/*
#include "healthgate.h"
*/
import "C"

import (
	"runtime/cgo"
	"slices"
	"strconv"
	"sync"
	"time"

	"healthgate/filter"
	"healthgate/filter/serve"
)

// gate is one gate, and its replies as C has them.
type gate struct {
	c             *C.hg_gate // held
	configuration *serve.Configuration
	core          *filter.Gate
	host          *host
	handle        cgo.Handle
	warnings      []dueWarning // guarded by door.mutex

	mutex   sync.Mutex
	replies map[*filter.Reply]*C.hg_reply
	now     *C.hg_reply // what is published
}

// dueWarning is a warning, and when it is time for it.
type dueWarning struct {
	at    time.Time
	check func()
}

// newGate makes what C needs of a gate, and publishes its first reply.
func newGate(c *serve.Configuration, core *filter.Gate, h *host) *gate {
	g := &gate{c: C.hg_gate_new(), configuration: c, core: core, host: h, replies: make(map[*filter.Reply]*C.hg_reply)}
	g.handle = cgo.NewHandle(g)
	g.c.door = C.uintptr_t(g.handle)
	config := c.Config()
	g.setPaths(c.Paths())
	g.c.details = C.bool(config.Details)
	g.c.oldest = C.int64_t(oldest(config.StaleAfter))
	g.c.stale = g.reply(core.Unjudged(filter.Stale))
	g.c.error = g.reply(core.Unjudged(filter.Error))
	if len(config.GRPCServices) > 0 {
		g.serveGRPC(config)
	}
	for _, warning := range core.Warnings() {
		g.warnings = append(g.warnings, dueWarning{h.Now().Add(warning.After), warning.Check})
	}
	g.judge()
	return g
}

func (g *gate) setPaths(paths []string) {
	for _, path := range paths {
		C.hg_gate_path(g.c, text(path))
	}
}

func (g *gate) serveGRPC(config *filter.Config) {
	prefix, services := config.StatPrefix, config.GRPCServices
	g.c.content = C.uint64_t(contentOf(config))
	g.c.watchers_max = C.size_t(config.GRPCMaxWatchers)
	C.hg_gate_services(g.c, C.size_t(len(services)), text(string(list(services, notServing))), text(string(list(services, serving))))
	for i, service := range services {
		C.hg_gate_service(g.c, C.size_t(i), text(service))
	}
	counters := grpcCounters(prefix)
	g.c.checks = g.host.metric(counters[0], false).c
	g.c.watches = g.host.metric(counters[1], false).c
	g.c.watchers = g.host.metric(grpcGauge(prefix), true).c
}

// end lets go of what the gate has. Its streams still answer by it.
func (g *gate) end() {
	g.handle.Delete()
	C.hg_gate_release(g.c)
}

// reply returns a reply as C has it, made once.
func (g *gate) reply(r *filter.Reply) *C.hg_reply {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	made := g.replies[r]
	if made == nil {
		made = g.newReply(r)
		C.hg_gate_keep(g.c, made)
		g.replies[r] = made
	}
	return made
}

func (g *gate) newReply(r *filter.Reply) *C.hg_reply {
	made := newReply(r)
	all, byReason := g.core.Counters(r)
	made.counters[0] = all.(*metric).c
	if byReason != nil {
		made.counters[1] = byReason.(*metric).c
	}
	return made
}

func newReply(r *filter.Reply) *C.hg_reply {
	made := C.hg_reply_new(C.uint32_t(r.Status), C.bool(r.Verdict.Passing), text(r.Body), text(r.Details))
	for key, values := range r.Headers {
		for _, value := range values {
			C.hg_reply_header(made, text(key), text(value))
		}
	}
	return made
}

// judge looks at the gate's clusters, publishes the reply, and says whether the reply turned.
func (g *gate) judge() (turned bool) {
	before := g.now
	g.now = g.look()
	C.hg_gate_publish(g.c, g.now)
	return before != nil && before.passing != g.now.passing
}

// look is judge's, and fails closed where anything goes wrong.
func (g *gate) look() (made *C.hg_reply) {
	defer func() {
		if cause := recover(); cause != nil {
			g.host.door.process.LogPanic(g.host, "in a look at the clusters, answered with "+strconv.Itoa(int(g.c.error.status)), cause)
			made = (*C.hg_reply)(g.c.error)
		}
	}()
	return g.reply(g.core.Look())
}

// warn writes the warnings for which it is time.
func (g *gate) warn(now time.Time) {
	g.warnings = slices.DeleteFunc(g.warnings, func(w dueWarning) bool {
		if now.Before(w.at) {
			return false
		}
		defer func() {
			if cause := recover(); cause != nil {
				g.host.door.process.LogPanic(g.host, "in a warning", cause)
			}
		}()
		w.check()
		return true
	})
}

// due says whether it is time for a warning.
func (g *gate) due(now time.Time) bool {
	return slices.ContainsFunc(g.warnings, func(w dueWarning) bool { return !now.Before(w.at) })
}

// report is the reply with a report, for one probe.
func (g *gate) report() *C.hg_reply {
	made := g.newReply(g.core.LookAndReport())
	made.once = true
	return made
}
