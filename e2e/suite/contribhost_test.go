package suite

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"healthgate/e2e/testbed"
)

// The golang extension's behaviour that the contrib host must have too, or the rest of the suite shows nothing about the Go plugin.

func TestEachLevelOfTheRoutesOverridesTheWiderOnes(t *testing.T) {
	t.Parallel()
	needs(t, testbed.OverrideLevels)
	s := newSite(t,
		withRouteConfigOverride(`{"response": {"healthy": {"body": "all\n"}}, "stat_prefix": "widest"}`),
		withVirtualHostOverride(`{"drain": "ignore", "stat_prefix": "wider"}`),
		withConfig(func(c *testbed.Bootstrap) { // without the FilterConfig, which could also disable the filter
			enabling := &routev3.FilterConfig{}
			if err := c.VirtualHost().TypedPerFilterConfig["healthgate"].UnmarshalTo(enabling); err != nil {
				t.Fatal(err)
			}
			c.VirtualHost().TypedPerFilterConfig["healthgate"] = enabling.Config
		}),
		withRoute("/readyz", `{"path": "/readyz", "stat_prefix": "kubelet"}`))
	s.setServing(1)
	s.post("/healthcheck/fail")
	client := s.client("h2")
	expect(t, "with three levels", s.mustDo(client, "GET", "/readyz", nil), 200, "all\n", nil)
	expect(t, "with two levels", s.mustDo(client, "GET", "/", nil), 200, "all\n", nil)
	s.awaitStat("healthgate.kubelet.ok", 1)
	s.awaitStat("healthgate.wider.ok", 1)
}

// The reference configuration's route enables the filter by an empty FilterConfig, which is no level.
func TestOverrideOfTheRouteConfigurationAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRouteConfigOverride(`{"response": {"healthy": {"body": "widest\n"}}}`))
	s.setServing(1)
	expect(t, "the probe", s.probe(s.client("h2")), 200, "widest\n", nil)
}

func TestOverridesWithoutOneForTheVirtualHost(t *testing.T) {
	t.Parallel()
	needs(t, testbed.OverrideLevels)
	s := newSite(t,
		withRouteConfigOverride(`{"response": {"healthy": {"body": "widest\n"}}}`),
		withRoute("/readyz", `{"path": "/readyz", "drain": "ignore"}`))
	s.setServing(1)
	s.post("/healthcheck/fail")
	expect(t, "the probe", s.mustDo(s.client("h2"), "GET", "/readyz", nil), 200, "widest\n", nil)
}

func TestOverrideForAnotherPluginHasNoEffect(t *testing.T) {
	t.Parallel()
	needs(t, testbed.OverrideLevels)
	other := testbed.Parse[*golangv3.ConfigsPerRoute](
		`{plugins_config: {another: {config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, value: {}}}}}`)
	s := newSite(t,
		withRouteConfigOverride(`{"response": {"healthy": {"body": "widest\n"}}}`),
		withConfig(func(c *testbed.Bootstrap) {
			c.VirtualHost().TypedPerFilterConfig = map[string]*anypb.Any{"healthgate": testbed.Any(testbed.Enabling(testbed.Any(other)))}
		}))
	s.setServing(1)
	expect(t, "the probe", s.probe(s.client("h2")), 200, "widest\n", nil)
}

func TestOverrideOfAWeightedClusterIsTheNarrowest(t *testing.T) {
	t.Parallel()
	needs(t, testbed.OverrideLevels)
	s := newSite(t,
		withVirtualHostOverride(`{"response": {"healthy": {"body": "host\n"}}, "stat_prefix": "wider"}`),
		withConfig(func(c *testbed.Bootstrap) {
			addRoute(c.VirtualHost(), "/weighted", `{"path": "/weighted", "drain": "ignore"}`)
			route := c.VirtualHost().Routes[0]
			testbed.Patch(route, `route: {weighted_clusters: {clusters: [{name: service, weight: 1}]}}`)
			route.GetRoute().GetWeightedClusters().Clusters[0].TypedPerFilterConfig = gateOverride(`{"stat_prefix": "weighted"}`)
		}))
	s.setServing(1)
	s.post("/healthcheck/fail")
	expect(t, "the probe", s.mustDo(s.client("h2"), "GET", "/weighted", nil), 200, "host\n", nil)
	s.awaitStat("healthgate.weighted.ok", 1)
}

