package dynamicmodule

import (
	"hash/fnv"
	"sync"
)

// clusters know which clusters Envoy has: those that it had before it reported its changes, by their stats, and the others by its
// reports. A cluster that is still warming has stats and was not reported: Envoy does not have it, as for its own filter.
type clusters struct {
	mutex    sync.RWMutex
	reported map[uint64]bool     // by the hash of the name: whether Envoy has the cluster, if it has reported it
	removed  int                 // how many of them it has not
	before   map[uint64]struct{} // hashes of the stat names of the clusters that Envoy had before
	final    bool                // before is complete
	unaware  bool                // Envoy reports no changes
}

func hashOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

// removedMost bounds the names that are kept of removed clusters. Beyond it only those are kept that Envoy had before and that have no
// alt_stat_name: a report has no stat name.
const removedMost = 100_000

// report takes that Envoy has added or removed a cluster.
func (c *clusters) report(name, statName string, removed bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	hash := hashOf(name)
	if c.reported == nil {
		c.reported = make(map[uint64]bool)
	}
	if has, reported := c.reported[hash]; reported && !has {
		c.removed--
		delete(c.reported, hash)
	}
	if removed {
		if _, before := c.before[hashOf(statName)]; !before && c.final && c.removed >= removedMost {
			delete(c.reported, hash)
			return
		}
		c.removed++
	}
	c.reported[hash] = !removed
}

// has reports whether Envoy has a cluster; hasStats is whether it has stats.
func (c *clusters) has(name, statName uint64, hasStats bool) bool {
	c.mutex.RLock()
	defer c.mutex.RUnlock()
	if has, reported := c.reported[name]; reported {
		return has
	}
	_, before := c.before[statName]
	return hasStats && (before || c.unaware)
}

func (c *clusters) unawareOfChanges() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.unaware = true
}

// collecting reports whether the next pass is to find the clusters that Envoy had before.
func (c *clusters) collecting() bool {
	c.mutex.RLock()
	defer c.mutex.RUnlock()
	return !c.final
}

// collected takes the hashes of the stat names that a pass has found. The last pass before the workers start is final.
func (c *clusters) collected(hashes []uint64, final bool) {
	before := make(map[uint64]struct{}, len(hashes))
	for _, hash := range hashes {
		before[hash] = struct{}{}
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.final {
		c.before, c.final = before, final
	}
}
