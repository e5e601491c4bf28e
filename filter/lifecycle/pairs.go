package lifecycle

import (
	"maps"
	"sync"
)

// side is one side of pairs: a configuration, or an override that is merged into it. A pair is one merged configuration, however many
// listeners, threads or streams use it; it lives as long as both sides.
type side struct {
	merged map[*side]*Configuration // by the other side; guarded by Process.pairs
	ended  bool                     // Envoy has destroyed this side; guarded by Process.pairs
}

// recordPair records the merged configuration of both sides. It returns false if a side has ended: Envoy would never end the pair. The
// lock must be held.
func recordPair(parent, override *side, merged *Configuration) bool {
	if parent.ended || override.ended {
		return false
	}
	for this, other := range map[*side]*side{parent: override, override: parent} {
		if this.merged == nil {
			this.merged = make(map[*side]*Configuration)
		}
		this.merged[other] = merged
	}
	return true
}

// endPairs ends all pairs of a side, and returns once they have ended.
func (s *side) endPairs(lock *sync.Mutex) {
	lock.Lock()
	s.ended = true
	merged := maps.Clone(s.merged)
	lock.Unlock()
	for _, pair := range merged {
		pair.End()
	}
	// Only now: the other side must not end before its pairs have ended.
	lock.Lock()
	defer lock.Unlock()
	for other := range merged {
		delete(other.merged, s)
	}
	s.merged = nil
}
