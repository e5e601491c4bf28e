package gate

import (
	"slices"
	"sync"
	"sync/atomic"
)

// The values of healthy.state.
const (
	stateNotEvaluated uint32 = iota
	stateFailing
	statePassing
)

// healthy is a gate's last verdict, for the gauge healthy. Envoy has one gauge for each stat prefix, and several gates may share it. Among
// the open gates that were evaluated, the one with the newest configuration writes it.
type healthy struct {
	gauges *healthyGauges
	prefix string
	serial uint64 // of the configuration
	gauge  SettableGauge
	state  atomic.Uint32
}

type healthyGauges struct {
	mutex    sync.Mutex
	byPrefix map[string][]*healthy // open gates by stat prefix, the newest last
}

func (g *healthyGauges) register(prefix string, serial uint64, gauge SettableGauge) *healthy {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.byPrefix == nil {
		g.byPrefix = make(map[string][]*healthy)
	}
	all := g.byPrefix[prefix]
	at := len(all)
	for at > 0 && all[at-1].serial > serial {
		at--
	}
	h := &healthy{gauges: g, prefix: prefix, serial: serial, gauge: gauge}
	g.byPrefix[prefix] = slices.Insert(all, at, h)
	return h
}

// unregister also makes the newest remaining gate write the gauge. If Envoy has destroyed that gate's configuration too, an older one
// writes it.
func (h *healthy) unregister() {
	g := h.gauges
	g.mutex.Lock()
	defer g.mutex.Unlock()
	left := slices.DeleteFunc(g.byPrefix[h.prefix], func(other *healthy) bool { return other == h })
	if len(left) == 0 {
		delete(g.byPrefix, h.prefix)
		return
	}
	g.byPrefix[h.prefix] = left
	for writer := newestEvaluated(left); writer != nil && !writer.tryWrite(); writer = newestEvaluated(left) {
		left = left[:slices.Index(left, writer)]
	}
}

// update writes the gauge if this gate is the one to write it. It holds the lock while it writes: if two gates change at once, the newer
// one must write last.
func (h *healthy) update() {
	h.gauges.mutex.Lock()
	defer h.gauges.mutex.Unlock()
	if newestEvaluated(h.gauges.byPrefix[h.prefix]) == h {
		h.write()
	}
}

func newestEvaluated(all []*healthy) *healthy {
	for _, h := range slices.Backward(all) {
		if h.state.Load() != stateNotEvaluated {
			return h
		}
	}
	return nil
}

func (h *healthy) write() {
	value := uint64(0)
	if h.state.Load() == statePassing {
		value = 1
	}
	h.gauge.Record(value)
}

// tryWrite reports whether it could write the gauge. Envoy destroys all gates of a filter's configuration at once, so a gate that is not
// closed yet may be destroyed: then writing panics.
func (h *healthy) tryWrite() (written bool) {
	defer func() { written = recover() == nil }()
	h.write()
	return true
}
