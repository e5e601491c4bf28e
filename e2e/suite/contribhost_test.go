package suite

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

// What the golang extension does, and the contrib host has to do alike for the rest of the suite to show anything.

// routeConfiguration and virtualHost are where the levels above a route stand.
const (
	routeConfiguration = testbed.HCM + ".route_config"
	virtualHost        = routeConfiguration + ".virtual_hosts.0"
)

// withOverride gives a level of the routes a configuration.
func withOverride(at string, override any) option {
	return withConfig(func(c *testbed.Config) { c.Set(at+".typed_per_filter_config", map[string]any{"healthgate": override}) })
}

// bare is a configuration without the message that can also disable a filter.
func bare(override map[string]any) any { return override["config"] }

func TestEachLevelOfTheRoutesOverridesTheWiderOnes(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Levels)
	s := newSite(t,
		withOverride(routeConfiguration, forRoute(`{"response": {"healthy": {"body": "all\n"}}, "stat_prefix": "widest"}`)),
		withOverride(virtualHost, bare(forRoute(`{"drain": "ignore", "stat_prefix": "wider"}`))),
		withRoute("/readyz", `{"path": "/readyz", "stat_prefix": "kubelet"}`))
	s.setServing(1)
	s.post("/healthcheck/fail")
	client := s.client("h2")
	expect(t, "with three levels", s.mustDo(client, "GET", "/readyz", nil), 200, "all\n", nil)
	expect(t, "with two levels", s.mustDo(client, "GET", "/", nil), 200, "all\n", nil)
	s.awaitStat("healthgate.kubelet.ok", 1)
	s.awaitStat("healthgate.wider.ok", 1)
}

// The reference's route enables the filter by an empty configuration, which is no level.
func TestTheWidestLevelAloneIsEnough(t *testing.T) {
	t.Parallel()
	s := newSite(t, withOverride(routeConfiguration, forRoute(`{"response": {"healthy": {"body": "widest\n"}}}`)))
	s.setServing(1)
	expect(t, "the probe", s.probe(s.client("h2")), 200, "widest\n", nil)
}

func TestAMiddleLevelCanBeLeftOut(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Levels)
	s := newSite(t,
		withOverride(routeConfiguration, forRoute(`{"response": {"healthy": {"body": "widest\n"}}}`)),
		withRoute("/readyz", `{"path": "/readyz", "drain": "ignore"}`))
	s.setServing(1)
	s.post("/healthcheck/fail")
	expect(t, "the probe", s.mustDo(s.client("h2"), "GET", "/readyz", nil), 200, "widest\n", nil)
}

func TestALevelOfAnotherPluginOverridesNothing(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Levels)
	other := forRoute(`{}`)
	plugins := other["config"].(map[string]any)["plugins_config"].(map[string]any)
	plugins["another"] = plugins["healthgate"]
	delete(plugins, "healthgate")
	s := newSite(t,
		withOverride(routeConfiguration, forRoute(`{"response": {"healthy": {"body": "widest\n"}}}`)),
		withOverride(virtualHost, other))
	s.setServing(1)
	expect(t, "the probe", s.probe(s.client("h2")), 200, "widest\n", nil)
}

func TestAWeightedClusterIsTheNarrowestLevel(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Levels)
	s := newSite(t,
		withOverride(virtualHost, forRoute(`{"response": {"healthy": {"body": "host\n"}}, "stat_prefix": "wider"}`)),
		withConfig(func(c *testbed.Config) {
			addRoute(c, testbed.Routes, "/weighted", `{"path": "/weighted", "drain": "ignore"}`)
			c.Delete(testbed.Routes + ".0.direct_response")
			c.Set(testbed.Routes+".0.route", map[string]any{"weighted_clusters": map[string]any{"clusters": []any{map[string]any{
				"name": "service", "weight": 1,
				"typed_per_filter_config": map[string]any{"healthgate": forRoute(`{"stat_prefix": "weighted"}`)},
			}}}})
		}))
	s.setServing(1)
	s.post("/healthcheck/fail")
	expect(t, "the probe", s.mustDo(s.client("h2"), "GET", "/weighted", nil), 200, "host\n", nil)
	s.awaitStat("healthgate.weighted.ok", 1)
}

// secondListener adds a listener that is like the first.
func secondListener(c *testbed.Config) {
	second := c.Part(testbed.Listener)
	second.Set("name", "second")
	c.Set("static_resources.listeners.1", second.Get(""))
}

// merges is how often the plugin has merged two configurations.
func (s *site) merges() int {
	s.t.Helper()
	merges, err := testbed.Merges(s.envoy)
	if err != nil {
		s.t.Fatal(err)
	}
	return merges
}

// alternate probes a path of both listeners in turn, and returns how often the plugin has merged meanwhile.
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

// The golang extension keeps one merged configuration for a level, that of the parent it was merged with last.
func TestListenersThatShareRoutesMergeThemAnewInTurn(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Merging)
	s, p := prepare(t, withRDS(), withRoute("/readyz", `{"path": "/readyz", "response": {"healthy": {"body": "ready\n"}}}`))
	secondListener(p.config)
	envoy, err := testbed.StartEnvoy(t.Context(), s.dir, p.config, variant.Options(p.options))
	if err != nil {
		t.Fatal(err)
	}
	s.use(envoy)
	s.setServing(1)
	const times = 10
	if merges := s.alternate("/readyz", "ready\n", times); merges < times {
		t.Errorf("%d merges in %d turns, want one at least in each", merges, times)
	}
}

