package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	gates "healthgate/filter/gate"
	"healthgate/filter/lifecycle"
)

// module is the state that all configurations of one Envoy share.
type module struct {
	process   lifecycle.Process
	sampler   *sampler
	configs   documents[*config.Config]
	overrides documents[*config.Override]
	started   atomic.Bool // Envoy's workers have started

	warmingClusters *gauge
	warmingChanged  atomic.Uint64 // the last pass that is known to have changed it

	hasBootstrap bool // the bootstrap extension; used only on the main thread

	// mutex guards the fields below. No gate is evaluated and no watcher notified while it is held.
	mutex    sync.Mutex
	gates    map[*lifecycle.Configuration]*gate
	active   []*gate // those that had a probe; a change makes a new slice
	filters  map[*configuration]struct{}
	routes   map[*override]struct{}
	prefixes map[prefix]int // how many routes have each
	updates  updates

	// The prefixes of the last routes that were created without a filter in between, and whether a filter was created after them.
	recent       map[prefix]struct{}
	filterIsLast bool
	// overrideStats is how many stats all filters have defined for route overrides with another stat_prefix.
	overrideStats, maxOverrideStats int
	limitIsLogged                   atomic.Bool

	// Used only by the sampling thread.
	pace                       pace
	workersStarted, version    *gauge
	slowIsLogged, envoyIsKnown bool
}

type configuration struct {
	*lifecycle.Configuration
	envoy  *filterEnvoy
	gauges []*gauge // sampled before its gate exists, so that its first probe need not wait for a pass
	stats  int      // counted in module.overrideStats
}

type override struct {
	*lifecycle.Override
	config *config.Override
	prefix prefix
	gauges []*gauge // sampled early, as in configuration
}

// prefix is the stat_prefix of a route override, "" for the filter's own, and whether its gates may answer gRPC calls.
type prefix struct {
	name string
	grpc bool
}

func prefixOf(o *config.Override) prefix {
	p := prefix{grpc: o.Sets("grpc_services")}
	if o.Sets("stat_prefix") {
		p.name = o.Config().StatPrefix
	}
	return p
}

func newModule() *module {
	m := &module{
		process:   lifecycle.Process{Lazy: true},
		sampler:   newSampler(),
		configs:   documents[*config.Config]{decode: config.Decode},
		overrides: documents[*config.Override]{decode: config.DecodeOverride},
		gates:     make(map[*lifecycle.Configuration]*gate),
		filters:   make(map[*configuration]struct{}),
		routes:    make(map[*override]struct{}),
		prefixes:  make(map[prefix]int),
		recent:    make(map[prefix]struct{}),

		maxOverrideStats: maxOverrideStats,
	}
	own := m.sampler.register(envoystats.WorkersStarted, envoystats.ServerVersion, envoystats.WarmingClusters)
	m.workersStarted, m.version, m.warmingClusters = own[0], own[1], own[2]
	m.sampler.register(envoystats.ServerGauges()...) // so that the first probe need not wait for a pass
	return m
}

// createFilter reads a filter's configuration. Its gate is created at its first stream.
func (m *module) createFilter(f *C.hg_filter, configured []byte) (*configuration, error) {
	if !m.hasBootstrap {
		return nil, errNoBootstrap
	}
	decoded, err := m.configs.read(configured)
	if err != nil {
		return nil, err
	}
	envoy := &filterEnvoy{filter: f, prefix: decoded.StatPrefix, module: m, metrics: map[string]*metric{}, warned: map[string]bool{}}
	c := &configuration{Configuration: m.process.Configure(decoded, envoy), envoy: envoy}
	stats := m.defineStats(envoy, len(decoded.GRPCServices) > 0)
	if decoded.Admin != nil { // the first poll takes time
		if _, err := c.Gate(); err != nil {
			return nil, err
		}
	}
	// Nothing panics from here on: Envoy would not destroy a refused configuration.
	c.gauges = m.sampler.register(gaugesOf(decoded)...)
	c.stats = stats
	m.mutex.Lock()
	m.overrideStats += stats
	m.filters[c] = struct{}{}
	m.updates.record(time.Now())
	m.mutex.Unlock()
	if !areCovered(c.gauges) {
		m.sampler.passSoon()
	}
	return c, nil
}

// gaugesOf returns the gauges that the gates of a configuration read.
func gaugesOf(c *config.Config) []string {
	if c.Admin != nil {
		return nil
	}
	return envoystats.ClusterGauges(c.Clusters)
}

// maxOverrideStats bounds module.overrideStats: each of a thousand filters may have a hundred prefixes, and each stat takes a quarter of a
// KiB. The replies of an override without stats are counted by its filter.
const maxOverrideStats = 100_000

