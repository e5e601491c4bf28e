package dynamicmodule

/*
#include "healthgate.h"
*/
import "C"

import "time"

// supersedeAfter is how long an update has to become effective before the watchers of what it replaces are ended.
const supersedeAfter = time.Second

// hasChanged records that a configuration or an override has come. It needs the mutex. Changes that come without end don't put off what
// is due.
func (m *module) hasChanged(now time.Time) {
	m.changedAt = now
	if m.supersedeAt.IsZero() {
		m.supersedeAt = now.Add(supersedeAfter)
	}
}

// supersede ends the watchers of configurations that newer ones have replaced. Envoy keeps a configuration alive for its streams and
// does not report that it was replaced, so what counts is the stat_prefix, which names a gate: a configuration of a filter is replaced
// by a newer one of the same prefix that says something else, and a route override by newer ones of the same prefix, unless one of these
// says the same.
func (m *module) supersede(now time.Time) {
	if m.markSuperseded(now) {
		notifyWatchers()
	}
}

func (m *module) markSuperseded(now time.Time) (any bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.supersedeAt.IsZero() || now.Before(m.supersedeAt) {
		return false
	}
	m.supersedeAt = time.Time{}
	if now.Sub(m.changedAt) < supersedeAfter { // the last change is not effective yet
		m.supersedeAt = now.Add(supersedeAfter)
	}
	newest := make(map[string]*configuration) // by prefix
	for c := range m.filters {
		prefix := c.Config().StatPrefix
		if other := newest[prefix]; other == nil || c.serial > other.serial {
			newest[prefix] = c
		}
	}
	lastOf := make(map[string]uint64)   // the newest override that sets a prefix, "" for none
	lastSaid := make(map[string]uint64) // the newest override that says something
	for o := range m.routes {
		lastOf[o.prefix.name] = max(lastOf[o.prefix.name], o.serial)
		lastSaid[o.config.Config().Digest()] = max(lastSaid[o.config.Config().Digest()], o.serial)
	}
	for _, g := range m.gates {
		if len(g.configuration.Config().GRPCServices) == 0 || g.filter == nil {
			continue
		}
		byFilter := newest[g.filter.Config().StatPrefix]
		by := uint64(0) // what has replaced it
		if byFilter.serial > g.filter.serial && byFilter.Config().Digest() != g.filter.Config().Digest() {
			by = byFilter.serial
		}
		if o := g.override; o != nil && lastOf[o.prefix.name] > o.serial && lastSaid[o.config.Config().Digest()] == o.serial {
			by = max(by, lastOf[o.prefix.name])
		}
		if by > g.supersededBy { // one that was replaced by mistake has watchers again
			g.supersededBy, any = by, true
			C.hg_watch_supersede(g.c)
		}
	}
	return any
}