// merges returns how often the plugin has merged two configurations.
func (s *site) merges() int {
	s.t.Helper()
	live, err := variant.LiveObjects(s.envoy)
	if err != nil {
		s.t.Fatal(err)
	}
	return live.Merges
}

// alternate probes a path of both listeners in turn, and returns how often the plugin has merged configurations meanwhile.
func (s *site) alternate(path, body string, times int) int {
	s.t.Helper()
	listeners, err := s.envoy.Listeners()
	if err != nil {
		s.t.Fatal(err)
	}
	if len(listeners) != 2 {
		s.t.Fatalf("envoy has the listeners %v, want two", listeners)
	}
	client := s.client("h2")
	before := s.merges()
	for range times {
		for name, address := range maps.All(listeners) {
			s.envoy.Ingress = address
			expect(s.t, fmt.Sprint(name, path), s.mustDo(client, "GET", path, nil), 200, body, nil)
		}
	}
	return s.merges() - before
}

// The golang extension keeps one merged configuration per level, the one for the listener that was probed last.
func TestListenersWithSharedRoutesMergeAgainInTurn(t *testing.T) {
	t.Parallel()
	needs(t, testbed.CountMerges)
	s, p := prepare(t, withRDS(), withRoute("/readyz", `{"path": "/readyz", "response": {"healthy": {"body": "ready\n"}}}`))
	p.config.AddListener(p.config.CopyListener("second"))
	s.start(p)
	s.setServing(1)
	const times = 10
	if merges := s.alternate("/readyz", "ready\n", times); merges < times {
		t.Errorf("%d merges in %d turns, want one at least in each", merges, times)
	}
}

func TestListenersWithSeparateRoutesMergeOnceEach(t *testing.T) {
	t.Parallel()
	needs(t, testbed.CountMerges)
	s := newSite(
		t,
		withRoute("/readyz", `{"path": "/readyz", "response": {"healthy": {"body": "ready\n"}}}`),
		withConfig(func(c *testbed.Bootstrap) {
			c.AddListener(c.CopyListener("second"))
		}),
	)
	s.setServing(1)
	if merges := s.alternate("/readyz", "ready\n", 10); merges != 2 {
		t.Errorf("%d merges, want one for each listener", merges)
	}
}

// With an access log at the start of a request the plugin is called for the log first, and for the headers after that.
func TestProbeIsAnsweredWithAnAccessLogAtItsStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRoute("/readyz", `{"path": "/readyz"}`), withHCM(`access_log_options: {flush_access_log_on_new_request: true}`))
	s.setServing(1)
	client := s.client("h2")
	expect(t, "/", s.probe(client), 200, "ok\n", nil)
	expect(t, "/readyz", s.mustDo(client, "GET", "/readyz", nil), 200, "ok\n", nil)
	if reply := s.mustDo(client, "GET", "/missing", nil); reply.status != 404 {
		t.Errorf("got %d, want 404", reply.status)
	}
}

// The plugin keeps the gauges that it has defined, so a removed cluster's last values stay.
func TestPluginAnswersFromTheGaugesOfARemovedCluster(t *testing.T) {
	t.Parallel()
	needs(t, testbed.UnnoticedRemovals)
	var clusters []*clusterv3.Cluster
	s := newSite(t, withCDS(), withRoute("/other", `{"path": "/other", "clusters": ["other"]}`), twoClusters(&clusters))
	client := s.client("h2")
	s.setServing(1)
	s.awaitGauges("other", 1, 1)
	other := func() *answer { return s.mustDo(client, "GET", "/other", nil) }
	expect(t, "with the cluster", other(), 200, "ok\n", nil)

	s.writeClusters(clusters[0])
	s.awaitStat("cluster_manager.active_clusters", 1)
	if testbed.HasContribHost(variant) { // which cannot keep stats for its plugin
		s.await(settle, func() error {
			if stats := s.stats("cluster.other."); len(stats) > 0 {
				return fmt.Errorf("envoy has %d stats of the cluster", len(stats))
			}
			return nil
		})
	}
	for range 3 {
		expect(t, "without the cluster", other(), 200, "ok\n", nil)
	}

	if err := s.backends[0].SetServing(false); err != nil {
		t.Fatal(err)
	}
	s.writeClusters(clusters...)
	s.awaitGauges("other", 0, 1)
	expect(t, "with the cluster again", other(), 503, "unavailable\n", nil)
}