// defineStats defines the stats of a filter, and of the route overrides that may be merged into it, and returns how many the overrides
// have. The routes of a connection manager's own route_config are created just before its filters, so the most recent ones come first.
func (m *module) defineStats(envoy *filterEnvoy, grpc bool) (ofOverrides int) {
	m.mutex.Lock()
	m.filterIsLast = true
	before, recent := m.overrideStats, len(m.recent)
	prefixes := slices.AppendSeq(slices.Collect(maps.Keys(m.recent)), maps.Keys(m.prefixes))
	m.mutex.Unlock() // not locked below: Envoy defines a stat only after a pass under way has ended
	envoy.define(envoy.prefix, grpc)
	for i, p := range prefixes {
		if p.name == "" {
			envoy.define(envoy.prefix, grpc || p.grpc)
			continue
		}
		most := m.maxOverrideStats
		if i >= recent { // the other half is for later filters and their own routes
			most /= 2
		}
		if before+ofOverrides < most {
			ofOverrides += envoy.define(p.name, grpc || p.grpc)
		} else {
			envoy.limited = true
		}
	}
	return ofOverrides
}

// addPrefix records the prefix of a new route. The mutex must be held.
func (m *module) addPrefix(p prefix) {
	m.prefixes[p]++
	if m.filterIsLast {
		m.filterIsLast = false
		clear(m.recent)
	}
	m.recent[p] = struct{}{}
}

func (m *module) destroyFilter(c *configuration) {
	c.End()
	m.sampler.unregister(c.gauges...)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.overrideStats -= c.stats
	delete(m.filters, c)
}

// createOverride reads a route's configuration.
func (m *module) createOverride(configured []byte) (*override, error) {
	if len(configured) == 0 {
		configured = []byte("{}")
	}
	decoded, err := m.overrides.read(configured)
	if err != nil {
		return nil, err
	}
	o := &override{Override: m.process.NewOverride(decoded), config: decoded, prefix: prefixOf(decoded)}
	o.gauges = m.sampler.register(gaugesOf(decoded.Config())...)
	m.mutex.Lock()
	m.routes[o] = struct{}{}
	m.addPrefix(o.prefix)
	m.updates.record(time.Now())
	m.mutex.Unlock()
	if !areCovered(o.gauges) {
		m.sampler.passSoon()
	}
	return o, nil
}

func (m *module) destroyOverride(o *override) {
	o.End()
	m.sampler.unregister(o.gauges...)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.routes, o)
	if m.prefixes[o.prefix]--; m.prefixes[o.prefix] == 0 {
		delete(m.prefixes, o.prefix)
		delete(m.recent, o.prefix)
	}
}

// gateOf returns the gate of a filter, with an override unless it is nil. The caller gets a reference.
func (m *module) gateOf(c *configuration, o *override) *C.hg_gate {
	merged := c.Configuration
	if o != nil {
		merged = o.MergeInto(merged)
	}
	if _, err := merged.Gate(); err != nil {
		own, _ := c.Gate()
		return newFailingGate(merged.Paths(), own)
	}
	m.mutex.Lock()
	g := m.gates[merged]
	if g != nil {
		g.filter, g.override = c, o
		C.hg_gate_ref(g.c)
	}
	m.mutex.Unlock()
	if g == nil { // it has ended
		return newFailingGate(merged.Paths(), nil)
	}
	return g.c
}

// register adds a gate until unregister is called.
func (m *module) register(c *lifecycle.Configuration, core *gates.Gate, r *reader) (unregister func()) {
	g := newGate(c, core, r)
	m.mutex.Lock()
	m.gates[c] = g
	m.mutex.Unlock()
	return func() {
		m.mutex.Lock()
		delete(m.gates, c)
		if i := slices.Index(m.active, g); i >= 0 {
			m.active = slices.Concat(m.active[:i], m.active[i+1:])
		}
		m.mutex.Unlock()
		g.release()
	}
}

// isIdle reports whether nothing needs a sample.
func (m *module) isIdle() bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return len(m.filters) == 0 && len(m.gates) == 0 && !m.sampler.clusters.isCollecting()
}

func (m *module) activeGates() []*gate {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.active
}

// activate records that a gate had a probe, unless it has ended.
func (m *module) activate(g *gate) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.gates[g.configuration] == g && !slices.Contains(m.active, g) {
		m.active = append(slices.Clip(m.active), g)
	}
}

// endReplaced ends the watchers of replaced configurations, once an update had time to become effective.
func (m *module) endReplaced(now time.Time) {
	m.mutex.Lock()
	any := m.updates.takeDue(now) && supersedeGates(m.filters, m.routes, m.gates)
	m.mutex.Unlock()
	if any {
		notifyWatchers()
	}
}

// recovered logs a panic of a function that defers it.
func (m *module) recovered(where string) {
	if cause := recover(); cause != nil {
		m.process.LogPanic(&filterEnvoy{}, where, cause)
	}
}
