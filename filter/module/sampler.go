package module

/*
#include "healthgate.h"
*/
import "C"

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter"
)

// sampler keeps the stats of Envoy's that gates read, as the last pass found them. They can be read on any thread; a pass is made on
// the main thread.
type sampler struct {
	mutex    sync.Mutex
	gauges   map[string]*stat
	counters map[string]*stat
	clusters map[string]*removed
}

// stat is one stat of Envoy's. It is a filter.Value and a filter.Found.
type stat struct {
	value  atomic.Uint64
	found  atomic.Bool
	wanted int        // by how many configurations; guarded by sampler.mutex
	passed *C.hg_stat // what a pass writes; touched on the main thread alone
}

func (s *stat) Get() uint64 { return s.value.Load() }
func (s *stat) Found() bool { return s.found.Load() }

// removed says of a cluster whether Envoy has removed it. It is a filter.Value.
type removed struct {
	atomic.Bool
	asked bool // by a gate; guarded by sampler.mutex
}

func (r *removed) Get() uint64 {
	if r.Load() {
		return 1
	}
	return 0
}

// mostClusters bounds how many removed clusters are remembered that nobody asks for.
const mostClusters = 10_000

// of returns the stats of a kind.
func (s *sampler) of(counters bool) map[string]*stat {
	if s.gauges == nil {
		s.gauges, s.counters = make(map[string]*stat), make(map[string]*stat)
	}
	if counters {
		return s.counters
	}
	return s.gauges
}

// want has stats sampled from the next pass on, until they are let go of.
func (s *sampler) want(reads filter.Reads) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for counters, names := range map[bool][]string{false: reads.Gauges, true: reads.Counters} {
		for _, name := range names {
			found := s.of(counters)[name]
			if found == nil {
				found = &stat{}
				s.of(counters)[name] = found
			}
			found.wanted++
		}
	}
}

// letGo ends what a want began.
func (s *sampler) letGo(reads filter.Reads) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for counters, names := range map[bool][]string{false: reads.Gauges, true: reads.Counters} {
		for _, name := range names {
			s.of(counters)[name].wanted--
		}
	}
}

// read returns a stat of Envoy's; one that nobody has wanted is never found.
func (s *sampler) read(name string, counter bool) filter.Value {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if found := s.of(counter)[name]; found != nil {
		return found
	}
	return &stat{}
}

// pass reads all gauges that are wanted, or all counters, and says how long Envoy took for it.
func (s *sampler) pass(counters bool) time.Duration {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	stats := s.of(counters)
	maps.DeleteFunc(stats, func(_ string, stat *stat) bool {
		if stat.wanted > 0 {
			return false
		}
		if stat.passed != nil {
			C.hg_stat_drop(stat.passed)
		}
		return true
	})
	for name, stat := range stats {
		if stat.passed == nil {
			stat.passed = C.hg_stat_want(text(name), C.bool(counters))
		}
	}
	took := time.Duration(C.hg_stats_pass(C.bool(counters)))
	for _, stat := range stats {
		stat.value.Store(uint64(stat.passed.value))
		stat.found.Store(bool(stat.passed.found))
	}
	return took
}

// removed returns what is 1 while Envoy has no cluster of a name any more.
func (s *sampler) removed(cluster string) *removed {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	r := s.clusters[cluster]
	if r == nil {
		r = &removed{}
		s.remember(cluster, r)
	}
	r.asked = true
	return r
}

// life takes that Envoy has added a cluster, or removed one, and says whether that is news to a gate.
func (s *sampler) life(cluster string, gone bool) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	r := s.clusters[cluster]
	if r == nil {
		if !gone { // as most are, and nobody asks for them
			return false
		}
		r = &removed{}
		s.remember(cluster, r)
	}
	return r.Swap(gone) != gone && r.asked
}

func (s *sampler) remember(cluster string, r *removed) {
	if s.clusters == nil {
		s.clusters = make(map[string]*removed)
	}
	if len(s.clusters) >= mostClusters {
		maps.DeleteFunc(s.clusters, func(_ string, r *removed) bool { return !r.asked })
	}
	s.clusters[cluster] = r
}
