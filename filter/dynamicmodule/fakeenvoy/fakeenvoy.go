// Package fakeenvoy is an Envoy for the tests of the module: it has the functions of the ABI that the module calls, and calls the
// module's hooks in Envoy's order. The tests of the module's C have it without Go.
package fakeenvoy

/*
#cgo CFLAGS: -O1 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter
#include <stdlib.h>
#include "fake_envoy.h"
*/
import "C"

import (
	"strings"
	"unsafe"
)

func with(s string, f func(*C.char)) {
	c := C.CString(s)
	defer C.free(unsafe.Pointer(c))
	f(c)
}

// Gauge sets one of Envoy's own gauges, and Remove removes it.
func Gauge(name string, value uint64) {
	with(name, func(c *C.char) { C.fe_gauge(c, C.uint64_t(value)) })
}
func Remove(name string) { with(name, func(c *C.char) { C.fe_remove_stat(c) }) }

// Reset takes all stats and all lines of the log away.
func Reset() { C.fe_reset() }

// Passes is how often all gauges were passed over.
func Passes() int { return int(C.fe_passes) }

// NextTick is the time to which the timer was set last, in milliseconds.
func NextTick() int { return int(C.fe_timer_ms) }

// Log are the lines of Envoy's log, each with its level before it.
func Log() string {
	c := C.fe_log()
	defer C.free(unsafe.Pointer(c))
	return C.GoString(c)
}

// Load loads the module, and returns whether it can run in this Envoy.
func Load() bool { return bool(C.fe_load()) }

// Bootstrap makes a bootstrap extension, and says whether the module took it.
func Bootstrap(config string) (ok bool) {
	with(config, func(c *C.char) { ok = bool(C.fe_bootstrap(c)) })
	return ok
}

// StopBootstrap ends the bootstrap extension.
func StopBootstrap() { C.fe_stop_bootstrap() }

// ServerInitialized and TimerFires are Envoy's main thread. TimerFires returns when the timer is to fire next, in milliseconds.
func ServerInitialized() { C.fe_server_initialized() }
func TimerFires() int    { C.fe_timer_fires(); return int(C.fe_timer_ms) }

// Cluster tells that Envoy has added a cluster, or removed it.
func Cluster(name string, removed bool) {
	with(name, func(c *C.char) { C.fe_cluster(c, C.bool(removed)) })
}

// Filter is a filter's configuration.
type Filter struct{ c *C.fe_filter }

// NewFilter returns nil where the module refuses.
func NewFilter(config string) (filter *Filter) {
	with(config, func(c *C.char) {
		if f := C.fe_filter_new(c, C.size_t(len(config))); f != nil {
			filter = &Filter{f}
		}
	})
	return filter
}

// Free ends the configuration, which has no streams any more.
func (f *Filter) Free() { C.fe_filter_free(f.c) }

// Metric is one of the module's own stats, the filter's or the bootstrap extension's; -1 if it is not defined.
func (f *Filter) Metric(name string) (value int64) {
	with(name, func(c *C.char) {
		if value = int64(C.fe_metric(f.c, c)); value < 0 {
			value = int64(C.fe_shared_metric(c))
		}
	})
	return value
}

// Route is a route's configuration.
type Route struct{ c unsafe.Pointer }

// NewRoute returns nil where the module refuses.
func NewRoute(config string) (route *Route) {
	with(config, func(c *C.char) {
		if r := C.fe_route_new(c, C.size_t(len(config))); r != nil {
			route = &Route{r}
		}
	})
	return route
}

// Free ends the route.
func (r *Route) Free() { C.fe_route_free(r.c) }

// Request is one request, and what it was answered.
type Request struct {
	Route                             *Route
	Method, Path, ContentType, Accept string // "" is none
	Body                              string

	Answered                               bool
	Status                                 int
	Details, Text, Headers, Data, Trailers string
}

// Ask makes a request and ends it.
func (f *Filter) Ask(r Request) Request {
	s := f.Open(r)
	defer s.Free()
	return s.Request()
}

// Stream is a request that is under way.
type Stream struct {
	c    *C.fe_stream
	kept []unsafe.Pointer
	asks Request
}

// Open makes a request, which ends, and keeps its stream.
func (f *Filter) Open(r Request) *Stream {
	s := &Stream{asks: r}
	text := func(s2 string) *C.char {
		if s2 == "" {
			return nil
		}
		c := C.CString(s2)
		s.kept = append(s.kept, unsafe.Pointer(c))
		return c
	}
	var route unsafe.Pointer
	if r.Route != nil {
		route = r.Route.c
	}
	s.c = C.fe_stream_new(f.c, route, text(r.Method), text(r.Path), text(r.ContentType), text(r.Accept))
	if C.fe_headers(s.c, C.bool(r.Body == "")); r.Body != "" {
		with(r.Body, func(c *C.char) { C.fe_body(s.c, c, C.size_t(len(r.Body)), true) })
	}
	return s
}

// Run runs what was scheduled for the stream.
func (s *Stream) Run() { C.fe_run(s.c) }

// Request is what was asked, and what has been answered so far.
func (s *Stream) Request() Request {
	r := s.asks
	r.Answered = s.c.replies > 0
	r.Status = int(s.c.status)
	r.Details, r.Text = C.GoString(&s.c.details[0]), C.GoString(&s.c.body[0])
	r.Headers, r.Trailers = C.GoString(&s.c.headers[0]), C.GoString(&s.c.trailers[0])
	r.Data = C.GoStringN(&s.c.data[0], C.int(s.c.data_length))
	return r
}

// Free ends the stream.
func (s *Stream) Free() {
	C.fe_stream_free(s.c)
	for _, p := range s.kept {
		C.free(p)
	}
}

// Lines are the lines of the log that have a text.
func Lines(with string) (lines []string) {
	for line := range strings.Lines(Log()) {
		if strings.Contains(line, with) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// ServiceDegradesAfter has the one host of the cluster service go from healthy to degraded while the next pass is under way, once the
// pass has read a gauge.
func ServiceDegradesAfter(read string) {
	C.fe_after(C.CString(read), (*[0]byte)(C.fe_service_degrades))
}
