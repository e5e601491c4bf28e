package module

/*
#include "healthgate.h"
*/
import "C"

import "time"

// supersedeAfter is how long an update has to become effective before the watchers of what it replaces are ended.
const supersedeAfter = time.Second

// supersede ends the watchers of configurations that newer ones have replaced. Envoy keeps a configuration alive for its streams and
// does not report that it was replaced, so what counts is the stat_prefix, which names a gate: a configuration of a filter is replaced
// by a newer one of the same prefix that says something else, and a route override by newer ones of the same prefix, unless one of these
// says the same.
func (m *module) supersede(now time.Time) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.supersedeAt.IsZero() || now.Before(m.supersedeAt) {
		return
	}
	m.supersedeAt = time.Time{}
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
		lastSaid[o.digest] = max(lastSaid[o.digest], o.serial)
	}
	for _, g := range m.gates {
		if len(g.configuration.Config().GRPCServices) == 0 || g.filter == nil {
			continue
		}
		byFilter := newest[g.filter.Config().StatPrefix]
		replaced := byFilter.serial > g.filter.serial && byFilter.digest != g.filter.digest
		if o := g.override; o != nil {
			replaced = replaced || lastOf[o.prefix.name] > o.serial && lastSaid[o.digest] == o.serial
		}
		if replaced {
			C.hg_gate_supersede(g.c)
		}
	}
}
