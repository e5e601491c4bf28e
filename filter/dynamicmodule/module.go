package dynamicmodule

/*
#include "healthgate.h"
*/
import "C"

import (
	"fmt"
	"maps"
	"runtime"
	"runtime/cgo"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	gates "healthgate/filter/gate"
	"healthgate/filter/lifecycle"
	"healthgate/filter/policy"
)

// module is what all configurations of one Envoy share.
type module struct {
	process   lifecycle.Process
	sampler   sampler
	configs   documents[*config.Config]
	overrides documents[*config.Override]
	started   atomic.Bool   // Envoy's workers have started
	names     chan struct{} // has an element if there are names that no pass has covered yet

	// mutex guards the fields below. No gate is evaluated and no watcher notified while it is held.
	mutex    sync.Mutex
	gates    map[*lifecycle.Configuration]*gate
	active   []*gate // those that a probe has come to; replaced, never changed
	filters  map[*configuration]struct{}
	routes   map[*override]struct{}
	prefixes map[prefix]int // of the stats of routes, and how many have it
	serial   uint64         // of the newest configuration or override
	warnAt   time.Time      // when the next warning is due; zero if none is
	// changedAt is when the last configuration or override came, and supersedeAt when those that were replaced give up their watchers;
	// zero if none was replaced.
	changedAt, supersedeAt time.Time

	// The sampler's alone.
	pace         pace
	own          ownGauges
	slowIsLogged bool
	envoyIsKnown bool // one that is tested, or it was logged
}

// prefix is a stat_prefix, "" for the filter's own, and whether its gates may answer gRPC.
type prefix struct {
	name string
	grpc bool
}

// ownGauges are gauges of Envoy itself that the module reads.
type ownGauges struct{ workersStarted, version *gauge }

var envoy = newModule()

func newModule() *module {
	m := &module{
		process:   lifecycle.Process{Lazy: true},
		configs:   documents[*config.Config]{decode: config.Decode},
		overrides: documents[*config.Override]{decode: config.DecodeOverride},
		names:     make(chan struct{}, 1),
		gates:     make(map[*lifecycle.Configuration]*gate),
		filters:   make(map[*configuration]struct{}),
		routes:    make(map[*override]struct{}),
		prefixes:  make(map[prefix]int),
	}
	m.own = ownGauges{m.sampler.register(workersStarted), m.sampler.register(serverVersion)}
	for _, name := range envoystats.ServerGauges() { // sampled for the first probe, as the clusters' are
		m.sampler.register(name)
	}
	return m
}

// configuration is a filter's.
type configuration struct {
	*lifecycle.Configuration
	host   *host
	gauges []*gauge // sampled, so that its first probe need not
	serial uint64
}

// override is a route's configuration.
type override struct {
	*lifecycle.Override
	config *config.Override
	prefix prefix
	gauges []*gauge // sampled, so that its first probe need not
	serial uint64
}

// newConfiguration reads a filter's configuration. Its gate is made with its first stream.
func (m *module) newConfiguration(f *C.hg_filter, configured []byte) (*configuration, error) {
	decoded, err := m.configs.read(configured)
	if err != nil {
		return nil, err
	}
	c := &configuration{host: &host{module: m, filter: f}}
	c.Configuration = m.process.Configure(decoded, c.host)
	c.host.prefix = c.Config().StatPrefix
	grpc := len(c.Config().GRPCServices) > 0
	c.host.define(c.host.prefix, grpc)
	m.defineForRoutes(c.host, grpc)
	c.gauges = m.register(c.Config())
	m.mutex.Lock()
	m.serial++
	c.serial = m.serial
	m.filters[c] = struct{}{}
	m.hasChanged(time.Now())
	m.mutex.Unlock()
	m.passSoon()
	if c.Config().Admin != nil { // its first probe would find nothing yet
		_, err = c.Gate()
	}
	return c, err
}

// register adds the gauges that a configuration's gates will read to what is sampled.
func (m *module) register(c *config.Config) (gauges []*gauge) {
	if c.Admin != nil {
		return nil
	}
	for _, name := range envoystats.ClusterGauges(c.Clusters) {
		gauges = append(gauges, m.sampler.register(name))
	}
	return gauges
}

// unregister undoes a register.
func (m *module) unregister(gauges []*gauge) {
	for _, g := range gauges {
		m.sampler.unregister(g)
	}
}

// defineForRoutes defines the stats of all route overrides that might be merged into a filter's configuration.
func (m *module) defineForRoutes(h *host, grpc bool) {
	m.mutex.Lock()
	prefixes := slices.Collect(maps.Keys(m.prefixes))
	m.mutex.Unlock() // Envoy may have to wait for a pass before it defines a stat
	for _, p := range prefixes {
		name := p.name
		if name == "" {
			name = h.prefix
		}
		h.define(name, grpc || p.grpc)
	}
}

