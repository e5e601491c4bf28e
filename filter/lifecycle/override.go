package lifecycle

import (
	"fmt"
	"maps"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
)

// Override is a route's configuration, as it is before it is laid over a filter's. Where levels nest (a RouteConfiguration,
// a virtual host, a route), each has its own, laid over the wider one's.
type Override struct {
	process *Process
	raw     *structpb.Struct
	config  *config.Config // by itself; nil if it can't be used
	err     error          // why it can't be used, whatever it is laid over
	gone    bool           // Envoy has dropped it; guarded by Process.life

	// What it was laid over, and what came of it. One pair is one configuration, however many listeners, threads or turns
	// ask for it; it lives as long as both. An error of a pair is the pair's. Guarded by Process.life.
	over map[*Configuration]*Configuration
}

// NewOverride reads a route's configuration, and always returns one to lay over a filter's. The error, where there is one,
// is for a variant that can still refuse it; else the route's probes are failed.
func (p *Process) NewOverride(raw *structpb.Struct) (*Override, error) {
	config, err := config.DecodeOverride(raw, p.Variant)
	return &Override{process: p, raw: raw, config: config, err: err}, err
}

// Config is the override by itself, with defaults for the keys that it leaves out; nil if it can't be used.
func (o *Override) Config() *config.Config { return o.config }

// Sets reports whether the override has a key.
func (o *Override) Sets(key string) bool { return o.raw.GetFields()[key] != nil }

// Empty reports whether the override has no key at all.
func (o *Override) Empty() bool { return len(o.raw.GetFields()) == 0 }

// BrokenOverride is one that could not even be read.
func (p *Process) BrokenOverride(err error) *Override { return &Override{process: p, err: err} }

// Over lays the override over a configuration. It always returns one: what can't be used, and what is laid over something
// that can't, fails its probes.
func (o *Override) Over(base *Configuration) *Configuration {
	o.process.life.Lock()
	defer o.process.life.Unlock()
	if laid := o.over[base]; laid != nil {
		return laid
	}
	laid := &Configuration{process: base.process, host: base.host, filters: base.filters}
	laid.layOver(base, o)
	if o.gone || base.gone { // a probe that came late: Envoy would end neither
		laid.ended, laid.gone = true, true
		return laid
	}

	if o.over == nil {
		o.over = make(map[*Configuration]*Configuration)
	}
	if base.overlay == nil {
		base.overlay = make(map[*Override]*Configuration)
	}
	o.over[base], base.overlay[o] = laid, laid
	return laid
}

// layOver reads what comes of an override and its base.
func (c *Configuration) layOver(base *Configuration, o *Override) {
	defer func() {
		if cause := recover(); cause != nil {
			c.err = fmt.Errorf("panic: %v", cause)
		}
		if c.err != nil {
			c.config = nil
			c.paths = base.paths
			// What the route meant to be its path is not for others to answer.
			if path := o.raw.GetFields()["path"].GetStringValue(); path != "" {
				c.paths = append([]string{path}, base.paths...)
			}
		}
	}()
	c.raw = config.Merge(base.raw, o.raw)
	switch {
	case base.err != nil:
		c.err = base.err
	case o.err != nil:
		c.err = o.err
	default:
		if c.config, c.err = config.Decode(c.raw, c.process.Variant); c.err == nil {
			c.paths = []string{c.config.Path}
		}
	}
}

// End ends all that came of the override. It may be called more than once.
func (o *Override) End() {
	o.process.life.Lock()
	o.gone = true
	over := maps.Clone(o.over)
	o.process.life.Unlock()
	for _, laid := range over {
		laid.End()
	}
	// Only now: Configuration.End has the reason.
	o.process.life.Lock()
	defer o.process.life.Unlock()
	for base := range over {
		delete(base.overlay, o)
	}
	o.over = nil
}
