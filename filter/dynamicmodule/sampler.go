package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// sampler holds the gauges of Envoy that gates read, as the last pass has found them. It is safe for concurrent use, and holds no lock
// during a pass.
type sampler struct {
	clusters clusters
	wanted   chan struct{} // has an element if a pass is wanted soon

	mutex  sync.Mutex
	gauges map[string]*gauge
	index  *index // nil if gauges has changed since it was made
	passes uint64 // the number of passes that have begun
	stored uint64 // the last pass whose samples were stored
	spare  []C.hg_sample
}

// gauge is one of Envoy's gauges. It is an envoystats.Value and an envoystats.Found.
type gauge struct {
	name    string
	value   atomic.Uint64
	found   atomic.Bool
	covered atomic.Bool   // a pass has read it since it was registered, or since passes continued
	changed atomic.Uint64 // the last pass that has changed it
	refs    int           // guarded by sampler.mutex
}

func (g *gauge) Get() uint64 { return g.value.Load() }
func (g *gauge) Found() bool { return g.found.Load() }

// index is an hg_index; passes under way keep it alive.
type index struct {
	c      *C.hg_index
	gauges []*gauge // in its order
	refs   int      // guarded by sampler.mutex
}

func newSampler() *sampler {
	return &sampler{wanted: make(chan struct{}, 1), gauges: make(map[string]*gauge)}
}

// register makes passes read gauges, each until it is unregistered as often as it was registered.
func (s *sampler) register(names ...string) []*gauge {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	registered := make([]*gauge, len(names))
	for i, name := range names {
		g := s.gauges[name]
		if g == nil {
			g = &gauge{name: name}
			s.gauges[name] = g
			s.dropIndex()
		}
		g.refs++
		registered[i] = g
	}
	return registered
}

func (s *sampler) unregister(gauges ...*gauge) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, g := range gauges {
		if g.refs--; g.refs == 0 {
			delete(s.gauges, g.name)
			s.dropIndex()
		}
	}
}

// dropIndex makes the next pass create a new index, because gauges has changed. The mutex must be held.
func (s *sampler) dropIndex() {
	if s.index != nil {
		s.unref(s.index)
		s.index = nil
	}
}

func (s *sampler) unref(i *index) {
	if i.refs--; i.refs == 0 {
		C.hg_index_destroy(i.c)
	}
}

// passSoon requests a pass for gauges that no pass has covered yet. One pass covers all gauges that are registered before it begins.
func (s *sampler) passSoon() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// beginPass begins a pass: it returns the pass's number and gauges, and memory for the samples.
func (s *sampler) beginPass() (pass uint64, i *index, samples []C.hg_sample) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.index == nil {
		s.index = &index{c: C.hg_index_create(C.size_t(len(s.gauges))), refs: 1}
		for name, g := range s.gauges {
			s.index.gauges = append(s.index.gauges, g)
			C.hg_index_add(s.index.c, text(name))
		}
	}
	s.index.refs++
	s.passes++
	samples, s.spare = s.spare, nil
	samples = slices.Grow(samples[:0], len(s.index.gauges))[:len(s.index.gauges)]
	clear(samples)
	return s.passes, s.index, samples
}

// makePass samples the registered gauges. workersRun is whether Envoy's workers had started before. makePass returns when the pass began,
// whether Envoy's bootstrap extension was there, and whether a gauge has changed since an earlier pass.
func (s *sampler) makePass(workersRun bool) (began time.Duration, passed, changed bool) {
	began = sinceBoot()
	pass, i, samples := s.beginPass()
	var found *C.hg_hashes
	if s.clusters.isCollecting() {
		found = new(C.hg_hashes)
		defer C.hg_hashes_free(found)
	}
	passed = bool(C.hg_sample_gauges(i.c, unsafe.SliceData(samples), found))
	if passed && found != nil {
		hashes := unsafe.Slice((*uint64)(unsafe.Pointer(found.hashes)), int(found.count))
		s.clusters.collect(hashes, workersRun)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.unref(i)
	if passed && pass > s.stored { // otherwise a later pass was faster
		s.stored = pass
		for position, g := range i.gauges {
			changed = g.store(uint64(samples[position].value), bool(samples[position].found), pass) || changed
		}
	}
	s.spare = samples
	return began, passed, changed
}

// forget makes all gauges count as not covered, because no pass reads them for a while: the first probe after that needs new samples.
func (s *sampler) forget() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, g := range s.gauges {
		g.covered.Store(false)
	}
}

// lastPass returns the last pass whose samples were stored.
func (s *sampler) lastPass() uint64 {
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
