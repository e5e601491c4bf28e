package lifecycle

import (
	"maps"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
	"healthgate/filter/gate"
)

// Configuration is that of a filter, or one that a route's override was laid over. Its methods are safe for use from any
// thread.
type Configuration struct {
	process *Process
	host    Host             // of the filter
	raw     *structpb.Struct // as it was read, for an override to be laid over
	config  *config.Config   // nil where it can't be used
	err     error            // why it can't be used
	told    atomic.Bool      // of err, in Envoy's log
	paths   []string         // of what is a probe of it
	filters *Configuration   // the filter's own: itself, or what it was laid over in the end

	// Its gate, once there is one. A configuration that an override was laid over gets its gate with the first probe: where
	// levels nest, those in between answer nobody, and cost nothing.
	gate   atomic.Pointer[gate.Gate]
	making sync.Mutex
	ends   []func()   // of what the gate needs while it lives; guarded by making
	ended  bool       // nothing may be started that would have to end; guarded by making
	ending sync.Mutex // held while ends are run: whoever ends it too has to wait

	overlay map[*Override]*Configuration // what was laid over it; guarded by Process.life
	gone    bool                         // nothing is laid over it any more; guarded by Process.life
}

// Configure reads a filter's configuration and, unless the process is lazy, starts its gate. The error, where there is one, tells all that is wrong, and
// nothing was started.
func (p *Process) Configure(raw *structpb.Struct, host Host) (*Configuration, error) {
	config, err := config.Decode(raw, p.Variant)
	if err != nil {
		return nil, err
	}
	c := &Configuration{process: p, host: host, raw: raw, config: config, paths: []string{config.Path}}
	c.filters = c
	if !p.Lazy {
		c.start()
	}
	return c, nil
}

// Gate is what answers the configuration's probes, started where there is none yet; by a variant that asks it beforehand. The
// error is why the configuration can't be used.
func (c *Configuration) Gate() (*gate.Gate, error) {
	if c.err != nil {
		c.tell()
		return nil, c.err
	}
	return c.started(), nil
}

// Filters is the configuration of the filter, which this one is or was laid over.
func (c *Configuration) Filters() *Configuration { return c.filters }

// Config is what the configuration says, nil where it can't be used.
func (c *Configuration) Config() *config.Config { return c.config }

// Paths are those whose requests are probes.
func (c *Configuration) Paths() []string { return c.paths }

// End ends what the configuration has started, and all that was laid over it. Probes that are under way are still
// answered. It may be called more than once.
func (c *Configuration) End() {
	c.process.life.Lock()
	c.gone = true
	over := maps.Clone(c.overlay)
	c.process.life.Unlock()
	for _, laid := range over {
		laid.End()
	}
	// Only now: the other side of a pair must not be gone before what came of the pair has ended.
	c.process.life.Lock()
	for override := range over {
		delete(override.over, c)
	}
	c.overlay = nil
	c.process.life.Unlock()
	c.ending.Lock()
	defer c.ending.Unlock()
	c.making.Lock()
	ends := c.ends
	c.ends, c.ended = nil, true
	c.making.Unlock()
	c.run(ends)
}

// started returns the gate, and starts it where there is none yet; of an ended configuration it starts nothing that would
// have to end. It is called on a thread on which Envoy can define stats.
func (c *Configuration) started() *gate.Gate {
	if gate := c.gate.Load(); gate != nil {
		return gate
	}
	return c.start()
}