func TestListenersWithRoutesOfTheirOwnMergeOnceEach(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Merging)
	s := newSite(t, withRoute("/readyz", `{"path": "/readyz", "response": {"healthy": {"body": "ready\n"}}}`), withConfig(secondListener))
	s.setServing(1)
	if merges := s.alternate("/readyz", "ready\n", 10); merges != 2 {
		t.Errorf("%d merges, want one for each listener", merges)
	}
}

// The log of its beginning makes a request known to the plugin before its headers do.
func TestAProbeThatIsLoggedAtItsBeginningIsAnswered(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRoute("/readyz", `{"path": "/readyz"}`), withConfig(func(c *testbed.Config) {
		c.Set(testbed.HCM+".access_log_options", map[string]any{"flush_access_log_on_new_request": true})
	}))
	s.setServing(1)
	client := s.client("h2")
	expect(t, "/", s.probe(client), 200, "ok\n", nil)
	expect(t, "/readyz", s.mustDo(client, "GET", "/readyz", nil), 200, "ok\n", nil)
	if reply := s.mustDo(client, "GET", "/nobody", nil); reply.status != 404 {
		t.Errorf("got %d, want 404", reply.status)
	}
}

// The plugin holds what it has defined: a cluster that is removed leaves its last values to it.
func TestARouteGoesOnAnsweringFromTheGhostOfItsCluster(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Ghosts)
	var clusters []any
	s := newSite(t, withCDS(), withRoute("/other", `{"path": "/other", "clusters": ["other"]}`), withConfig(func(c *testbed.Config) {
		other := c.Part(testbed.Cluster)
		other.Set("name", "other")
		other.Set("load_assignment.cluster_name", "other")
		c.Set("static_resources.clusters.1", other.Get(""))
		clusters = c.Part("static_resources.clusters").Get("").([]any)
		c.Set(routeConfiguration+".validate_clusters", false)
	}))
	client := s.client("h2")
	s.setServing(1)
	s.awaitGauges("other", 1, 1)
	other := func() *answer { return s.mustDo(client, "GET", "/other", nil) }
	expect(t, "with the cluster", other(), 200, "ok\n", nil)

	s.writeClusters(clusters[0])
	s.awaitStat("cluster_manager.active_clusters", 1)
	if testbed.HasContribHost(variant) { // which can't hold what its plugin does
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

// leavesOut is a stats matcher that leaves out what begins with any of the prefixes.
func leavesOut(prefixes ...string) map[string]any {
	patterns := []any{}
	for _, prefix := range prefixes {
		patterns = append(patterns, map[string]any{"prefix": prefix})
	}
	return map[string]any{"exclusion_list": map[string]any{"patterns": patterns}}
}

func TestEachStatsMatcherLeavesOutWhatItIsFor(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	needs(t, testbed.Defining)
	const membership, own = "cluster.service.membership_", "healthgate."
	for name, test := range map[string]struct {
		bootstrap, listener, cluster map[string]any
		status                       int
		counted                      bool // the plugin's own stats are there
	}{
		"none":                                    {nil, nil, nil, 200, true},
		"the bootstrap's":                         {leavesOut(membership), nil, nil, 503, true},
		"the bootstrap's, of the plugin's own":    {leavesOut(own), nil, nil, 200, false},
		"the listener's":                          {nil, leavesOut(membership), nil, 503, true},
		"the listener's, of the plugin's own":     {nil, leavesOut(own), nil, 200, false},
		"the listener's in the bootstrap's place": {leavesOut(own), leavesOut("nothing."), nil, 200, true},
		"the listener's, for the plugin alone":    {leavesOut(membership), leavesOut("nothing."), nil, 503, true},
		"the cluster's":                           {nil, nil, leavesOut(membership), 503, true},
		"the cluster's in the bootstrap's place":  {leavesOut(membership), leavesOut("nothing."), leavesOut("nothing."), 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Config) {
				if test.bootstrap != nil {
					c.Set("stats_config", map[string]any{"stats_matcher": test.bootstrap})
				}
				for at, matcher := range map[string]map[string]any{testbed.Listener: test.listener, testbed.Cluster: test.cluster} {
					if matcher != nil {
						matcher["@type"] = "type.googleapis.com/envoy.config.metrics.v3.StatsMatcher"
						c.Set(at+".metadata", map[string]any{"typed_filter_metadata": map[string]any{"envoy.stats_matcher": matcher}})
					}
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
			s.stats(own) // and with it the plugin reads what is there by now
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

// HttpFilterDsoImpl in contrib/golang/common/dso/dso.cc asks for these ten, and refuses a plugin that lacks one.
func TestPluginThatLacksAFunctionIsRefused(t *testing.T) {
	t.Parallel()
	if !testbed.HasContribHost(variant) {
		t.Skip("it is about the golang extension of the tests")
	}
	skipWherePointed(t, "it needs a plugin of its own")
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
			// Under another name of the same length it is found no more.
			renamed := []byte(function[:len(function)-1] + "_")
			lacking := bytes.ReplaceAll(whole, []byte(function+"\x00"), append(renamed, 0))
			if bytes.Equal(lacking, whole) {
				t.Fatal("build/empty.so does not have it")
			}
			plugin := filepath.Join(t.TempDir(), "lacking.so")
			if err := os.WriteFile(plugin, lacking, 0o600); err != nil {
				t.Fatal(err)
			}
			log := refused(t, func(c *testbed.Config) {
				c.Set(testbed.Healthgate+".typed_config.filter_name", "lacking@lacking@"+plugin)
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
