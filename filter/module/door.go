package module

/*
#include "healthgate.h"
*/
import "C"

import (
	"runtime/cgo"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter"
	"healthgate/filter/serve"
)

// door is what all configurations of this Envoy have in common.
type door struct {
	process serve.Process
	sampler sampler

	// mutex guards what follows. It is held while gates are looked at, and so a configuration that ends on another thread waits for
	// that; never while watchers are told, which may end configurations of this thread's.
	mutex    sync.Mutex
	gates    []*gate
	filters  map[*configuration]struct{}
	routes   map[*override]struct{}
	watching bool // a goroutine watches the watchers

	// The main thread's alone.
	countersAt time.Time // when the counters were passed over last
	starts     bool      // the workers have not started
}

var envoy = newDoor()

func newDoor() *door {
	d := &door{
		process: serve.Process{Door: filter.Stock},
		filters: make(map[*configuration]struct{}),
		routes:  make(map[*override]struct{}),
		starts:  true,
	}
	d.sampler.want(filter.Reads{Gauges: append(filter.ServerReads(), workersStarted)})
	return d
}

// configuration is that of a filter.
type configuration struct {
	*serve.Configuration
	host  *host
	reads filter.Reads
	gate  *gate // its own
}

// override is a route's configuration.
type override struct {
	*serve.Override
	reads  filter.Reads
	prefix string // the stat_prefix that it sets, "" where none
	grpc   bool   // it sets grpc_services
	// overrides says that it says more than that the filter is enabled.
	overrides bool
}

// newConfiguration reads a filter's configuration and starts its gate, which by then knows how its clusters are.
func (d *door) newConfiguration(f *C.hg_filter, configured []byte) (*configuration, error) {
	raw, err := unpack(configured)
	if err != nil {
		return nil, err
	}
	config, err := filter.Decode(raw, filter.Stock)
	if err != nil {
		return nil, err
	}
	c := &configuration{host: &host{door: d, filter: f, prefix: config.StatPrefix}, reads: filter.ReadsOf(raw)}
	d.defineFor(c.host, len(config.GRPCServices) > 0)
	d.sampler.want(c.reads)
	d.mutex.Lock()
	d.filters[c] = struct{}{}
	d.mutex.Unlock()
	d.passNow()
	if c.Configuration, err = d.process.Configure(raw, c.host); err != nil {
		d.forget(c)
		return nil, err
	}
	c.gate = d.gateOf(c.Configuration)
	if len(config.GRPCServices) > 0 {
		d.watchWatchers()
	}
	return c, nil
}

// defineFor makes the stats of a filter, and of all routes that might be laid over it.
func (d *door) defineFor(h *host, grpc bool) {
	h.define(h.prefix, grpc)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for route := range d.routes {
		prefix := route.prefix
		if prefix == "" {
			prefix = h.prefix
		}
		h.define(prefix, grpc || route.grpc)
	}
}

// forget lets go of what a configuration reads.
func (d *door) forget(c *configuration) {
	d.sampler.letGo(c.reads)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.filters, c)
}

func (d *door) end(c *configuration) {
	c.End()
	d.forget(c)
}

// newOverride reads a route's configuration.
func (d *door) newOverride(configured []byte) (*override, error) {
	raw := &structpb.Struct{}
	if len(configured) > 0 {
		var err error
		if raw, err = unpack(configured); err != nil {
			return nil, err
		}
	}
	laid, err := d.process.NewOverride(raw)
	if err != nil {
		return nil, err
	}
	o := &override{Override: laid, reads: filter.ReadsOf(raw), prefix: raw.GetFields()["stat_prefix"].GetStringValue(),
		grpc: raw.GetFields()["grpc_services"] != nil, overrides: len(raw.GetFields()) > 0}
	d.sampler.want(o.reads)
	d.mutex.Lock()
	d.routes[o] = struct{}{}
	d.mutex.Unlock()
	if len(o.reads.Gauges) > 0 || o.reads.Aging {
		d.passNow()
	}
	return o, nil
}

func (d *door) endOverride(o *override) {
	o.End()
	d.sampler.letGo(o.reads)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.routes, o)
}

// lay lays a route's configuration over a filter's, and returns the gate that answers its probes, held once.
func (d *door) lay(c *configuration, o *override) *C.hg_gate {
	laid := o.Over(c.Configuration)
	if _, err := laid.Gate(); err != nil {
		return brokenGate(c, laid)
	}
	g := d.gateOf(laid)
	if g == nil { // it has ended already
		return brokenGate(c, laid)
	}
	if len(laid.Config().GRPCServices) > 0 {
		d.watchWatchers()
	}
	C.hg_gate_hold(g.c)
	return g.c
}

