// Package fakeenvoy is an Envoy for tests of the dynamic module: it defines the ABI's functions that the module calls, and calls the
// module's hooks in Envoy's order. The tests of the C files use its C without Go.
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

// Gauge sets one of Envoy's own gauges.
func Gauge(name string, value uint64) {
	with(name, func(c *C.char) { C.fe_gauge(c, C.uint64_t(value)) })
}

// Remove removes one of Envoy's own gauges.
func Remove(name string) { with(name, func(c *C.char) { C.fe_remove_gauge(c) }) }

// Reset removes all gauges and all lines of the log.
func Reset() { C.fe_reset() }

// Passes returns how often all gauges were iterated.
func Passes() int { return int(C.fe_passes) }

// Log returns the lines of Envoy's log, each with its level before it.
func Log() string {
	c := C.fe_log()
	defer C.free(unsafe.Pointer(c))
	return C.GoString(c)
}

// Start loads the module and creates its bootstrap extension. It returns false if the module refuses.
func Start() (ok bool) {
	with("", func(c *C.char) { ok = C.fe_load() != nil && bool(C.fe_bootstrap(c)) })
	if ok {
		C.fe_server_initialized()
	}
	return ok
}

// TimerFires calls the hook of the bootstrap extension's timer.
func TimerFires() { C.fe_timer_fires() }

// Cluster reports that Envoy has added a cluster, or removed it.
func Cluster(name string, removed bool) {
	with(name, func(c *C.char) { C.fe_cluster(c, C.bool(removed)) })
}

// Filter is a filter's configuration.
type Filter struct{ c *C.fe_filter }

// NewFilter returns nil if the module refuses.
func NewFilter(config string) (filter *Filter) {
	with(config, func(c *C.char) {
		if f := C.fe_filter_new(c, C.size_t(len(config))); f != nil {
			filter = &Filter{f}
		}
	})
	return filter
}

// Free destroys the configuration. Its streams must have ended.
func (f *Filter) Free() { C.fe_filter_free(f.c) }

// Metric returns one of Healthgate's own stats, defined by the filter or the bootstrap extension; -1 if it is not defined.
func (f *Filter) Metric(name string) (value int64) {
	with(name, func(c *C.char) { value = int64(C.fe_metric(f.c, c)) })
	return value
}

// Route is a route's configuration.
type Route struct{ c unsafe.Pointer }

// NewRoute returns nil if the module refuses.
func NewRoute(config string) (route *Route) {
	with(config, func(c *C.char) {
		if r := C.fe_route_new(c, C.size_t(len(config))); r != nil {
			route = &Route{r}
		}
	})
	return route
}

// Free destroys the route.
func (r *Route) Free() { C.fe_route_free(r.c) }

// Request is one request and its response.
type Request struct {
	Route                             *Route
	Method, Path, ContentType, Accept string // "" for none
	Body                              string

	Answered                               bool
	Status                                 int
	Details, Text, Headers, Data, Trailers string
}

// Ask sends a request, and returns it with its response.
func (f *Filter) Ask(r Request) Request {
	s := f.Open(r)
	defer s.Free()
	return s.Request()
}

// Stream is an open request.
type Stream struct {
	c       *C.fe_stream
	headers []unsafe.Pointer
	request Request
}

// Open sends a complete request and keeps its stream.
func (f *Filter) Open(r Request) *Stream {
	s := &Stream{request: r}
	header := func(value string) *C.char {
		if value == "" {
			return nil
		}
		c := C.CString(value)
		s.headers = append(s.headers, unsafe.Pointer(c))
		return c
	}
	var route unsafe.Pointer
	if r.Route != nil {
		route = r.Route.c
	}
	s.c = C.fe_stream_new(f.c, route, header(r.Method), header(r.Path), header(r.ContentType), header(r.Accept))
	if C.fe_headers(s.c, C.bool(r.Body == "")); r.Body != "" {
		with(r.Body, func(c *C.char) { C.fe_body(s.c, c, C.size_t(len(r.Body)), true) })
	}
	return s
}

// Run runs the events that were scheduled for the stream.
func (s *Stream) Run() { C.fe_run(s.c) }

// Request returns the request, and its response so far.
func (s *Stream) Request() Request {
	r := s.request
	r.Answered = s.c.replies > 0
	r.Status = int(s.c.status)
	r.Details, r.Text = C.GoString(&s.c.details[0]), C.GoString(&s.c.body[0])
	r.Headers, r.Trailers = C.GoString(&s.c.headers[0]), C.GoString(&s.c.trailers[0])
	r.Data = C.GoStringN(&s.c.data[0], C.int(s.c.data_length))
	return r
}

// Free destroys the stream.
func (s *Stream) Free() {
	C.fe_stream_free(s.c)
	for _, p := range s.headers {
		C.free(p)
	}
}

// Lines returns the lines of the log that contain a text.
func Lines(with string) (lines []string) {
	for line := range strings.Lines(Log()) {
		if strings.Contains(line, with) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// ServiceDegradesAfter makes the one host of the cluster service degraded during the next pass, once the pass has read a gauge.
func ServiceDegradesAfter(gauge string) {
	C.fe_after(C.CString(gauge), (*[0]byte)(C.fe_service_degrades))
}
