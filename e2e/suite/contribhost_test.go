package suite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"healthgate/e2e/testbed"
)

// The golang extension's behaviour that the contrib host must have too, or the rest of the suite shows nothing about the Go plugin.

// Each level of the routes overrides the wider ones. An override of a broken configuration is broken: the rules of a wider level must not
// answer in its place. A level that answers no probe has no metrics.
func TestEachLevelOfTheRoutesOverridesTheWiderOnes(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	const (
		widest = `{"drain": "ignore", "response": {"healthy": {"body": "all\n"}}, "stat_prefix": "widest"}`
		ready  = `{"path": "/readyz", "stat_prefix": "narrowest"}`
	)
	// Without the FilterConfig, which could also disable the filter.
	unwrap := func(c *testbed.Bootstrap) {
		enabling := &routev3.FilterConfig{}
		if err := c.VirtualHost().TypedPerFilterConfig["healthgate"].UnmarshalTo(enabling); err != nil {
			t.Fatal(err)
		}
		c.VirtualHost().TypedPerFilterConfig["healthgate"] = enabling.Config
	}
	forAnother := func(c *testbed.Bootstrap) {
		other := testbed.Any(testbed.Parse[*golangv3.ConfigsPerRoute](
			`{plugins_config: {another: {config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, value: {}}}}}`))
		c.VirtualHost().TypedPerFilterConfig = map[string]*anypb.Any{"healthgate": testbed.Any(testbed.Enabling(other))}
	}
	weighted := func(c *testbed.Bootstrap) {
		route := c.VirtualHost().Routes[0]
		testbed.Patch(route, `route: {weighted_clusters: {clusters: [{name: service, weight: 1}]}}`)
		route.GetRoute().GetWeightedClusters().Clusters[0].TypedPerFilterConfig = gateOverride(`{"stat_prefix": "weighted"}`)
	}
	const widestAlone = "the RouteConfiguration's alone"
	for name, test := range map[string]struct {
		all, host, route string
		change           func(*testbed.Bootstrap)
		probes           map[string]string // a path to the gate that answers it while Envoy drains; none if a level is broken
	}{
		"three": {widest, `{"stat_prefix": "wider"}`, ready, unwrap, map[string]string{"/readyz": "narrowest", "/": "wider"}},
		// The reference configuration's route enables the filter by an empty FilterConfig, which is no level.
		widestAlone:                 {widest, "", "", nil, map[string]string{"/": "widest"}},
		"none for the virtual host": {widest, "", ready, nil, map[string]string{"/readyz": "narrowest"}},
		"one for another plugin":    {widest, "", "", forAnother, map[string]string{"/": "widest"}},
		"one of a weighted cluster": {"", widest, ready, weighted, map[string]string{"/readyz": "weighted"}},
		"empty between":             {widest, `{}`, ready, nil, map[string]string{"/readyz": "narrowest"}},
		"the widest is broken":      {`{"paht": "/"}`, `{}`, ready, nil, nil},
		"the one between is broken": {widest, `{"require": 9}`, ready, nil, nil},
		"both are broken":           {`{"require": 9}`, `{"paht": "/"}`, ready, nil, nil},
		"the route's would be enough": {`{}`, `{"require": 2}`,
			`{"path": "/readyz", "clusters": ["service", {"name": "missing", "min_healthy": 0}]}`, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != widestAlone {
				needs(t, testbed.OverrideLevels)
			}
			s := newServingSite(t, withConfig(func(c *testbed.Bootstrap) {
				if test.all != "" {
					c.HCM().GetRouteConfig().TypedPerFilterConfig = gateOverride(test.all)
				}
				if test.host != "" {
					c.VirtualHost().TypedPerFilterConfig = gateOverride(test.host)
				}
				if test.route != "" {
					addRoute(c.VirtualHost(), "/readyz", test.route)
				}
				if test.change != nil {
					test.change(c)
				}
			}))
			if test.probes == nil {
				for _, protocol := range protocols {
					reply := s.mustDo(s.client(protocol), "GET", "/readyz", nil)
					expect(t, protocol, reply, 503, "unavailable\n", map[string]string{"cache-control": "no-store"})
				}
				s.awaitLog(`"details":"healthgate_error"`, settle)
				s.awaitLines("healthgate: a route's configuration can't be used", 1, settle)
				return
			}
			s.post("/healthcheck/fail")
			for path, prefix := range test.probes {
				expect(t, path, s.mustDo(s.client("h2"), "GET", path, nil), 200, "all\n", nil)
				s.awaitStat("healthgate."+prefix+".ok", 1)
			}
			if stats := s.stats("healthgate.widest."); name != widestAlone && test.change == nil && len(stats) > 0 {
				t.Errorf("the widest level answers no probe, and has %v", stats)
			}
		})
	}
}