func (m *module) end(c *configuration) {
	c.End()
	m.unregister(c.gauges)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.filters, c)
}

// newOverride reads a route's configuration.
func (m *module) newOverride(configured []byte) (*override, error) {
	if len(configured) == 0 {
		configured = []byte("{}")
	}
	decoded, err := m.overrides.read(configured)
	if err != nil {
		return nil, err
	}
	o := &override{Override: m.process.NewOverride(decoded), config: decoded}
	if decoded.Sets("stat_prefix") {
		o.prefix.name = decoded.Config().StatPrefix
	}
	o.prefix.grpc = decoded.Sets("grpc_services")
	o.gauges = m.register(decoded.Config())
	m.mutex.Lock()
	m.serial++
	o.serial = m.serial
	m.routes[o] = struct{}{}
	m.prefixes[o.prefix]++
	m.hasChanged(time.Now())
	m.mutex.Unlock()
	if len(o.gauges) > 0 {
		m.passSoon()
	}
	return o, nil
}

func (m *module) endOverride(o *override) {
	o.End()
	m.unregister(o.gauges)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.routes, o)
	if m.prefixes[o.prefix]--; m.prefixes[o.prefix] == 0 {
		delete(m.prefixes, o.prefix)
	}
}

// ownGate returns the gate of a filter by itself, referenced once for the caller.
func (m *module) ownGate(c *configuration) *C.hg_gate { return m.gateOf(c.Configuration, c, nil) }

// merge returns the gate of a route's configuration merged into a filter's, referenced once for the caller.
func (m *module) merge(c *configuration, o *override) *C.hg_gate {
	return m.gateOf(o.MergeInto(c.Configuration), c, o)
}

func (m *module) gateOf(merged *lifecycle.Configuration, c *configuration, o *override) *C.hg_gate {
	if _, err := merged.Gate(); err != nil {
		return m.brokenGate(c, merged)
	}
	m.mutex.Lock()
	g := m.gates[merged]
	if g != nil {
		g.filter, g.override = c, o
		C.hg_gate_ref(g.c)
	}
	m.mutex.Unlock()
	if g == nil { // it has ended already
		return errorGate(merged.Paths()).c
	}
	return g.c
}

// brokenGate fails every probe of a configuration that can't be used, counted by the filter's own gate.
func (m *module) brokenGate(c *configuration, merged *lifecycle.Configuration) *C.hg_gate {
	own, err := c.Gate()
	if err != nil {
		return errorGate(merged.Paths()).c
	}
	g := &gate{c: C.hg_gate_create(), core: own, replies: make(map[*gates.Reply]*C.hg_reply)}
	g.failAlways(merged.Paths(), g.reply(own.FailingReply(policy.Error)))
	return g.c
}

// errorGate fails every probe, and counts none.
func errorGate(paths []string) *gate {
	g := &gate{c: C.hg_gate_create()}
	reply := newReply(gates.FailClosed())
	C.hg_gate_add_reply(g.c, reply)
	g.failAlways(paths, reply)
	return g
}

func (m *module) add(g *gate) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.gates[g.configuration] = g
	if at := g.nextWarning(); !at.IsZero() && (m.warnAt.IsZero() || at.Before(m.warnAt)) {
		m.warnAt = at
	}
}

func (m *module) remove(g *gate) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.gates, g.configuration)
	if i := slices.Index(m.active, g); i >= 0 {
		m.active = slices.Concat(m.active[:i], m.active[i+1:])
	}
}

// firstProbe activates a gate and returns its reply. It is called on a worker.
func (m *module) firstProbe(g *gate) *C.hg_reply {
	g.core.Activate()
	if !m.started.Load() || !g.reader.covered() {
		m.sample(true)
	}
	m.mutex.Lock()
	if m.gates[g.configuration] == g && !slices.Contains(m.active, g) {
		m.active = append(slices.Clip(m.active), g)
	}
	m.mutex.Unlock()
	g.evaluate(m.sampler.last())
	return g.now()
}

// confirmations is how many more passes a change brings at most. Envoy writes the gauges of a cluster one after the other, on its main
// thread, so what a pass has found of them may never have been true together; what the next one finds too, was.
const confirmations = 2

// sample makes a pass and evaluates what it has changed. workersRun is whether Envoy's workers are known to have started.
func (m *module) sample(workersRun bool) {
	began, passed, changed := m.sampler.pass(workersRun)
	for again := 0; changed && again < confirmations; again++ {
		began, passed, changed = m.sampler.pass(workersRun)
	}
	if workersRun {
		m.started.Store(true)
	}
	m.evaluate(func(*gate) bool { return false })
	if passed {
		setSampledAt(began)
		C.hg_metrics_count_sample()
	}
}

