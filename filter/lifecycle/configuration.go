package lifecycle

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/gate"
)

// Sampler is an Envoy whose stats are sampled in the background, so that each gate's reply is published before a probe needs it.
type Sampler interface {
	// NewReader returns the Envoy of one gate.
	NewReader() Reader
}

// Reader is the Envoy of one gate, whose stats are sampled until it is closed.
type Reader interface {
	gate.Envoy
	// Register adds the gate, which reads its stats through this Reader, to the sampler; the returned function removes it.
	Register(c *Configuration, g *gate.Gate) (unregister func())
	// Close ends the sampling of the stats that only this Reader needs.
	Close()
}

// Configuration is a filter's configuration, or a merged one. Its methods are safe for concurrent use.
type Configuration struct {
	process *Process
	envoy   Envoy
	filter  *Configuration // the filter's own configuration: this one, or its outermost parent
	serial  uint64         // a merged configuration has the serial of its newer side
	config  *config.Config // nil if it is broken
	err     error          // why it is broken
	paths   []string       // whose requests are probes
	logged  atomic.Bool    // err is in Envoy's log
	side    side           // this configuration as the parent in pairs

	// gate is nil before the first probe of a merged configuration: if levels nest, those in between answer no probes, and cost nothing.
	gate   atomic.Pointer[gate.Gate]
	making sync.Mutex
	ends   []func()      // run in reverse order when the gate ends; guarded by making
	ended  bool          // nothing may start any more; guarded by making
	done   chan struct{} // closed once all ends have run
}

// Configure creates a filter's configuration, and its gate unless the process is lazy.
func (p *Process) Configure(decoded *config.Config, envoy Envoy) *Configuration {
	c := &Configuration{process: p, envoy: envoy, serial: p.serial.Add(1), config: decoded, paths: []string{decoded.Path},
		done: make(chan struct{})}
	c.filter = c
	if !p.Lazy {
		c.makeGate()
	}
	return c
}

// Gate returns the gate, and makes it if there is none yet. If the configuration is broken, the error has the reason.
func (c *Configuration) Gate() (*gate.Gate, error) {
	if c.err != nil {
		c.logError()
		return nil, c.err
	}
	return c.ensureGate(), nil
}

// Config returns the decoded configuration, nil if it is broken.
func (c *Configuration) Config() *config.Config { return c.config }

// Serial returns a number that grows with each configuration and each override of the process.
func (c *Configuration) Serial() uint64 { return c.serial }

// Paths returns the paths whose requests are probes.
func (c *Configuration) Paths() []string { return c.paths }

// End ends the gate and all merged configurations of which this one is the parent. Probes that are being answered still get their
// reply. It may be called more than once; each call returns after the end.
func (c *Configuration) End() {
	c.side.endPairs(&c.process.pairs)
	c.making.Lock()
	ends, isFirst := c.ends, !c.ended
	c.ends, c.ended = nil, true
	c.making.Unlock()
	if isFirst {
		defer close(c.done)
		c.runAll(ends)
		return
	}
	<-c.done
}

// logError logs, once, why the configuration is broken.
func (c *Configuration) logError() {
	if c.logged.CompareAndSwap(false, true) {
		c.envoy.Error("healthgate: a route's configuration can't be used, its probes are answered with 503: " + c.err.Error())
	}
}

// ensureGate returns the gate, and makes it if there is none yet. It must be called on a thread on which Envoy can define stats.
func (c *Configuration) ensureGate() *gate.Gate {
	if g := c.gate.Load(); g != nil {
		return g
	}
	return c.makeGate()
}

// makeGate creates the gate, and starts its source, warnings and evaluations. If the configuration has ended, it starts nothing.
func (c *Configuration) makeGate() *gate.Gate {
	c.making.Lock()
	defer c.making.Unlock()
	if g := c.gate.Load(); g != nil {
		return g
	}
	complete := false
	defer func() {
		if !complete || c.ended { // a call into Envoy panicked, or the configuration has ended meanwhile
			ends := c.ends
			c.ends = nil
			c.runAll(ends)
		}
	}()
	var envoy gate.Envoy = c.envoy
	var reader Reader
	if sampler, ok := c.envoy.(Sampler); ok {
		reader = sampler.NewReader()
		c.ends = append(c.ends, reader.Close)
		envoy = reader
	}
	g := gate.New(c.config, c.serial, c.newSource(envoy), envoy, &c.process.gates)
	c.ends = append(c.ends, g.Close)
	if reader != nil {
		c.ends = append(c.ends, reader.Register(c, g))
	} else if !c.ended {
		c.evaluateBetweenProbes(g)
	}
	if !c.ended {
		c.scheduleWarnings(g)
	}
	c.gate.Store(g)
	complete = true
	return g
}

// runAll runs ends in reverse order, all of them even if a panic can't be logged.
func (c *Configuration) runAll(ends []func()) {
	for _, end := range ends {
		defer c.guarded("at the end of a configuration", end)
	}
}

func (c *Configuration) newSource(envoy gate.Envoy) gate.Source {
	if c.config.Admin != nil {
		polled := c.process.pollers.Source(c.config, c.envoy.Warn)
		// Keeps the last poll for a configuration that replaces this one: otherwise its first probe would be stale.
		c.ends = append(c.ends, func() { time.AfterFunc(c.config.StaleAfter, polled.Close) })
		return polled
	}
	stats := envoystats.NewSource(c.config.Clusters, c.config.StaleAfter, envoy, &c.process.ages, envoy.Now())
	c.ends = append(c.ends, stats.Close)
	return stats
}

func (c *Configuration) scheduleWarnings(g *gate.Gate) {
	for _, warning := range g.Warnings() {
		timer := time.AfterFunc(warning.After, func() { c.guarded("in a warning", warning.Check) })
		c.ends = append(c.ends, func() { timer.Stop() })
	}
}

// evaluateBetweenProbes evaluates the gate regularly until the gate ends or Envoy has destroyed its own configuration object.
func (c *Configuration) evaluateBetweenProbes(g *gate.Gate) {
	interval := g.EvaluationInterval()
	if interval == 0 {
		return
	}
	ctx, end := context.WithCancel(context.Background())
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if !c.guarded("between probes", func() { g.Evaluate() }) {
				return
			}
		}
	}()
	c.ends = append(c.ends, end)
}

// guarded calls f and reports whether Envoy's own configuration object still exists. On a goroutine, and at the end of a configuration,
// Envoy may have destroyed it. Then reading a stat panics, which must not end Envoy. Any other panic is logged.
func (c *Configuration) guarded(where string, f func()) (exists bool) {
	defer func() {
		if cause := recover(); cause != nil {
			if exists = !c.envoy.IsGone(cause); exists {
				c.process.LogPanic(c.envoy, where, cause)
			}
		}
	}()
	f()
	return true
}
