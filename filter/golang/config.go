package golang

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	udpa "github.com/cncf/xds/go/udpa/type/v1"
	xds "github.com/cncf/xds/go/xds/type/v3"
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/envoystats"
	"healthgate/filter/gate"
	"healthgate/filter/lifecycle"
)

// Parser reads configurations for Envoy; it is the config parser that Envoy is given.
type Parser struct{}

// configuration is what Envoy holds of a filter's configuration.
type configuration struct{ *lifecycle.Configuration }

// Destroy is called by Envoy when the configuration has gone on its side, perhaps while a probe still uses it here.
func (c configuration) Destroy() { c.End() }

// merged is what Envoy holds of a route's configuration that was laid over another. It has no Destroy: it ends with what it
// was made of, and Envoy lets go of it also for as long as its route is asked from under another parent.
type merged struct{ *lifecycle.Configuration }

// serving is either of them.
type serving interface {
	serving() *lifecycle.Configuration
}

func (c configuration) serving() *lifecycle.Configuration { return c.Configuration }
func (c merged) serving() *lifecycle.Configuration        { return c.Configuration }

// override is what Envoy holds of a route's configuration.
type override struct{ *lifecycle.Override }

// Destroy is called by Envoy when the route has gone.
func (o override) Destroy() { o.End() }

var (
	process    lifecycle.Process
	mainThread atomic.Int64 // its id, once a filter's configuration was parsed on it; 0 before
)

// Parse reads a configuration. An error makes Envoy refuse it; where callbacks are nil it is a route's, and then not
// always: Envoy parses the routes of a listener's own route_config at the first request, on a worker, and aborts on an
// error there. What is wrong there is logged, and each probe of the route is failed.
func (Parser) Parse(configured *anypb.Any, callbacks api.ConfigCallbackHandler) (parsed any, err error) {
	if callbacks == nil {
		return parseRoute(configured)
	}
	mainThread.Store(int64(syscall.Gettid()))
	defer func() {
		if cause := recover(); cause != nil {
			parsed, err = nil, fmt.Errorf("healthgate: panic in the configuration: %v", cause)
		}
	}()
	raw, err := unpack(configured)
	if err != nil {
		return nil, fmt.Errorf("healthgate: %w", err)
	}
	h := host{&handles{callbacks: callbacks}}
	started, err := process.Configure(raw, h)
	if err != nil {
		return nil, fmt.Errorf("healthgate: %w", err)
	}
	warnOfAnotherEnvoy(h)
	return configuration{started}, nil
}

func parseRoute(configured *anypb.Any) (parsed any, err error) {
	var route *lifecycle.Override
	func() {
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("panic in the configuration of a route: %v", cause)
			}
		}()
		var raw *structpb.Struct
		if raw, err = unpack(configured); err == nil {
			route, err = process.NewOverride(raw)
		}
	}()
	if err != nil && int64(syscall.Gettid()) == mainThread.Load() {
		return nil, fmt.Errorf("healthgate: %w", err)
	}
	if route == nil {
		route = process.BrokenOverride(err)
	}
	return override{route}, nil
}

// Merge lays a route's configuration over the filter's, or over that of a wider route. It may run on a worker and can't
// refuse: what can't be used is logged when a probe asks for it, and each probe of the route is failed.
func (Parser) Merge(parent, child any) any {
	base, ok := parent.(serving)
	if !ok {
		api.LogErrorf("healthgate: a route's configuration has no filter's to override")
		return parent
	}
	route, ok := child.(override)
	if !ok {
		route = override{process.BrokenOverride(errors.New("not a configuration of healthgate"))}
	}
	return merged{route.Over(base.serving())}
}

// unpack reads plugin_config, which YAML can say as a TypedStruct or as a Struct.
func unpack(configured *anypb.Any) (*structpb.Struct, error) {
	if configured.GetTypeUrl() == "" {
		return nil, errors.New("plugin_config: is required, with at least clusters: [service]")
	}
	const right = "write it as xds.type.v3.TypedStruct or google.protobuf.Struct"
	message, err := configured.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("plugin_config: %s can't be read (%w); %s", configured.MessageName(), err, right)
	}
	switch m := message.(type) {
	case *xds.TypedStruct:
		return m.GetValue(), nil
	case *udpa.TypedStruct: // its older name
		return m.GetValue(), nil
	case *structpb.Struct:
		return m, nil
	}
	return nil, fmt.Errorf("plugin_config: %s is another type; %s", configured.MessageName(), right)
}

// host is Envoy as a gate sees it.
type host struct{ *handles }

func (h host) Gauge(name string) envoystats.Value      { return h.gauge(name) }
func (h host) Counter(name string) envoystats.Value    { return h.counter(name) }
func (h host) NewCounter(name string) gate.Counter     { return h.counter(name) }
func (h host) NewGauge(name string) gate.SettableGauge { return h.gauge(name) }
func (h host) Info(line string)                        { api.LogInfo(line) }
func (h host) Warn(line string)                        { api.LogWarn(line) }
func (h host) Error(line string)                       { api.LogError(line) }
func (h host) Now() time.Time                          { return time.Now() }

// Gone knows what the SDK of Envoy v1.39.1 panics with once the configuration or the stream has gone: errRequestFinished and
// errFilterDestroyed in contrib/golang/filters/http/source/go/pkg/http/type.go.
func (host) Gone(cause any) bool {
	return cause == "request has been finished" || cause == "golang filter has been destroyed"
}
