// Package variant knows what differs by the way that Healthgate comes into Envoy: which object is loaded, how the configuration of
// its filter is written for the Envoy that there is, what a variant can do and which faults it can be given. Everything else in
// e2e is the same for every variant.
package testbed

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
)

// Variant is a way into Envoy.
type Variant interface {
	// Name is plugin or module.
	Name() string
	// Object is the file that Envoy loads.
	Object() string
	// Convert changes a message that is written for the Go plugin (a bootstrap, a listener, a RouteConfiguration, a filter) into the
	// variant's form for the Envoy that is run. A bootstrap also gets what the variant needs there.
	Convert(proto.Message)
	// Rewrite changes a part of a configuration that is written for the variant (a listener wherever it stands, or a
	// RouteConfiguration) for the Envoy that there is.
	Rewrite(part *Config)
	// Prepare does that to a bootstrap, and adds what the variant needs there.
	Prepare(bootstrap *Config)
	// Options are those of an Envoy with the variant.
	Options(Options) Options
	// Can says whether the variant can do something; the error says why not.
	Can(Ability) error
	// Held is what the variant has made in an Envoy and not yet freed; zero where it can't tell.
	Held(*Envoy) (Held, error)
	// Hang has Envoy's main thread hang for some seconds, and tells its end.
	Hang(envoy *Envoy, seconds int) <-chan error
	// LoseMetrics has each call of the plugin's for a metric fail, as if its configuration had gone, until it is told otherwise.
	LoseMetrics(envoy *Envoy, lost bool) error
}

// Every configuration of the tests is written as envoy/envoy.yaml is, for the Go plugin, and Rewrite makes another's of it.
// PluginConfig is where in it Healthgate's own configuration stands, in a filter and in a bootstrap.
const (
	FilterConfig = "typed_config.plugin_config.value"
	PluginConfig = Healthgate + "." + FilterConfig
)

// Held is what was made and not yet freed.
type Held struct{ Configurations, Requests int }

// Ability is something that not every variant can do, or that a test can't have it do.
type Ability string

// What variants differ in.
const (
	Levels      Ability = "overrides at several levels"                 // each laid over the wider one
	Hanging     Ability = "a main thread that hangs"                    // when a test asks for it
	LosingStats Ability = "metrics that are gone"                       // likewise
	Counting    Ability = "what is held"                                // Held tells
	Merging     Ability = "the host's merges"                           // the contrib host counts them
	Ghosts      Ability = "clusters that have gone unseen"              // their gauges stay, and nothing tells
	Defining    Ability = "gauges that it defines itself"               // and so a listener's own stats matcher applies to what it reads
	Aging       Ability = "an age by health checks"                     // stale_after is about the clusters' checks
	LateStats   Ability = "stats for a route that comes"                // defined when the first probe comes
	BadRoutes   Ability = "routes that are read too late to be refused" // those of a listener's own route_config
	Pipelining  Ability = "many probes at once over HTTP/1.1"           // on one connection, before the first is answered
	GRPC        Ability = "grpc.health.v1.Health"                       // answered at the edge
	Liveness    Ability = "a gate without clusters"
)

// Cannot says why a variant cannot do something.
type Cannot struct {
	Variant string
	Ability Ability
	Why     string
}

func (c *Cannot) Error() string {
	return fmt.Sprintf("%s: the %s cannot: %s", c.Ability, c.Variant, c.Why)
}

var variants = map[string]func() (Variant, error){"plugin": newPlugin, "module": newModule}

// Named finds a variant.
func Named(name string) (Variant, error) {
	open := variants[name]
	if open == nil {
		return nil, fmt.Errorf("no variant %q: there is %s", name, strings.Join(slices.Sorted(maps.Keys(variants)), ", "))
	}
	return open()
}

// Start starts an Envoy with a variant and a configuration that is written for it, and returns once it serves.
func Start(ctx context.Context, d Variant, dir string, config Configuration, options Options) (*Envoy, error) {
	switch c := config.(type) {
	case *Config:
		d.Prepare(c)
	case *Bootstrap:
		config = c.For(d)
	}
	return StartEnvoy(ctx, dir, config, d.Options(options))
}

// built is a file that `make build` makes.
func built(name string) string { return filepath.Join(Root(), "build", name) }