// brokenGate fails whatever might have been meant as a probe of a configuration that can't be used, and is counted by the filter's own.
func brokenGate(c *configuration, laid *serve.Configuration) *C.hg_gate {
	g := &gate{c: C.hg_gate_new(), core: c.gate.core, replies: make(map[*filter.Reply]*C.hg_reply)}
	g.setPaths(laid.Paths())
	g.c.error = g.reply(g.core.Unjudged(filter.Error))
	g.c.stale = g.c.error
	C.hg_gate_publish(g.c, g.c.error)
	return g.c
}

// LookAt is how a gate comes, and what it returns how it goes.
func (h *host) LookAt(c *serve.Configuration, core *filter.Gate) (end func()) {
	g := newGate(c, core, h)
	d := h.door
	d.mutex.Lock()
	d.gates = append(d.gates, g)
	d.mutex.Unlock()
	return func() {
		d.mutex.Lock()
		d.gates = slices.DeleteFunc(d.gates, func(other *gate) bool { return other == g })
		d.mutex.Unlock()
		g.end()
	}
}

func (d *door) gateOf(c *serve.Configuration) *gate {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, g := range d.gates {
		if g.configuration == c {
			return g
		}
	}
	return nil
}

// passNow makes a pass for a configuration that comes, so that it never serves an unknown state.
func (d *door) passNow() {
	at := sinceBoot()
	d.sampler.pass(false)
	if aging, _ := d.aging(); aging {
		d.passCounters(time.Now())
	}
	if sampledAt() == 0 {
		setSampledAt(at)
	}
}

// aging says whether the counters are asked for anybody's age, and how short the shortest stale_after is.
func (d *door) aging() (aging bool, shortest time.Duration) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for c := range d.filters {
		aging = aging || c.reads.Aging
	}
	for o := range d.routes {
		aging = aging || o.reads.Aging
	}
	for _, g := range d.gates {
		if d := g.configuration.Config().StaleAfter; d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	return aging, shortest
}

func (d *door) passCounters(now time.Time) {
	d.countersAt = now
	d.sampler.pass(true)
}

// tick looks at everything, and says when to come again.
func (d *door) tick() time.Duration {
	now, at := time.Now(), sinceBoot()
	took := d.sampler.pass(false)
	due := d.due(now)
	if aging, shortest := d.aging(); due || aging && now.Sub(d.countersAt) >= countersEvery(shortest) {
		d.passCounters(now)
	}
	if due {
		d.warn(now)
	}
	d.judge()
	setSampledAt(at)
	if d.starts {
		started := d.sampler.read(workersStarted, false).(*stat)
		d.starts = started.Found() && started.Get() == 0 // one that is not kept would never be 1
		if !d.starts {
			C.hg_has_started()
		}
	}
	return next(took, d.starts)
}

// look is tick's for a worker that is asked while Envoy starts. Envoy's gauges can be passed over on any thread; the counters can
// wait.
func (d *door) look() {
	at := sinceBoot()
	d.sampler.pass(false)
	d.judgeAll()
	setSampledAt(at)
}

// due says whether it is time for a warning.
func (d *door) due(now time.Time) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return slices.ContainsFunc(d.gates, func(g *gate) bool { return g.due(now) })
}

func (d *door) warn(now time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, g := range d.gates {
		g.warn(now)
	}
}

// judge has every gate judge by what is known, and the watchers told where one has turned.
func (d *door) judge() {
	if d.judgeAll() {
		C.hg_watch_tell()
	}
}

func (d *door) judgeAll() (turned bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, g := range d.gates {
		turned = g.judge() || turned
	}
	return turned
}

// cluster takes that Envoy has added or removed one. A removed cluster's gauges may stay as they are: nobody waits for a pass.
func (d *door) cluster(name string, gone bool) {
	if d.sampler.life(name, gone) && gone {
		d.judge()
	}
}

// watchWatchers has the watchers told once a second what they have not been sent, whatever the main thread does: that it hangs, too.
func (d *door) watchWatchers() {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.watching {
		return
	}
	d.watching = true
	go func() {
		for range time.Tick(time.Second) {
			if stopped.Load() {
				return
			}
			C.hg_watch_tell()
		}
	}()
}

func handleOf[T any](handle C.uintptr_t) T { return cgo.Handle(handle).Value().(T) }
