package testbed

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
)

// Variant is the Go plugin or the dynamic module: the differences between them in an Envoy for tests. Everything else in e2e is the same
// for both.
type Variant interface {
	// Name is plugin or module.
	Name() string
	// Object is the file that Envoy loads.
	Object() string
	// Convert changes a message that is written for the Go plugin (a bootstrap, a listener, a RouteConfiguration, a filter) into the
	// variant's form for the Envoy to run. A bootstrap also gets the variant's bootstrap extension.
	Convert(proto.Message)
	// Options returns the options of an Envoy with the variant.
	Options(Options) Options
	// Can returns nil if the variant has an ability, and otherwise an error that says why not.
	Can(Ability) error
	// LiveObjects returns the contrib host's counts; zero for a variant without it.
	LiveObjects(*Envoy) (LiveObjects, error)
	// Hang makes Envoy's main thread hang for some seconds, and returns when it runs again.
	Hang(envoy *Envoy, seconds int) error
	// LoseMetrics makes each call of the plugin for a metric fail, as if Envoy had dropped its configuration, until lost is false.
	LoseMetrics(envoy *Envoy, lost bool) error
}

// LiveObjects counts objects that the plugin has made and not yet freed, and how often it has merged two configurations.
type LiveObjects struct{ Configurations, Requests, Merges int }

// Ability is something that a variant may lack, or that only one variant can do for a test.
type Ability string

// The abilities.
const (
	OverrideLevels    Ability = "overrides at several levels"           // each is merged with the wider one
	HangMainThread    Ability = "a main thread that hangs"              // on request
	LoseMetrics       Ability = "metrics that fail"                     // on request
	CountLiveObjects  Ability = "a count of live objects"               // by LiveObjects
	CountMerges       Ability = "a count of merges"                     // by the contrib host
	UnnoticedRemovals Ability = "removed clusters that go unnoticed"    // their gauges stay
	DefinesGauges     Ability = "gauges that it defines itself"         // so a listener's own stats matcher applies to them
	CheckAge          Ability = "the age of health checks"              // which stale_after limits
	LateMetrics       Ability = "metrics that are defined late"         // at the first probe of a new route
	LateRouteErrors   Ability = "route errors found at the first probe" // in the routes of a listener's own route_config
	Pipelining        Ability = "many pipelined probes"                 // over HTTP/1.1, before the first answer
	GRPC              Ability = "grpc.health.v1.Health"                 // answered by the gate
	Liveness          Ability = "a gate without clusters"
)

// cannot returns the error of a variant that lacks an ability, or nil without a reason why.
func cannot(variant string, a Ability, why string) error {
	if why == "" {
		return nil
	}
	return fmt.Errorf("%s: the %s cannot: %s", a, variant, why)
}

var variants = map[string]func() (Variant, error){"plugin": newPlugin, "module": newModule}

// VariantNamed returns the variant with the name plugin or module.
func VariantNamed(name string) (Variant, error) {
	open := variants[name]
	if open == nil {
		return nil, fmt.Errorf("no variant %q: there is %s", name, strings.Join(slices.Sorted(maps.Keys(variants)), ", "))
	}
	return open()
}

// StartVariant starts an Envoy with a variant, and returns when it serves. The configuration is in the Go plugin's form.
func StartVariant(ctx context.Context, v Variant, dir string, config *Bootstrap, options Options) (*Envoy, error) {
	return StartEnvoy(ctx, dir, config.For(v), v.Options(options))
}