// evaluate evaluates the active gates whose gauges have changed, that depend on time, or for which also is true. If a reply
// changes between passing and failing, the watchers are notified.
func (m *module) evaluate(also func(*gate) bool) {
	m.mutex.Lock()
	active := m.active
	m.mutex.Unlock()
	changed, pass := false, m.sampler.last()
	for _, g := range active {
		if also(g) || g.outdated() {
			changed = g.evaluate(pass) || changed
		}
	}
	if changed {
		notifyWatchers()
	}
}

// run samples until Envoy ends. It has a thread of its own: Envoy's main thread checks the hosts, and must not wait for passes that take
// a tenth of a second if there are 10,000 clusters.
func (m *module) run() {
	runtime.LockOSThread()
	for !stopped.Load() {
		m.tick()
		regular := time.NewTimer(m.pace.wait(sinceBoot(), false))
		select {
		case <-m.names:
			time.Sleep(min(m.pace.wait(sinceBoot(), true), m.pace.wait(sinceBoot(), false)))
		case <-regular.C:
		}
		regular.Stop()
	}
}

// tick makes a pass, and does what is due.
func (m *module) tick() {
	defer recovered("while the clusters were sampled")
	select {
	case <-m.names: // this pass covers them
	default:
	}
	cpu := cpuTime()
	defer func() {
		m.pace.passed(sinceBoot(), cpuTime()-cpu)
		C.hg_age_set_sample_limit(C.int64_t(m.pace.ageLimit()))
	}()
	if m.idle() {
		setSampledAt(sinceBoot())
		C.hg_metrics_count_sample()
		return
	}
	m.sample(m.started.Load())
	if m.own.workersStarted.Get() > 0 || !m.own.workersStarted.Found() { // a gauge that is not kept would never be 1
		m.started.Store(true)
	}
	m.checkEnvoy()
	m.logSlowness()
	m.warn(time.Now())
	m.supersede(time.Now())
}

// idle reports whether nothing needs a sample.
func (m *module) idle() bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return len(m.filters) == 0 && len(m.gates) == 0 && !m.sampler.clusters.collecting()
}

// passSoon brings the next pass forward, for names that no pass has covered yet: one pass for all that come meanwhile.
func (m *module) passSoon() {
	select {
	case m.names <- struct{}{}:
	default:
	}
}

// logSlowness writes a line once the passes cost so much that samples may be older than usual.
func (m *module) logSlowness() {
	if limit := m.pace.ageLimit(); limit > defaultAgeLimit && !m.slowIsLogged {
		m.slowIsLogged = true
		log(C.HG_LOG_WARN, fmt.Sprintf("healthgate: Envoy has so many stats that reading them takes %v, so the clusters are sampled every %v "+
			"only, and a sample may be %v old before probes are answered with healthgate_stale",
			m.pace.cost.Round(time.Millisecond), m.pace.period().Round(100*time.Millisecond), limit.Round(100*time.Millisecond)))
	}
}

func (m *module) warn(now time.Time) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.warnAt.IsZero() || now.Before(m.warnAt) {
		return
	}
	m.warnAt = time.Time{}
	for _, g := range m.gates {
		g.warn(now)
		if at := g.nextWarning(); !at.IsZero() && (m.warnAt.IsZero() || at.Before(m.warnAt)) {
			m.warnAt = at
		}
	}
}

// cluster takes that Envoy has added, updated or removed a cluster.
func (m *module) cluster(name string, removed bool) {
	hash := hashOf(name)
	m.sampler.clusters.report(name, clusterKey(name), removed)
	reads := func(g *gate) bool { return slices.Contains(g.reader.clusters, hash) }
	m.evaluate(reads)
	m.mutex.Lock()
	isRead := slices.ContainsFunc(m.active, reads)
	m.mutex.Unlock()
	if isRead && !removed { // its gauges may be new
		m.passSoon()
	}
}

// everySecond does what must go on while no gate changes: the main thread may hang, and watchers have to know.
func (m *module) everySecond() {
	for range time.Tick(time.Second) {
		if stopped.Load() {
			return
		}
		m.mutex.Lock()
		limit := defaultAgeLimit
		for _, g := range m.active {
			limit = min(limit, time.Duration(g.c.age_limit))
		}
		m.mutex.Unlock()
		C.hg_age_check(C.int64_t(limit))
		notifyWatchers()
	}
}

func handleOf[T any](handle C.uintptr_t) T { return cgo.Handle(handle).Value().(T) }
