package lifecycle

import (
	"slices"
	"sync"
	"time"

	"healthgate/filter/envoystats"
	"healthgate/filter/gate"
)

// start makes the gate, and what it needs while it lives.
func (c *Configuration) start() *gate.Gate {
	c.making.Lock()
	defer c.making.Unlock()
	if gate := c.gate.Load(); gate != nil {
		return gate
	}
	ready := false
	defer func() {
		if !ready || c.ended { // a panic of Envoy's side, or a probe that came late: what was started has to end
			ends := c.ends
			c.ends = nil
			c.run(ends)
		}
	}()
	host := gate.Envoy(c.host)
	sampler, samples := c.host.(Sampler)
	var reader Reader
	if samples {
		reader = sampler.NewReader()
		c.ends = append(c.ends, reader.Close)
		host = reader
	}
	gate := gate.New(c.config, c.source(host), host, &c.process.gates)
	c.ends = append(c.ends, gate.Close)
	if samples {
		c.ends = append(c.ends, reader.Register(c, gate))
	} else if !c.ended {
		c.warn(gate)
		c.watch(gate)
	}
	c.gate.Store(gate)
	ready = true
	return gate
}

// run ends what was started, the last first.
func (c *Configuration) run(ends []func()) {
	for _, end := range slices.Backward(ends) {
		c.guarded("at the end of a configuration", end)
	}
}

// source opens the source of the clusters' health.
func (c *Configuration) source(host gate.Envoy) gate.Source {
	if c.config.Admin != nil {
		polled := c.process.pollers.Source(c.config, c.host.Warn)
		// A configuration that takes the place of this one finds what was seen last: its first probe would be stale else.
		c.ends = append(c.ends, func() { time.AfterFunc(c.config.StaleAfter, polled.Close) })
		return polled
	}
	stats := envoystats.NewSource(c.config.Clusters, c.config.StaleAfter, host, &c.process.ages, host.Now())
	c.ends = append(c.ends, stats.Close)
	return stats
}

// warn has the gate look at what it can warn of, when it is time.
func (c *Configuration) warn(gate *gate.Gate) {
	for _, warning := range gate.Warnings() {
		timer := time.AfterFunc(warning.After, func() { c.guarded("in a warning", warning.Check) })
		c.ends = append(c.ends, func() { timer.Stop() })
	}
}

// watch has the gate look at the clusters between probes, until it is ended or Envoy's side has gone.
func (c *Configuration) watch(gate *gate.Gate) {
	every := gate.EvaluationInterval()
	if every == 0 {
		return
	}
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if !c.guarded("between probes", func() { gate.Evaluate() }) {
				return
			}
		}
	}()
	c.ends = append(c.ends, sync.OnceFunc(func() { close(done) }))
}

// guarded calls f, and says whether Envoy's side is there. On a goroutine, and at the end of a configuration, it may have
// gone: reading a stat panics then, and unrecovered that would end Envoy. There is nothing left to do for such a
// configuration. Any other panic is logged.
func (c *Configuration) guarded(where string, f func()) (there bool) {
	defer func() {
		if cause := recover(); cause != nil {
			if there = !c.host.Gone(cause); there {
				c.process.LogPanic(c.host, where, cause)
			}
		}
	}()
	f()
	return true
}
