package golang

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	xds "github.com/cncf/xds/go/xds/type/v3"
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter"
	"healthgate/filter/admin"
)

// emptyClusterDelay is how long a cluster may take to show its first host before a warning says what may be wrong.
const emptyClusterDelay = 30 * time.Second

// Parser reads configurations for Envoy; it is the config parser that Envoy is given.
type Parser struct{}

// configuration is what Envoy holds of a filter's configuration, or of a route's merged with it.
type configuration struct {
	responder responder
	gate      *filter.Gate
	raw       *structpb.Struct // as it was read, for a route to override
	callbacks api.ConfigCallbackHandler
	end       []func() // what ends with it
}

// override is what Envoy holds of a route's configuration until it is merged.
type override struct {
	raw *structpb.Struct
	err error // why it can't be used; raw may be nil
}

// process is what the configurations of one Envoy share.
var process struct {
	liveness   filter.Liveness
	pollers    admin.Pollers
	mainThread atomic.Int64 // its id, once a filter's configuration was parsed on it; 0 before
}

// Parse reads a configuration. An error makes Envoy refuse it; where callbacks are nil it is a route's, and then not
// always: Envoy parses the routes of a listener's own route_config at the first request, on a worker, and aborts on an
// error there. What is wrong there is logged, and each probe of the route is failed.
func (Parser) Parse(configured *anypb.Any, callbacks api.ConfigCallbackHandler) (parsed any, err error) {
	if callbacks == nil {
		return parseRoute(configured)
	}
	defer func() {
		if cause := recover(); cause != nil {
			parsed, err = nil, fmt.Errorf("healthgate: panic in the configuration: %v", cause)
		}
	}()
	process.mainThread.Store(int64(syscall.Gettid()))
	raw, err := unpack(configured)
	if err != nil {
		return nil, err
	}
	decoded, err := filter.Decode(raw)
	if err != nil {
		return nil, err
	}
	return newConfiguration(decoded, raw, callbacks), nil
}

func parseRoute(configured *anypb.Any) (parsed any, err error) {
	route := &override{}
	func() {
		defer func() {
			if cause := recover(); cause != nil {
				route.err = fmt.Errorf("healthgate: panic in the configuration of a route: %v", cause)
			}
		}()
		if route.raw, route.err = unpack(configured); route.err == nil {
			route.err = filter.CheckOverride(route.raw)
		}
	}()
	if route.err != nil && int64(syscall.Gettid()) == process.mainThread.Load() {
		return nil, route.err
	}
	return route, nil
}

// Merge lays a route's configuration over the filter's, or over that of a wider route. It may run on a worker and can't
// refuse: what can't be merged is logged, and each probe of the route is failed.
func (Parser) Merge(parent, child any) (merged any) {
	base, ok := parent.(*configuration)
	if !ok {
		api.LogErrorf("healthgate: a route's configuration has no filter's to override")
		return parent
	}
	route, ok := child.(*override)
	if !ok {
		route = &override{err: errors.New("not a configuration of healthgate")}
	}
	defer func() {
		if cause := recover(); cause != nil {
			route.err = fmt.Errorf("panic: %v", cause)
			merged = base.broken(route)
		}
	}()
	if route.err != nil {
		return base.broken(route)
	}
	raw := filter.Override(base.raw, route.raw)
	decoded, err := filter.Decode(raw)
	if err != nil {
		route.err = err
		return base.broken(route)
	}
	return newConfiguration(decoded, raw, base.callbacks)
}

// Destroy is called by Envoy when the configuration has gone on its side, perhaps while a probe still uses it here.
func (c *configuration) Destroy() {
	for _, end := range c.end {
		end()
	}
}

func newConfiguration(decoded *filter.Config, raw *structpb.Struct, callbacks api.ConfigCallbackHandler) *configuration {
	h := host{callbacks}
	c := &configuration{raw: raw, callbacks: callbacks}
	var source filter.Source
	if decoded.Admin != nil {
		polled := process.pollers.Source(decoded, h.Warn)
		c.end = append(c.end, polled.Close)
		source = polled
	} else {
		source = filter.NewStatsSource(decoded, h, h.Now())
	}
	ready := false
	defer func() {
		if !ready { // a panic of Envoy's side: what was started has to end
			c.Destroy()
		}
	}()
	c.gate = filter.NewGate(decoded, source, h, &process.liveness)
	c.responder = c.gate
	warning := time.AfterFunc(emptyClusterDelay, func() { unlessGone(c.gate.WarnOfEmptyClusters) })
	c.end = append(c.end, func() { warning.Stop() })
	if every := c.gate.WatchEvery(); every > 0 {
		c.end = append(c.end, watch(c.gate, every))
	}
	ready = true
	return c
}

// watch has the gate look at the clusters between probes, until it is ended or Envoy's side has gone.
func watch(gate *filter.Gate, every time.Duration) (end func()) {
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
			if !unlessGone(gate.Watch) {
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// unlessGone calls f, and says whether Envoy's side was there. On a goroutine it may have gone: reading a stat panics
// then, and unrecovered that would end Envoy. There is nothing left to do for such a configuration.
func unlessGone(f func()) (there bool) {
	defer func() { there = recover() == nil }()
	f()
	return true
}

// broken is the configuration of a route whose own could not be used.
func (c *configuration) broken(route *override) *configuration {
	api.LogErrorf("healthgate: a route's configuration can't be used, its probes are answered with 503: %v", route.err)
	return &configuration{
		responder: broken{Gate: c.gate, path: route.raw.GetFields()["path"].GetStringValue()},
		gate:      c.gate,
		raw:       c.raw,
		callbacks: c.callbacks,
	}
}

// broken fails each probe of the gate, and of the path that the route meant.
type broken struct {
	*filter.Gate
	path string // "" where it is not known
}

func (b broken) IsProbe(method, path string) bool {
	return b.Gate.IsProbe(method, path) || b.path != "" && filter.IsProbe(b.path, method, path)
}

func (b broken) Answer() *filter.Reply { return b.Failure() }
func (b broken) Reports() bool         { return false }

// unpack reads plugin_config, which YAML can say as a TypedStruct or as a Struct.
func unpack(configured *anypb.Any) (*structpb.Struct, error) {
	if configured.GetTypeUrl() == "" {
		return nil, errors.New("plugin_config: is required, with at least clusters: [service]")
	}
	message, err := configured.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("plugin_config: %w", err)
	}
	switch m := message.(type) {
	case *xds.TypedStruct:
		return m.GetValue(), nil
	case *structpb.Struct:
		return m, nil
	}
	return nil, fmt.Errorf("plugin_config: %s is neither xds.type.v3.TypedStruct nor google.protobuf.Struct",
		configured.MessageName())
}

// host is Envoy as the gate sees it.
type host struct{ callbacks api.ConfigCallbackHandler }

func (h host) Gauge(name string) filter.Value            { return h.callbacks.DefineGaugeMetric(name) }
func (h host) Counter(name string) filter.Value          { return h.callbacks.DefineCounterMetric(name) }
func (h host) NewCounter(name string) filter.Counter     { return h.callbacks.DefineCounterMetric(name) }
func (h host) NewGauge(name string) filter.SettableGauge { return h.callbacks.DefineGaugeMetric(name) }
func (h host) Info(line string)                          { api.LogInfo(line) }
func (h host) Warn(line string)                          { api.LogWarn(line) }
func (h host) Now() time.Time                            { return time.Now() }
