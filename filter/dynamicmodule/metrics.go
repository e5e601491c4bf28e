package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"healthgate/filter/envoystats"
	gates "healthgate/filter/gate"
	"healthgate/filter/lifecycle"
)

// filterEnvoy is Envoy as the gates of one filter's configuration see it: its log, and Healthgate's own stats.
type filterEnvoy struct {
	filter *C.hg_filter // until the configuration ends
	prefix string       // the filter's own stat_prefix
	module *module

	mutex   sync.Mutex
	metrics map[string]*metric
	warned  map[string]bool // by stat_prefix
	limited bool            // not all route overrides have got stats
}

// metric is one of Healthgate's own stats; if Envoy has not defined it, writing has no effect. It is a gates.Counter and a
// gates.SettableGauge.
type metric struct {
	envoy *filterEnvoy
	c     *C.hg_metric
}

func (m *metric) Increment(by int64) {
	if m.c != nil {
		C.hg_metric_write(&m.envoy.filter.metrics, m.c, C.uint64_t(by))
	}
}

func (m *metric) Record(value uint64) {
	if m.c != nil {
		C.hg_metric_write(&m.envoy.filter.metrics, m.c, C.uint64_t(value))
	}
}

// Gauge and Counter are not used: each gate reads Envoy's stats through its own reader.
func (e *filterEnvoy) Gauge(string) envoystats.Value   { return &gauge{} }
func (e *filterEnvoy) Counter(string) envoystats.Value { return &gauge{} }

func (e *filterEnvoy) NewCounter(name string) gates.Counter     { return e.metric(name, false) }
func (e *filterEnvoy) NewGauge(name string) gates.SettableGauge { return e.metric(name, true) }
func (e *filterEnvoy) Info(line string)                         { logInfo(line) }
func (e *filterEnvoy) Warn(line string)                         { logWarn(line) }
func (e *filterEnvoy) Error(line string)                        { logError(line) }
func (e *filterEnvoy) Now() time.Time                           { return time.Now() }
func (e *filterEnvoy) NewReader() lifecycle.Reader              { return &reader{filterEnvoy: e} }

// IsGone returns false: a gate is evaluated only before Envoy destroys its configuration.
func (e *filterEnvoy) IsGone(any) bool { return false }

var _ lifecycle.Sampler = (*filterEnvoy)(nil)

// scope is the metrics_namespace, which Envoy puts before the names of all of Healthgate's stats.
const scope = "healthgate."

// sharedPrefix is the stat_prefix whose stats the bootstrap extension defines, once for all filters.
const sharedPrefix = "default"

// healthy is the last part of the name of the gauge that only one gate may write.
const healthy = "healthy"

// metric returns one of Healthgate's own stats. Envoy defines new ones only while it creates the filter's configuration. A route override
// with another stat_prefix that is created later uses the filter's own stats, and has no gauge healthy.
func (e *filterEnvoy) metric(name string, gauge bool) *metric {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return e.lockedMetric(name, gauge)
}

func (e *filterEnvoy) lockedMetric(name string, gauge bool) *metric {
	if m := e.metrics[name]; m != nil {
		return m
	}
	m := &metric{e, C.hg_metric_define(&e.filter.metrics, text(strings.TrimPrefix(name, scope)), C.bool(gauge))}
	if dot := strings.LastIndexByte(name, '.'); m.c == nil && name[:dot] != scope+e.prefix {
		if name[dot+1:] != healthy {
			m = e.lockedMetric(scope+e.prefix+name[dot:], gauge)
		}
		e.warnOfPrefix(name[len(scope):dot])
	}
	e.metrics[name] = m
	return m
}

func (e *filterEnvoy) warnOfPrefix(prefix string) {
	if e.warned[prefix] {
		return
	}
	e.warned[prefix] = true
	line := "healthgate: a route override with stat_prefix " + prefix + " was created after its filter, when Envoy defines no more stats: " +
		"its replies are counted by " + scope + e.prefix + ". Update the listener to get stats for this prefix"
	if e.limited {
		if !e.module.limitIsLogged.CompareAndSwap(false, true) {
			return
		}
		line = fmt.Sprintf("healthgate: a route override with stat_prefix %s, like others, has no stats, because all filters together "+
			"define at most %d for overrides: its replies are counted by %s. Use fewer prefixes",
			prefix, e.module.maxOverrideStats, scope+e.prefix)
	}
	e.Warn(line)
}

// define defines the stats of a prefix, before Envoy has created the configuration, and returns how many of them are new.
func (e *filterEnvoy) define(prefix string, grpc bool) (added int) {
	if prefix == sharedPrefix {
		return 0
	}
	before := len(e.metrics)
	forEachMetric(prefix, grpc, func(name string, gauge bool) { e.metric(name, gauge) })
	return len(e.metrics) - before
}

// forEachMetric calls f for each stat of a prefix; grpc adds the stats of grpc.health.v1.Health.
func forEachMetric(prefix string, grpc bool, f func(name string, gauge bool)) {
	counters, gauges := gates.MetricNames(prefix)
	if grpc {
		checks, watches, watchers := grpcMetricNames(prefix)
		counters, gauges = append(counters, checks, watches), append(gauges, watchers)
	}
	for _, name := range counters {
		f(name, false)
	}
	for _, name := range gauges {
		f(name, true)
	}
}

// grpcMetricNames returns the names of two counters, of calls of Check and List and of calls of Watch, and of the gauge of open calls of
// Watch.
func grpcMetricNames(prefix string) (checks, watches, watchers string) {
	prefix = scope + prefix
	return prefix + ".grpc_check", prefix + ".grpc_watch", prefix + ".grpc_watchers"
}

// defineShared defines the stats of sharedPrefix, while Envoy creates the bootstrap extension's configuration.
func defineShared() {
	forEachMetric(sharedPrefix, true, func(name string, gauge bool) {
		C.hg_metric_share(text(strings.TrimPrefix(name, scope)), C.bool(gauge))
	})
}
