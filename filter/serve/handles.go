package serve

import (
	"sync"

	"healthgate/filter"
)

// handles finds each stat of a filter's configuration once, also for all that is laid over it: Envoy keeps an entry for
// every time that a stat is asked for, for as long as the configuration lives.
type handles struct {
	Host
	mutex       sync.Mutex
	gauges      map[string]filter.Value
	counters    map[string]filter.Value
	ownGauges   map[string]filter.SettableGauge
	ownCounters map[string]filter.Counter
}

func (h *handles) Gauge(name string) filter.Value {
	return once(h, &h.gauges, name, h.Host.Gauge)
}

func (h *handles) Counter(name string) filter.Value {
	return once(h, &h.counters, name, h.Host.Counter)
}

// Removed is what the host knows of a cluster's life, if it knows any.
func (h *handles) Removed(cluster string) filter.Value {
	if life, ok := h.Host.(filter.ClusterLife); ok {
		return life.Removed(cluster)
	}
	return nil
}

func (h *handles) NewGauge(name string) filter.SettableGauge {
	return once(h, &h.ownGauges, name, h.Host.NewGauge)
}

func (h *handles) NewCounter(name string) filter.Counter {
	return once(h, &h.ownCounters, name, h.Host.NewCounter)
}

func once[T any](h *handles, found *map[string]T, name string, find func(string) T) T {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	handle, ok := (*found)[name]
	if !ok {
		handle = find(name)
		if *found == nil {
			*found = make(map[string]T)
		}
		(*found)[name] = handle
	}
	return handle
}
