package dynamicmodule

/*
#include "healthgate.h"
*/
import "C"

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// sampler keeps the gauges of Envoy's that gates read, as the last pass has found them. Its methods are safe for concurrent use; no
// lock is held while Envoy's gauges are passed over.
type sampler struct {
	clusters clusters

	mutex  sync.Mutex
	gauges map[string]*gauge
	order  []*gauge // those of index, in its order
	index  *index   // nil if gauges has changed since it was made
	passes uint64   // that have begun
	stored uint64   // the last pass whose samples were stored
	spare  []C.hg_sample
}

// gauge is one of Envoy's gauges. It is a envoystats.Value and a envoystats.Found.
type gauge struct {
	name    string
	value   atomic.Uint64
	found   atomic.Bool
	covered atomic.Bool   // a pass has read it since it was registered
	changed atomic.Uint64 // the pass that has changed it last
	refs    int           // guarded by sampler.mutex
}

func (g *gauge) Get() uint64 { return g.value.Load() }
func (g *gauge) Found() bool { return g.found.Load() }

// index is what C looks names up in; passes under way keep it alive.
type index struct {
	c    *C.hg_index
	refs int // guarded by sampler.mutex
}

// register adds a gauge to what is sampled, until it is unregistered as often as it was registered.
func (s *sampler) register(name string) *gauge {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	g := s.gauges[name]
	if g == nil {
		g = &gauge{name: name}
		if s.gauges == nil {
			s.gauges = make(map[string]*gauge)
		}
		s.gauges[name] = g
		s.dropIndex()
	}
	g.refs++
	return g
}

func (s *sampler) unregister(g *gauge) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if g.refs--; g.refs == 0 {
		delete(s.gauges, g.name)
		s.dropIndex()
	}
}

// dropIndex lets go of the index, which is no longer of the gauges that are registered. It needs the mutex.
func (s *sampler) dropIndex() {
	if s.index != nil {
		s.unref(s.index)
		s.index, s.order = nil, nil
	}
}

func (s *sampler) unref(i *index) {
	if i.refs--; i.refs == 0 {
		C.hg_index_destroy(i.c)
	}
}

// begin returns what a pass needs.
func (s *sampler) begin() (pass uint64, i *index, order []*gauge, samples []C.hg_sample) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.index == nil {
		bytes, offset := 0, 0
		for name, g := range s.gauges {
			s.order = append(s.order, g)
			bytes += len(name)
		}
		s.index = &index{c: C.hg_index_create(C.size_t(len(s.order)), C.size_t(bytes)), refs: 1}
		for _, g := range s.order {
			C.hg_index_add(s.index.c, text(g.name), C.size_t(offset))
			offset += len(g.name)
		}
	}
	s.index.refs++
	s.passes++
	samples, s.spare = s.spare, nil
	samples = slices.Grow(samples[:0], len(s.order))[:len(s.order)]
	clear(samples)
	return s.passes, s.index, s.order, samples
}

// pass reads all of Envoy's gauges and keeps those that are registered. It returns when it began, false if Envoy's side has ended, and
// whether a gauge has changed that a pass had read before. final is whether Envoy's workers have started before.
func (s *sampler) pass(final bool) (began time.Duration, passed, changed bool) {
	began = sinceBoot()
	pass, i, order, samples := s.begin()
	var found *C.hg_hashes
	if s.clusters.collecting() {
		found = new(C.hg_hashes)
		defer C.hg_hashes_free(found)
	}
	passed = bool(C.hg_sample_gauges(i.c, unsafe.SliceData(samples), found))
	if passed && found != nil {
		hashes := unsafe.Slice((*uint64)(unsafe.Pointer(found.hashes)), int(found.count))
		s.clusters.collected(hashes, final)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.unref(i)
	if passed && pass > s.stored { // else a pass that began later was faster
		s.stored = pass
		for place, g := range order {
			changed = g.store(uint64(samples[place].value), bool(samples[place].found), pass) || changed
		}
	}
	s.spare = samples
	return began, passed, changed
}

// last is the last pass whose samples have been stored.
func (s *sampler) last() uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.stored
}

func (g *gauge) store(value uint64, found bool, pass uint64) (changed bool) {
	if g.covered.Load() && g.value.Load() == value && g.found.Load() == found {
		return false
	}
	changed = g.covered.Load()
	g.value.Store(value)
	g.found.Store(found)
	g.covered.Store(true)
	g.changed.Store(pass)
	return changed
}