func TestStatsMatchersOfBootstrapListenerAndCluster(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.DefinesGauges)
	const membership, own = "cluster.service.membership_", "healthgate."
	for name, test := range map[string]struct {
		bootstrap, listener, cluster *metricsv3.StatsMatcher
		status                       int
		counted                      bool // the plugin's own stats are there
	}{
		"none":            {nil, nil, nil, 200, true},
		"the bootstrap's": {excludeStats(membership), nil, nil, 503, true},
		"the bootstrap's, for the plugin's own stats": {excludeStats(own), nil, nil, 200, false},
		"the listener's": {nil, excludeStats(membership), nil, 503, true},
		"the listener's, for the plugin's own stats": {nil, excludeStats(own), nil, 200, false},
		"the listener's takes precedence":            {excludeStats(own), excludeStats("nothing."), nil, 200, true},
		"the listener's, for the plugin alone":       {excludeStats(membership), excludeStats("nothing."), nil, 503, true},
		"the cluster's":                              {nil, nil, excludeStats(membership), 503, true},
		"the cluster's takes precedence":             {excludeStats(membership), excludeStats("nothing."), excludeStats("nothing."), 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Bootstrap) {
				if test.bootstrap != nil {
					c.StatsConfig = &metricsv3.StatsConfig{StatsMatcher: test.bootstrap}
				}
				if test.listener != nil {
					c.Listener().Metadata = testbed.StatsMatcherMetadata(test.listener)
				}
				if test.cluster != nil {
					c.Cluster().Metadata = testbed.StatsMatcherMetadata(test.cluster)
				}
			}))
			s.await(settle, func() error {
				hosts, err := s.envoy.Hosts("service")
				if err == nil && hosts[s.backends[0].Address] != "healthy" {
					err = fmt.Errorf("envoy has %v", hosts)
				}
				return err
			})
			client := s.client("h2")
			s.stats(own) // makes the plugin read the stats that exist now
			for range 2 {
				if reply := s.probe(client); reply.status != test.status {
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
	whole, err := os.ReadFile(filepath.Join(testbed.Root(), "build", "empty.so"))
	if err != nil {
		t.Fatal(err)
	}
	for _, function := range []string{
		"envoyGoFilterNewHttpPluginConfig", "envoyGoFilterMergeHttpPluginConfig", "envoyGoFilterDestroyHttpPluginConfig",
		"envoyGoFilterOnHttpHeader", "envoyGoFilterOnHttpData", "envoyGoFilterOnHttpLog", "envoyGoFilterOnHttpStreamComplete",
		"envoyGoFilterOnHttpDestroy", "envoyGoRequestSemaDec", "envoyGoFilterCleanUp",
	} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			// Under another name of the same length the function is not found.
			renamed := []byte(function[:len(function)-1] + "_")
			lacking := bytes.ReplaceAll(whole, []byte(function+"\x00"), append(renamed, 0))
			if bytes.Equal(lacking, whole) {
				t.Fatal("build/empty.so does not have it")
			}
			plugin := filepath.Join(t.TempDir(), "lacking.so")
			if err := os.WriteFile(plugin, lacking, 0o600); err != nil {
				t.Fatal(err)
			}
			log := refused(t, func(c *testbed.Bootstrap) {
				c.ModuleFilter().FilterName = "lacking@lacking@" + plugin
			})
			for _, want := range []string{
				"lib: " + plugin + ", cannot find symbol: " + function + ", err: ",
				"golang_filter: load library failed: lacking " + plugin,
			} {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q:\n%s", want, testbed.Tail(log, 10))
				}
			}
			if n := strings.Count(log, "cannot find symbol"); n != 1 {
				t.Errorf("%d functions are missing, want 1", n)
			}
		})
	}
}
