package module

/*
#include "healthgate.h"
*/
import "C"

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"healthgate/filter"
	"healthgate/filter/serve"
)

// host is Envoy as the gates of one filter's configuration see it. It is a serve.Host, a serve.Looker and a filter.ClusterLife.
type host struct {
	door   *door
	filter *C.hg_filter // until the configuration has ended
	prefix string       // of the filter's own stats

	mutex   sync.Mutex
	metrics map[string]*metric
	told    map[string]bool // of stat prefixes, that Envoy could define no stats for them
}

// metric is a stat of the module's own; one that Envoy has not defined takes what it is given. It is a filter.Counter and a
// filter.SettableGauge.
type metric struct {
	host *host
	c    *C.hg_metric
}

func (m *metric) Increment(by int64) {
	if m.c != nil {
		C.hg_metric_add(m.host.filter, m.c, C.uint64_t(by))
	}
}

func (m *metric) Record(value uint64) {
	if m.c != nil {
		C.hg_metric_set(m.host.filter, m.c, C.uint64_t(value))
	}
}

func (h *host) Gauge(name string) filter.Value            { return h.door.sampler.read(name, false) }
func (h *host) Counter(name string) filter.Value          { return h.door.sampler.read(name, true) }
func (h *host) Removed(cluster string) filter.Value       { return h.door.sampler.removed(cluster) }
func (h *host) NewCounter(name string) filter.Counter     { return h.metric(name, false) }
func (h *host) NewGauge(name string) filter.SettableGauge { return h.metric(name, true) }
func (h *host) Info(line string)                          { log(C.HG_LOG_INFO, line) }
func (h *host) Warn(line string)                          { log(C.HG_LOG_WARN, line) }
func (h *host) Error(line string)                         { log(C.HG_LOG_ERROR, line) }
func (h *host) Now() time.Time                            { return time.Now() }

// Gone is never true: a gate is looked at only while Envoy's side of its configuration is there.
func (h *host) Gone(any) bool { return false }

var _ interface {
	serve.Host
	serve.Looker
	filter.ClusterLife
} = (*host)(nil)

// scope is what the names of all stats begin with: the metrics_namespace, which Envoy puts before them.
const scope = "healthgate."

// metric returns a stat of the module's own, defined where it can be: Envoy takes new ones only while the configuration of a filter
// is made. A route's that came later and has another stat_prefix is counted by the filter's own, and has no gauge.
func (h *host) metric(name string, gauge bool) *metric {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if m := h.metrics[name]; m != nil {
		return m
	}
	m := &metric{h, C.hg_metric_define(h.filter, text(strings.TrimPrefix(name, scope)), C.bool(gauge))}
	if m.c == nil {
		prefix, last := cutLast(name)
		if own := h.metrics[scope+h.prefix+"."+last]; own != nil && last != healthy {
			m = own
		}
		h.warnOfPrefix(prefix)
	}
	if h.metrics == nil {
		h.metrics = make(map[string]*metric)
	}
	h.metrics[name] = m
	return m
}

// healthy is the last part of the name of the gauge that one gate alone may write.
const healthy = "healthy"

// cutLast cuts a name at its last dot.
func cutLast(name string) (before, last string) {
	i := strings.LastIndexByte(name, '.')
	return name[:i], name[i+1:]
}

func (h *host) warnOfPrefix(prefix string) {
	if h.told[prefix] {
		return
	}
	if h.told == nil {
		h.told = make(map[string]bool)
	}
	h.told[prefix] = true
	h.Warn("healthgate: a route's configuration with stat_prefix " + strings.TrimPrefix(prefix, scope) + " came after its filter's, when " +
		"Envoy defines no stats any more: its answers are counted by " + scope + h.prefix + ". Update the listener to have its own")
}

// define makes a prefix's stats, while it can be done.
func (h *host) define(prefix string, grpc bool) {
	counters, gauges := filter.MetricNames(prefix)
	if grpc {
		counters, gauges = append(counters, grpcCounters(prefix)...), append(gauges, grpcGauge(prefix))
	}
	for _, name := range counters {
		h.metric(name, false)
	}
	for _, name := range gauges {
		h.metric(name, true)
	}
}

// stopped is set when Envoy ends: nobody may write to its log any more.
var stopped atomic.Bool

func log(level C.unsigned, line string) {
	if !stopped.Load() {
		C.hg_log(level, text(line))
	}
}

// text lends a string to C for the time of a call.
func text(s string) C.hg_buffer {
	return C.hg_buffer{(*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))}
}