// The golang extension keeps one merged configuration per level, the one for the listener that was probed last. With routes of their own
// each listener has its own.
func TestListenersWithSharedRoutesMergeAgainInTurn(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.CountMerges)
	const turns = 10
	for name, test := range map[string]struct {
		routes   option
		min, max int // of merges
	}{"shared": {withRDS(), turns, 4 * turns}, "separate": {func(*plan) {}, 2, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServingSite(t, test.routes, withRoute("/readyz", `{"path": "/readyz", "response": {"healthy": {"body": "ready\n"}}}`),
				withSecondListener(`{"clusters": ["service"]}`))
			merges := func() int {
				live, err := variant.LiveObjects(s.envoy)
				if err != nil {
					t.Fatal(err)
				}
				return live.Merges
			}
			before := merges()
			client := s.client("h2")
			for range turns {
				for _, listener := range []*site{s, s.at("second")} {
					expect(t, "/readyz", listener.mustDo(client, "GET", "/readyz", nil), 200, "ready\n", nil)
				}
			}
			if n := merges() - before; n < test.min || n > test.max {
				t.Errorf("%d merges in %d turns, want %d to %d", n, turns, test.min, test.max)
			}
		})
	}
}

// With an access log at the start of a request the plugin is called for the log first, and for the headers after that.
func TestProbeIsAnsweredWithAnAccessLogAtItsStart(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withRoute("/readyz", `{"path": "/readyz"}`), withHCM(`access_log_options: {flush_access_log_on_new_request: true}`))
	client := s.client("h2")
	expect(t, "/", s.probe(client), 200, "ok\n", nil)
	expect(t, "/readyz", s.mustDo(client, "GET", "/readyz", nil), 200, "ok\n", nil)
	if reply := s.mustDo(client, "GET", "/missing", nil); reply.status != 404 {
		t.Errorf("got %d, want 404", reply.status)
	}
}

func TestStatsMatchersOfBootstrapListenerAndCluster(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.DefinesGauges)
	const membership, own, nothing = "cluster.service.membership_", "healthgate.", "nothing."
	for name, test := range map[string]struct {
		bootstrap, listener, cluster string // the prefix that each matcher excludes; "" for no matcher
		status                       int
		counted                      bool // the plugin's own stats are there
	}{
		"none":            {"", "", "", 200, true},
		"the bootstrap's": {membership, "", "", 503, true},
		"the bootstrap's, for the plugin's own stats": {own, "", "", 200, false},
		"the listener's": {"", membership, "", 503, true},
		"the listener's, for the plugin's own stats": {"", own, "", 200, false},
		"the listener's takes precedence":            {own, nothing, "", 200, true},
		"the listener's, for the plugin alone":       {membership, nothing, "", 503, true},
		"the cluster's":                              {"", "", membership, 503, true},
		"the cluster's takes precedence":             {membership, nothing, nothing, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Bootstrap) {
				if test.bootstrap != "" {
					c.StatsConfig = &metricsv3.StatsConfig{StatsMatcher: excludeStats(test.bootstrap)}
				}
				if test.listener != "" {
					c.Listener().Metadata = testbed.StatsMatcherMetadata(excludeStats(test.listener))
				}
				if test.cluster != "" {
					c.Cluster().Metadata = testbed.StatsMatcherMetadata(excludeStats(test.cluster))
				}
			}))
			s.awaitHosts(map[*testbed.Backend]bool{s.backends[0]: true})
			s.stats(own) // makes the plugin read the stats that exist now
			for range 2 {
				if reply := s.path("/"); reply.status != test.status {
					t.Errorf("got %d, want %d", reply.status, test.status)
				}
			}
			if counted := len(s.stats(own)) > 0; counted != test.counted {
				t.Errorf("the plugin's own stats are there: %v, want %v", counted, test.counted)
			}
		})
	}
}

// HttpFilterDsoImpl in contrib/golang/common/dso/dso.cc needs these ten, and refuses a plugin that lacks one.
func TestPluginWithoutARequiredFunctionIsRefused(t *testing.T) {
	t.Parallel()
	if !testbed.HasContribHost(variant) {
		t.Skip("it is about the contrib host")
	}
	skipWithRunningEnvoy(t, "it loads another plugin")
	whole := readFile(t, filepath.Join(testbed.Root(), "build", "empty.so"))
	for _, function := range []string{
		"envoyGoFilterNewHttpPluginConfig", "envoyGoFilterMergeHttpPluginConfig", "envoyGoFilterDestroyHttpPluginConfig",
		"envoyGoFilterOnHttpHeader", "envoyGoFilterOnHttpData", "envoyGoFilterOnHttpLog", "envoyGoFilterOnHttpStreamComplete",
		"envoyGoFilterOnHttpDestroy", "envoyGoRequestSemaDec", "envoyGoFilterCleanUp",
	} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			// Under another name of the same length the function is not found.
			lacking := strings.ReplaceAll(whole, function+"\x00", function[:len(function)-1]+"_\x00")
			if lacking == whole {
				t.Fatal("build/empty.so does not have it")
			}
			plugin := filepath.Join(t.TempDir(), "lacking.so")
			if err := os.WriteFile(plugin, []byte(lacking), 0o600); err != nil {
				t.Fatal(err)
			}
			log := refused(t, func(c *testbed.Bootstrap) {
				c.ModuleFilter().FilterName = "lacking@lacking@" + plugin
			})
			if !strings.Contains(log, "lib: "+plugin+", cannot find symbol: "+function+", err: ") ||
				!strings.Contains(log, "golang_filter: load library failed: lacking "+plugin) || strings.Count(log, "cannot find symbol") != 1 {
				t.Errorf("the log ends:\n%s", testbed.Tail(log, 10))
			}
		})
	}
}
