package dynamicmodule

import (
	"hash/fnv"
	"sync"
)

// clusters knows which clusters Envoy has: from Envoy's reports, and from the stats of the clusters that it had before it began to report.
// A cluster that has stats and was not reported is warming: Envoy's own health_check filter does not see it yet either.
//
// The ABI has no list of the earlier clusters, and a stat has its cluster's alt_stat_name instead of the name. So if a static cluster has
// the alt_stat_name a, and Envoy has no cluster named a, then a counts as a known cluster.
type clusters struct {
	mutex    sync.RWMutex
	reported map[uint64]bool     // by the hash of the name: whether Envoy has the cluster, if it has reported it
	removed  int                 // how many of them are false
	before   map[uint64]struct{} // hashes of the stat names of the clusters that Envoy had before
	final    bool                // before is complete
}

func hashOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

// maxRemoved bounds the names of removed clusters. Beyond it, a name is kept only if Envoy had the cluster before, and without an
// alt_stat_name, because a report has no stat name.
const maxRemoved = 100_000

// report records that Envoy has added or removed a cluster.
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
		if _, before := c.before[hashOf(statName)]; !before && c.final && c.removed >= maxRemoved {
			delete(c.reported, hash)
			return
		}
		c.removed++
	}
	c.reported[hash] = !removed
}

// has reports whether Envoy has a cluster, by the hashes of its names.
func (c *clusters) has(name, statName uint64, hasStats bool) bool {
	c.mutex.RLock()
	defer c.mutex.RUnlock()
	if has, reported := c.reported[name]; reported {
		return has
	}
	_, before := c.before[statName]
	return hasStats && before
}

// isCollecting reports whether the next pass has to find the clusters that Envoy had before.
func (c *clusters) isCollecting() bool {
	c.mutex.RLock()
	defer c.mutex.RUnlock()
	return !c.final
}

// collect records the stat names that a pass has found, by their hashes. The last pass before the workers start is final.
func (c *clusters) collect(hashes []uint64, final bool) {
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
