package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// adminAt has admin listen on a port of the test's choice, and the plugin poll it.
func adminAt(t *testing.T, plugin string) option {
	t.Helper()
	port := unusedAddress(t).Port
	return withConfig(func(c *testbed.Config) {
		c.Listen(0, port)
		c.Set(testbed.PluginConfig, parse(strings.ReplaceAll(plugin, "ADMIN", fmt.Sprint("127.0.0.1:", port))))
	})
}

func TestAdminIsASource(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2), adminAt(t, `{"clusters": ["service"], "source": "admin", "stale_after": "1s",
		"admin": {"address": "ADMIN", "interval": "0.1s"}, "response": {"details": true}}`))
	client := s.client("h2")
	for _, n := range []int{2, 1, 0, 1} {
		s.setServing(n)
		s.awaitProbe(client, map[bool]int{true: 200, false: 503}[n > 0], settle)
	}
	// It knows the hosts, for those who may have details.
	reply := s.mustDo(client, "GET", "/", nil, "accept", "application/json")
	for i, want := range []string{"healthy", "failed active health check"} {
		if !strings.Contains(reply.body, s.backends[i].Address) || !strings.Contains(reply.body, `"status": "`+want+`"`) {
			t.Errorf("the report lacks %s, %s: %s", s.backends[i].Address, want, reply.body)
		}
	}
	// Admin is served by the main thread: while that hangs, what was seen last grows old.
	t.Run("whose main thread hangs", func(t *testing.T) {
		s := s.in(t)
		hung := s.hang(4)
		s.awaitProbe(client, 503, 3*time.Second)
		if err := <-hung; err != nil {
			t.Fatal(err)
		}
		s.awaitProbe(client, 200, settle)
	})
}

func TestAdminThatIsNotThereFailsTheProbe(t *testing.T) {
	t.Parallel()
	s := newSite(t, withPlugin(`{"clusters": ["service"], "source": "admin", "admin": {"address": "unix:///nowhere/admin.sock"}}`))
	s.setServing(1)
	expect(t, "a probe", s.probe(s.client("h2")), 503, "unavailable\n", nil)
	s.awaitLog(`"details":"healthgate_stale"`, settle)
	s.awaitLog("healthgate: can't poll admin at /nowhere/admin.sock: ", settle)
}

