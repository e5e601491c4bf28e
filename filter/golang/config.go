package golang

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	udpa "github.com/cncf/xds/go/udpa/type/v1"
	xds "github.com/cncf/xds/go/xds/type/v3"
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
	"healthgate/filter/lifecycle"
)

// Parser is the plugin's config parser: it reads configurations for Envoy.
type Parser struct{}

// configuration is a filter's configuration, as Envoy holds it.
type configuration struct{ *lifecycle.Configuration }

// Destroy ends the configuration. Envoy may call it while a probe still uses the configuration.
func (c configuration) Destroy() { c.End() }

// merged is a merged configuration, as Envoy holds it. It has no Destroy: it ends with its parent or its override. Envoy also drops it each
// time the same route is used under another parent.
type merged struct{ *lifecycle.Configuration }

// hasConfiguration is a configuration or a merged one.
type hasConfiguration interface {
	configuration() *lifecycle.Configuration
}

func (c configuration) configuration() *lifecycle.Configuration { return c.Configuration }
func (c merged) configuration() *lifecycle.Configuration        { return c.Configuration }

// override is a route's configuration, as Envoy holds it.
type override struct{ *lifecycle.Override }

// Destroy ends the override, when Envoy has destroyed its route.
func (o override) Destroy() { o.End() }

var (
	process    lifecycle.Process
	mainThread atomic.Int64 // the id of Envoy's main thread; 0 before it has parsed a filter's configuration
)

// Parse reads a filter's configuration; an error makes Envoy refuse it. Without callbacks it reads a route's configuration. Envoy parses
// the routes of a listener's own route_config with the first request, on a worker, and aborts if Parse returns an error. So there Parse
// returns none: the first probe logs the error, and all probes of the route fail.
func (Parser) Parse(written *anypb.Any, callbacks api.ConfigCallbackHandler) (parsed any, err error) {
	if callbacks == nil {
		return parseRoute(written)
	}
	mainThread.Store(int64(syscall.Gettid()))
	defer func() {
		if cause := recover(); cause != nil {
			parsed, err = nil, fmt.Errorf("healthgate: panic in the configuration: %v", cause)
		}
	}()
	e := envoy{&handles{callbacks: callbacks}}
	logLoad(e)
	raw, err := unpackConfig(written)
	if err != nil {
		return nil, fmt.Errorf("healthgate: %w", err)
	}
	decoded, err := config.Decode(raw, config.Plugin)
	if err != nil {
		return nil, fmt.Errorf("healthgate: %w", err)
	}
	return configuration{process.Configure(decoded, e)}, nil
}

func parseRoute(written *anypb.Any) (any, error) {
	raw, decoded, err := decodeRoute(written)
	switch {
	case err == nil:
		return override{process.NewOverride(decoded)}, nil
	case int64(syscall.Gettid()) == mainThread.Load():
		return nil, fmt.Errorf("healthgate: %w", err)
	}
	return override{process.NewBrokenOverride(raw, err)}, nil
}

func decodeRoute(written *anypb.Any) (raw *structpb.Struct, decoded *config.Override, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic in the configuration of a route: %v", cause)
		}
	}()
	if raw, err = unpackConfig(written); err == nil {
		decoded, err = config.DecodeOverride(raw, config.Plugin)
	}
	return raw, decoded, err
}

// Merge merges a route's configuration into the filter's, or into a wider level's. It may run on a worker, and can't return an error: if
// the result is broken, the first probe logs the error, and all probes of the route fail.
func (Parser) Merge(parent, child any) any {
	wider, ok := parent.(hasConfiguration)
	if !ok {
		api.LogErrorf("healthgate: a route's configuration has no filter's to override")
		return parent
	}
	route, ok := child.(override)
	if !ok {
		route = override{process.NewBrokenOverride(nil, errors.New("not a configuration of healthgate"))}
	}
	return merged{route.MergeInto(wider.configuration())}
}

// unpackConfig reads plugin_config, a TypedStruct or a Struct.
func unpackConfig(written *anypb.Any) (*structpb.Struct, error) {
	if written.GetTypeUrl() == "" {
		return nil, errors.New("plugin_config: is required, with at least clusters: [service]")
	}
	const right = "write it as xds.type.v3.TypedStruct or google.protobuf.Struct"
	message, err := written.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("plugin_config: %s can't be read (%w); %s", written.MessageName(), err, right)
	}
	switch m := message.(type) {
	case *xds.TypedStruct:
		return m.GetValue(), nil
	case *udpa.TypedStruct: // its older name
		return m.GetValue(), nil
	case *structpb.Struct:
		return m, nil
	}
	return nil, fmt.Errorf("plugin_config: %s is another type; %s", written.MessageName(), right)
}
