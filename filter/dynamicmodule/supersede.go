package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"time"

	"healthgate/filter/lifecycle"
)

// supersedeAfter is how long an update may take to become effective before the watchers of replaced configurations are ended.
const supersedeAfter = time.Second

// updates decides when supersedeGates has to run.
type updates struct {
	last time.Time // when the last configuration or override was created
	due  time.Time // zero if nothing is due
}

// record is called for each new configuration or override. A series of updates does not postpone due.
func (u *updates) record(now time.Time) {
	u.last = now
	if u.due.IsZero() {
		u.due = now.Add(supersedeAfter)
	}
}

// takeDue reports, once, that supersedeGates is due.
func (u *updates) takeDue(now time.Time) bool {
	if u.due.IsZero() || now.Before(u.due) {
		return false
	}
	u.due = time.Time{}
	if now.Sub(u.last) < supersedeAfter { // the last update is not effective yet
		u.due = now.Add(supersedeAfter)
	}
	return true
}

// supersedeGates marks the gates whose configurations newer ones have replaced, so that their watchers end. It returns whether there are
// any. Envoy keeps a configuration alive for its streams and does not report that it was replaced. So the stat_prefix, which names a gate,
// decides: a filter's configuration is replaced by a newer, different one with the same prefix; a route override is replaced by newer ones
// with the same prefix, unless one of them is equal.
func supersedeGates(filters map[*configuration]struct{}, routes map[*override]struct{},
	gates map[*lifecycle.Configuration]*gate) (found bool) {
	newest := make(map[string]*configuration) // by prefix
	for c := range filters {
		prefix := c.Config().StatPrefix
		if other := newest[prefix]; other == nil || c.Serial() > other.Serial() {
			newest[prefix] = c
		}
	}
	newestOverride := make(map[string]uint64) // by the prefix that it sets, "" for none
	newestEqual := make(map[string]uint64)    // by digest
	for o := range routes {
		digest := o.config.Config().Digest()
		newestOverride[o.prefix.name] = max(newestOverride[o.prefix.name], o.Serial())
		newestEqual[digest] = max(newestEqual[digest], o.Serial())
	}
	for _, g := range gates {
		if len(g.configuration.Config().GRPCServices) == 0 || g.filter == nil {
			continue
		}
		by := uint64(0)
		if c := newest[g.filter.Config().StatPrefix]; c.Serial() > g.filter.Serial() && c.Config().Digest() != g.filter.Config().Digest() {
			by = c.Serial()
		}
		if o := g.override; o != nil && newestOverride[o.prefix.name] > o.Serial() && newestEqual[o.config.Config().Digest()] == o.Serial() {
			by = max(by, newestOverride[o.prefix.name])
		}
		if by > g.supersededBy { // a gate that was marked by mistake has watchers again
			g.supersededBy, found = by, true
			C.hg_watch_supersede(g.c)
		}
	}
	return found
}
