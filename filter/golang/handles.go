package golang

import (
	"sync"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
)

// handles defines each stat of a filter's configuration once, for all its route overrides too: Envoy keeps one entry per definition for
// as long as the configuration lives.
type handles struct {
	callbacks api.ConfigCallbackHandler

	mutex    sync.Mutex
	gauges   map[string]api.GaugeMetric
	counters map[string]api.CounterMetric
}

func (h *handles) gauge(name string) api.GaugeMetric {
	return defineOnce(h, &h.gauges, name, h.callbacks.DefineGaugeMetric)
}

func (h *handles) counter(name string) api.CounterMetric {
	return defineOnce(h, &h.counters, name, h.callbacks.DefineCounterMetric)
}

func defineOnce[T any](h *handles, defined *map[string]T, name string, define func(string) T) T {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	handle, ok := (*defined)[name]
	if !ok {
		handle = define(name)
		if *defined == nil {
			*defined = make(map[string]T)
		}
		(*defined)[name] = handle
	}
	return handle
}
