package dynamicmodule

/*
#include "healthgate.h"
*/
import "C"

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"healthgate/filter/envoystats"
	gates "healthgate/filter/gate"
	"healthgate/filter/lifecycle"
)

// host is Envoy as the gates of one filter's configuration see it.
type host struct {
	module *module
	filter *C.hg_filter // until the configuration has ended
	prefix string       // of the filter's own stats

	mutex   sync.Mutex
	metrics map[string]*metric
	warned  map[string]bool // of stat prefixes that Envoy could define no stats for
}

// metric is a stat of the module's own; one that Envoy has not defined ignores what is written to it. It is a gates.Counter and
// a gates.SettableGauge.
type metric struct {
	host *host
	c    *C.hg_metric
}

func (m *metric) Increment(by int64) {
	if m.c != nil {
		C.hg_metric_add(&m.host.filter.metrics, m.c, C.uint64_t(by))
	}
}

func (m *metric) Record(value uint64) {
	if m.c != nil {
		C.hg_metric_set(&m.host.filter.metrics, m.c, C.uint64_t(value))
	}
}

// Gauge and Counter find nothing: each gate reads Envoy's stats through a reader of its own.
func (h *host) Gauge(string) envoystats.Value   { return &gauge{} }
func (h *host) Counter(string) envoystats.Value { return &gauge{} }

func (h *host) NewCounter(name string) gates.Counter     { return h.metric(name, false) }
func (h *host) NewGauge(name string) gates.SettableGauge { return h.metric(name, true) }
func (h *host) Info(line string)                         { log(C.HG_LOG_INFO, line) }
func (h *host) Warn(line string)                         { log(C.HG_LOG_WARN, line) }
func (h *host) Error(line string)                        { log(C.HG_LOG_ERROR, line) }
func (h *host) Now() time.Time                           { return time.Now() }
func (h *host) NewReader() lifecycle.Reader              { return &reader{host: h} }

// IsGone is never true: a gate is evaluated only while Envoy's side of its configuration is there.
func (h *host) IsGone(any) bool { return false }

var _ interface {
	lifecycle.Envoy
	lifecycle.Sampler
} = (*host)(nil)

// reader is Envoy as one gate sees it. What the gate reads is sampled until the reader is closed.
type reader struct {
	*host
	gauges   []*gauge
	clusters []uint64 // hashes of names
}

func (r *reader) Gauge(name string) envoystats.Value {
	g := r.module.sampler.register(name)
	r.gauges = append(r.gauges, g)
	return g
}

func (r *reader) Cluster(name, statName string) envoystats.Value {
	e := &existence{&r.module.sampler.clusters, hashOf(name), hashOf(clusterKey(statName)), r.Gauge(envoystats.TotalOf(statName)).(*gauge)}
	r.clusters = append(r.clusters, e.name)
	return e
}

func (r *reader) Register(c *lifecycle.Configuration, core *gates.Gate) (unregister func()) {
	g := newGate(c, core, r)
	r.module.add(g)
	return func() {
		r.module.remove(g)
		g.end()
	}
}

func (r *reader) Close() {
	for _, g := range r.gauges {
		r.module.sampler.unregister(g)
	}
}

// covered reports whether a pass has read all of the gauges.
func (r *reader) covered() bool {
	return !slices.ContainsFunc(r.gauges, func(g *gauge) bool { return !g.covered.Load() })
}

// changedSince reports whether a gauge has changed after a pass.
func (r *reader) changedSince(pass uint64) bool {
	return slices.ContainsFunc(r.gauges, func(g *gauge) bool { return g.changed.Load() > pass })
}

var _ interface {
	lifecycle.Reader
	envoystats.Clusters
} = (*reader)(nil)

// existence is 1 while Envoy has a cluster. It is a envoystats.Value.
type existence struct {
	clusters   *clusters
	name, stat uint64 // hashes
	total      *gauge
}

func (e *existence) Get() uint64 {
	if e.clusters.has(e.name, e.stat, e.total.Found()) {
		return 1
	}
	return 0
}

// clusterKey is the part of a stat's name that stands for the cluster.
func clusterKey(statName string) string {
	key := strings.TrimPrefix(envoystats.TotalOf(statName), "cluster.")
	return key[:max(0, strings.LastIndexByte(key, '.'))]
}

// scope is the beginning of the names of all the module's stats: the metrics_namespace, which Envoy puts before them.
const scope = "healthgate."

// metric returns a stat of the module's own, defined if it can be: Envoy defines new ones only while the configuration of a filter is
// made. A route override that came later and has another stat_prefix is counted by the filter's own, and has no gauge.
func (h *host) metric(name string, gauge bool) *metric {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if m := h.metrics[name]; m != nil {
		return m
	}
	m := &metric{h, C.hg_metric_define(&h.filter.metrics, text(strings.TrimPrefix(name, scope)), C.bool(gauge))}
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
	if h.warned[prefix] {
		return
	}
	if h.warned == nil {
		h.warned = make(map[string]bool)
	}
	h.warned[prefix] = true
	h.Warn("healthgate: a route override with stat_prefix " + strings.TrimPrefix(prefix, scope) + " came after its filter, when " +
		"Envoy defines no more stats: its replies are counted by " + scope + h.prefix + ". Update the listener to have its own")
}

// sharedPrefix is the stat_prefix whose stats all filters share.
const sharedPrefix = "default"

// allMetrics are the names of the stats of a prefix.
func allMetrics(prefix string, grpc bool) (counters, gauges []string) {
	counters, gauges = gates.MetricNames(prefix)
	if grpc {
		counters, gauges = append(counters, grpcCounters(prefix)...), append(gauges, grpcGauge(prefix))
	}
	return counters, gauges
}

// define defines the stats of a prefix, while it can be done.
func (h *host) define(prefix string, grpc bool) {
	counters, gauges := allMetrics(prefix, grpc)
	for _, name := range counters {
		h.metric(name, false)
	}
	for _, name := range gauges {
		h.metric(name, true)
	}
}

// stopped is set when Envoy ends: nothing may be written to its log after that. logging guards it against lines that are being written.
var (
	stopped atomic.Bool
	logging sync.RWMutex
)

func log(level C.unsigned, line string) {
	logging.RLock()
	defer logging.RUnlock()
	if !stopped.Load() {
		C.hg_log(level, text(line))
	}
}

// text lends a string to C for the time of a call.
func text(s string) C.hg_buffer {
	return C.hg_buffer{(*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))}
}
