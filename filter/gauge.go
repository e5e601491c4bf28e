package filter

import (
	"slices"
	"sync"
)

// gauges say which gate writes a gauge that several share: Envoy has one for each stat prefix, and configurations that
// come, are merged and go have theirs in common. Of the gates that live, the newest that has judged anything writes it.
type gauges struct {
	mutex    sync.Mutex
	byPrefix map[string][]*journal // of the gates that live, the newest last
}

// enter adds the journal of a new gate.
func (g *gauges) enter(j *journal) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.byPrefix == nil {
		g.byPrefix = make(map[string][]*journal)
	}
	g.byPrefix[j.prefix] = append(g.byPrefix[j.prefix], j)
}

// leave takes a journal out, and has the one whose turn it is then write.
func (g *gauges) leave(j *journal) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	left := slices.DeleteFunc(g.byPrefix[j.prefix], func(other *journal) bool { return other == j })
	if len(left) == 0 {
		delete(g.byPrefix, j.prefix)
		return
	}
	g.byPrefix[j.prefix] = left
	for writer := newestJudged(left); writer != nil && !writer.recordIfAlive(); writer = newestJudged(left) {
		left = left[:slices.Index(left, writer)] // an older one, which Envoy may still have
	}
}

// changed has a journal write its new state, where it is its turn. The lock is held while it writes: of two gates that
// change at once the newer has to be the last.
func (g *gauges) changed(j *journal) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if newestJudged(g.byPrefix[j.prefix]) == j {
		j.record()
	}
}

func newestJudged(all []*journal) *journal {
	for _, j := range slices.Backward(all) {
		if j.state.Load() != stateNone {
			return j
		}
	}
	return nil
}