// By stats nothing is seen here: not the cluster's health, and not that Envoy fails its health checks.
func TestAdminTellsOfADrainWhereAllStatsAreFilteredOut(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	const plugin = `{"clusters": ["service"], "source": "admin", "admin": {"address": "ADMIN", "interval": "0.1s"}}`
	withoutStats := withConfig(func(c *testbed.Config) {
		c.Set("stats_config", parse(`{"stats_matcher": {"reject_all": true}}`))
	})
	drained := map[string]string{"x-envoy-immediate-health-check-fail": "true"}
	t.Run("told to while it runs", func(t *testing.T) {
		s := newSite(t, withoutStats, adminAt(t, plugin), onEveryRoute(), withConfig(func(c *testbed.Config) {
			addGate(c, "ignoring", fmt.Sprintf(`{"clusters": ["service"], "path": "/ignoring", "stat_prefix": "ignoring", "drain": "ignore",
				"source": "admin", "admin": {"address": "127.0.0.1:%v", "interval": "0.1s"}}`, c.Get("admin.address.socket_address.port_value")))
		}))
		client := s.client("h2")
		for range 3 {
			s.awaitProbe(client, 200, settle)
			told := time.Now()
			s.post("/healthcheck/fail")
			expect(t, "draining", s.awaitProbe(client, 503, settle), 503, "unavailable\n", drained)
			if took := time.Since(told); took > 2*time.Second {
				t.Errorf("it failed after %v, want a look or two (0.1s each)", took)
			}
			expect(t, "drain: ignore", s.mustDo(client, "GET", "/ignoring", nil), 200, "ok\n", nil)
			s.post("/healthcheck/ok")
		}
		s.awaitProbe(client, 200, settle)
		s.awaitLog(`"details":"healthgate_draining"`, settle)
	})
	t.Run("started so", func(t *testing.T) {
		flags := t.TempDir()
		if err := os.WriteFile(filepath.Join(flags, "drain"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ingress, admin := unusedAddress(t), unusedAddress(t)
		s, p := prepare(t, withoutStats, withConfig(func(c *testbed.Config) {
			c.Listen(ingress.Port, admin.Port)
			c.Set("flags_path", flags)
			c.Set(testbed.PluginConfig, parse(strings.ReplaceAll(plugin, "ADMIN", admin.String())))
		}))
		envoy, err := testbed.LaunchEnvoy(s.dir, p.config, variant.Options(p.options)) // it is not to be waited for: it never says that it is ready
		if err != nil {
			t.Fatal(err)
		}
		envoy.Ingress, envoy.Admin = ingress.String(), admin.String()
		s.use(envoy)
		client := s.client("h2")
		s.await(settle, func() error {
			reply, err := s.do(client, "GET", "/", nil)
			if err == nil && reply.header.Get("x-envoy-immediate-health-check-fail") != "true" {
				err = fmt.Errorf("it answers %d, and does not drain", reply.status)
			}
			return err
		})
		s.post("/healthcheck/ok")
		s.awaitProbe(client, 200, settle)
	})
}

func TestClusterThatCDSRemovedIsUnknownByAdmin(t *testing.T) {
	t.Parallel()
	var clusters []any
	s := newSite(t, withCDS(), adminAt(t, `{"clusters": [{"name": "service", "min_healthy": 0}], "source": "admin",
		"admin": {"address": "ADMIN", "interval": "0.1s"}}`), func(p *plan) {
		p.configured = append(p.configured, func(p *plan, _ []string) {
			clusters = p.config.Clone().Get("static_resources.clusters").([]any)
			p.config.Set(testbed.HCM+".route_config.validate_clusters", false)
		})
	})
	client := s.client("h2")
	for range 2 {
		s.awaitProbe(client, 200, settle)
		s.writeClusters()
		s.awaitProbe(client, 503, settle)
		s.awaitLog(`"details":"healthgate_cluster_unknown"`, settle)
		s.writeClusters(clusters...)
	}
	s.awaitProbe(client, 200, settle)
}

// Envoy is asked for the clusters by a regular expression in a URL, which reads some names otherwise than they are meant.
func TestAdminFindsAClusterWhateverItsName(t *testing.T) {
	t.Parallel()
	const name = `odd|8080.+a&b=c#d e%41;(é)\`
	var asked func() map[string]int
	s := newSite(t, adminAt(t, `{"clusters": ["CLUSTER"], "source": "admin", "admin": {"address": "ADMIN", "interval": "0.1s"}}`),
		withConfig(func(c *testbed.Config) {
			c.Set(testbed.PluginConfig+".clusters", []any{name})
			odd := c.Part(testbed.Cluster)
			odd.Set("name", name)
			c.Set("static_resources.clusters.1", odd.Get(""))
			asked = logAdmin(t, c)
		}))
	s.awaitProbe(s.client("h2"), 200, settle)
	for path := range asked() {
		if path == "/clusters?format=json" {
			t.Error("Envoy was asked for all clusters")
		}
	}
}

func TestAdminGoesOnWithThousandsOfHosts(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	const hosts, atLeast = 26_000, 16 << 20 // of the answer with all of them, in bytes
	// More than a path can name.
	unnamed := []any{"service"}
	for i := range 20 {
		unnamed = append(unnamed, fmt.Sprint(strings.Repeat("nobody", 150), i))
	}
	for _, test := range []struct {
		name     string
		clusters []any
		require  any
		all      bool // Envoy writes all hosts
	}{
		{"of another cluster", []any{"service"}, "all", false},
		{"of another cluster, in the answer", unnamed, 1, true},
		{"of its own", []any{"service", map[string]any{"name": "many", "min_healthy": hosts}}, "all", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked func() map[string]int
			s := newSite(t, adminAt(t, `{"clusters": [], "source": "admin", "stale_after": "30s", "admin": {"address": "ADMIN", "interval": "0.2s"}}`),
				withConfig(func(c *testbed.Config) {
					addHosts(c, hosts)
					c.Set(testbed.PluginConfig+".clusters", test.clusters)
					c.Set(testbed.PluginConfig+".require", test.require)
					asked = logAdmin(t, c)
				}))
			client := s.client("h2")
			for _, serving := range []bool{true, false, true} {
				if err := s.backends[0].SetServing(serving); err != nil {
					t.Fatal(err)
				}
				s.awaitProbe(client, map[bool]int{true: 200, false: 503}[serving], settle)
			}
			s.awaitLog(`"details":"healthgate_cluster_unhealthy"`, settle)
			if strings.Contains(s.envoy.Log(), "can't poll admin") {
				t.Error("a poll failed")
			}
			s.await(settle, func() error {
				most := 0
				for path, size := range asked() {
					if strings.HasPrefix(path, "/clusters") {
						most = max(most, size)
					}
				}
				if all := most > atLeast; most == 0 || all != test.all {
					return fmt.Errorf("the longest answer has %d bytes", most)
				}
				return nil
			})
		})
	}
}

// addHosts adds a cluster "many" of so many hosts.
func addHosts(c *testbed.Config, n int) {
	endpoints := make([]any, n)
	for i := range endpoints {
		endpoints[i] = testbed.Endpoint(fmt.Sprintf("10.0.%d.%d:8080", i>>8, i&0xff))
	}
	cluster := c.Part(testbed.Cluster)
	cluster.Delete("health_checks")
	cluster.Set("name", "many")
	cluster.Set("type", "STATIC")
	cluster.Set("load_assignment", map[string]any{
		"cluster_name": "many", "endpoints": []any{map[string]any{"lb_endpoints": endpoints}},
	})
	c.Set("static_resources.clusters.1", cluster.Get(""))
}

// logAdmin has Envoy note what admin is asked for, and returns what tells so far: each path with the bytes of its longest answer.
func logAdmin(t *testing.T, c *testbed.Config) (asked func() map[string]int) {
	file := filepath.Join(t.TempDir(), "admin.log")
	c.Set("admin.access_log", []any{map[string]any{
		"name": "envoy.access_loggers.file",
		"typed_config": map[string]any{
			"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
			"path":  file,
			"log_format": map[string]any{
				"text_format_source": map[string]any{"inline_string": "%REQ(:PATH)% %BYTES_SENT%\n"},
			},
		},
	}})
	return func() map[string]int {
		sizes := map[string]int{}
		for line := range strings.Lines(readFile(t, file)) {
			var path string
			var size int
			if n, _ := fmt.Sscan(line, &path, &size); n == 2 {
				sizes[path] = max(sizes[path], size)
			}
		}
		return sizes
	}
}

// A route that RDS gives anew is another configuration, whose first probe must not fail for want of a look.
func TestUpdateOfARouteByAdminFailsNoProbe(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS(), adminAt(t, `{"clusters": ["service"]}`))
	s.setServing(1)
	client := s.client("h2")
	admin := s.envoy.Admin
	for i := range 10 {
		path := fmt.Sprint("/probe", i)
		routes := s.routes.Clone()
		addRoute(routes, "virtual_hosts.0.routes", path,
			fmt.Sprintf(`{"path": "%s", "source": "admin", "admin": {"address": "%s", "interval": "60s"}}`, path, admin))
		s.writeRoutes(routes)
		var reply *answer
		s.await(settle, func() error {
			if reply = s.mustDo(client, "GET", path, nil); reply.status == 404 {
				return fmt.Errorf("%s is not there yet", path)
			}
			return nil
		})
		if i == 0 { // nobody has looked before
			s.await(settle, func() error {
				if reply = s.mustDo(client, "GET", path, nil); reply.status != 200 {
					return fmt.Errorf("%s is answered with %d", path, reply.status)
				}
				return nil
			})
		}
		expect(t, path, reply, 200, "ok\n", nil)
	}
}
