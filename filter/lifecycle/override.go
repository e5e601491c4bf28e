package lifecycle

import (
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
)

// Override is a route override. Each level (RouteConfiguration, virtual host, route) has its own, merged into the wider one.
type Override struct {
	process *Process
	serial  uint64
	config  *config.Override // nil if it is broken
	err     error            // why it is broken
	path    string           // as written, "" if it sets none
	side    side
}

// NewOverride returns a decoded override.
func (p *Process) NewOverride(decoded *config.Override) *Override {
	return &Override{process: p, serial: p.serial.Add(1), config: decoded, path: decoded.Path()}
}

// NewBrokenOverride returns an override that Envoy can no longer refuse: its probes fail. raw may be nil.
func (p *Process) NewBrokenOverride(raw *structpb.Struct, err error) *Override {
	return &Override{process: p, serial: p.serial.Add(1), err: err, path: raw.GetFields()["path"].GetStringValue()}
}

// Serial returns a number that grows with each configuration and each override of the process.
func (o *Override) Serial() uint64 { return o.serial }

// MergeInto returns the configuration with the override applied, always the same one for the same parent. If either is broken, or both
// do not fit together, the merged configuration is broken.
func (o *Override) MergeInto(parent *Configuration) *Configuration {
	o.process.pairs.Lock()
	defer o.process.pairs.Unlock()
	if pair := o.side.merged[&parent.side]; pair != nil {
		return pair
	}
	c := &Configuration{process: parent.process, envoy: parent.envoy, filter: parent.filter, serial: max(parent.serial, o.serial),
		done: make(chan struct{})}
	if c.config, c.err = o.merge(parent); c.err == nil {
		c.paths = []string{c.config.Path}
	} else if c.paths = parent.paths; o.path != "" { // nothing else may answer the path that the route was meant to have
		c.paths = append([]string{o.path}, parent.paths...)
	}
	if !recordPair(&parent.side, &o.side, c) { // a side has ended: the probe was late
		c.ended, c.side.ended = true, true
		close(c.done)
	}
	return c
}

func (o *Override) merge(parent *Configuration) (c *config.Config, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			c, err = nil, fmt.Errorf("panic: %v", cause)
		}
	}()
	switch {
	case parent.err != nil:
		return nil, parent.err
	case o.err != nil:
		return nil, o.err
	}
	return parent.config.Merge(o.config)
}

// End ends all merged configurations of the override. It may be called more than once.
func (o *Override) End() { o.side.endPairs(&o.process.pairs) }
