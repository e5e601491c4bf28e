package gate

import (
	"slices"
	"sync"
)

// healthyGauges decides which gate writes the gauge healthy. Envoy has one gauge for each stat prefix, and several gates may share
// it. Of the open gates the newest that has evaluated anything writes it.
type healthyGauges struct {
	mutex    sync.Mutex
	byPrefix map[string][]*metrics // of the open gates, by serial, the newest last
}

func (g *healthyGauges) register(m *metrics) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.byPrefix == nil {
		g.byPrefix = make(map[string][]*metrics)
	}
	all := g.byPrefix[m.prefix]
	at := len(all)
	for at > 0 && all[at-1].serial > m.serial {
		at--
	}
	g.byPrefix[m.prefix] = slices.Insert(all, at, m)
}

// unregister also makes the newest gate that is left write the gauge, or an older one if Envoy has dropped its configuration, too.
func (g *healthyGauges) unregister(m *metrics) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	left := slices.DeleteFunc(g.byPrefix[m.prefix], func(other *metrics) bool { return other == m })
	if len(left) == 0 {
		delete(g.byPrefix, m.prefix)
		return
	}
	g.byPrefix[m.prefix] = left
	for writer := newestEvaluated(left); writer != nil && !writer.tryWriteHealthy(); writer = newestEvaluated(left) {
		left = left[:slices.Index(left, writer)]
	}
}

// update writes the gauge if m is the one to write it. It holds the lock while it writes: if two gates change at once, the newer one
// must write last.
func (g *healthyGauges) update(m *metrics) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if newestEvaluated(g.byPrefix[m.prefix]) == m {
		m.writeHealthy()
	}
}

func newestEvaluated(all []*metrics) *metrics {
	for _, m := range slices.Backward(all) {
		if m.state.Load() != notEvaluated {
			return m
		}
	}
	return nil
}
