package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"healthgate/e2e/testbed"
)

func TestSourceAdminFollowsTheHealthyHosts(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2), adminAt(t, `{"clusters": ["service"], "source": "admin", "stale_after": "1s",
		"admin": {"address": "ADMIN", "interval": "0.1s"}, "response": {"details": true}}`))
	client := s.client("h2")
	for _, n := range []int{2, 1, 0, 1} {
		s.setServing(n)
		s.awaitProbe(client, map[bool]int{true: 200, false: 503}[n > 0], settle)
	}
	// It knows the hosts, so a report with details has them.
	reply := s.mustDo(client, "GET", "/", nil, "accept", "application/json")
	for i, want := range []string{"healthy", "failed active health check"} {
		if !strings.Contains(reply.body, s.backends[i].Address) || !strings.Contains(reply.body, `"status": "`+want+`"`) {
			t.Errorf("the report lacks %s, %s: %s", s.backends[i].Address, want, reply.body)
		}
	}
	// The main thread serves admin: while it hangs, the last sample becomes stale.
	t.Run("the main thread hangs", func(t *testing.T) {
		s := s.in(t)
		hung := s.hang(4)
		s.awaitProbe(client, 503, 3*time.Second)
		if err := <-hung; err != nil {
			t.Fatal(err)
		}
		s.awaitProbe(client, 200, settle)
	})
}

func TestUnreachableAdminFailsTheProbe(t *testing.T) {
	t.Parallel()
	s := newSite(t, withGate(`{"clusters": ["service"], "source": "admin", "admin": {"address": "unix:///nowhere/admin.sock"}}`))
	s.setServing(1)
	expect(t, "a probe", s.probe(s.client("h2")), 503, "unavailable\n", nil)
	s.awaitLog(`"details":"healthgate_stale"`, settle)
	s.awaitLog("healthgate: can't poll admin at /nowhere/admin.sock: ", settle)
}

// Stats show neither the cluster's health nor the drain here.
func TestSourceAdminSeesADrainWithoutAnyStats(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	const gate = `{"clusters": ["service"], "source": "admin", "admin": {"address": "ADMIN", "interval": "0.1s"}}`
	drained := map[string]string{"x-envoy-immediate-health-check-fail": "true"}
	t.Run("while it runs", func(t *testing.T) {
		s := newSite(t, withoutStats(), adminAt(t, gate), onEveryRoute(), withConfig(func(c *testbed.Bootstrap) {
			addGate(c, "ignoring", fmt.Sprintf(`{"clusters": ["service"], "path": "/ignoring", "stat_prefix": "ignoring", "drain": "ignore",
				"source": "admin", "admin": {"address": "127.0.0.1:%d", "interval": "0.1s"}}`, adminPort(c)))
		}))
		client := s.client("h2")
		for range 3 {
			s.awaitProbe(client, 200, settle)
			began := time.Now()
			s.post("/healthcheck/fail")
			expect(t, "draining", s.awaitProbe(client, 503, settle), 503, "unavailable\n", drained)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it failed after %v, want one poll or two (0.1s each)", took)
			}
			expect(t, "drain: ignore", s.mustDo(client, "GET", "/ignoring", nil), 200, "ok\n", nil)
			s.post("/healthcheck/ok")
		}
		s.awaitProbe(client, 200, settle)
		s.awaitLog(`"details":"healthgate_draining"`, settle)
	})
	t.Run("from the start", func(t *testing.T) {
		flags := t.TempDir()
		if err := os.WriteFile(filepath.Join(flags, "drain"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ingress, admin := unusedAddress(t), unusedAddress(t)
		s, p := prepare(t, withoutStats(), withConfig(func(c *testbed.Bootstrap) {
			c.Listen(ingress.Port, admin.Port)
			c.FlagsPath = flags
			c.SetGate(strings.ReplaceAll(gate, "ADMIN", admin.String()))
		}))
		envoy, err := testbed.LaunchEnvoy(s.dir, p.config, variant.Options(p.options)) // not StartEnvoy: it never becomes ready
		if err != nil {
			t.Fatal(err)
		}
		envoy.Ingress, envoy.Admin = ingress.String(), admin.String()
		s.use(envoy)
		client := s.client("h2")
		s.await(settle, func() error {
			reply, err := s.do(client, "GET", "/", nil)
			if err == nil && reply.header.Get("x-envoy-immediate-health-check-fail") != "true" {
				err = fmt.Errorf("the probe gets %d without the header of a drain", reply.status)
			}
			return err
		})
		s.post("/healthcheck/ok")
		s.awaitProbe(client, 200, settle)
	})
}

func TestRemovedClusterIsUnknownBySourceAdmin(t *testing.T) {
	t.Parallel()
	var clusters []*clusterv3.Cluster
	s := newSite(t, adminAt(t, `{"clusters": [{"name": "service", "min_healthy": 0}], "source": "admin",
		"admin": {"address": "ADMIN", "interval": "0.1s"}}`), clustersByCDS(&clusters))
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

// The request to admin names the clusters in a regular expression in a URL, in which some characters have another meaning.
func TestSourceAdminFindsAClusterOfAnyName(t *testing.T) {
	t.Parallel()
	const name = `odd|8080.+a&b=c#d e%41;(é)\`
	var requests func() map[string]int
	s := newSite(t, adminAt(t, `{"clusters": ["CLUSTER"], "source": "admin", "admin": {"address": "ADMIN", "interval": "0.1s"}}`),
		withConfig(func(c *testbed.Bootstrap) {
			c.SetGateKey("clusters", []any{name})
			c.AddCluster(c.CopyCluster(name))
			requests = logAdmin(t, c)
		}))
	s.awaitProbe(s.client("h2"), 200, settle)
	for path := range requests() {
		if path == "/clusters?format=json" {
			t.Error("the request is for all clusters")
		}
	}
}

func TestSourceAdminWithThousandsOfHosts(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	const hosts, atLeast = 26_000, 16 << 20 // bytes of the answer with all hosts
	// More names than fit into a path.
	long := []any{"service"}
	for i := range 20 {
		long = append(long, fmt.Sprint(strings.Repeat("missing", 130), i))
	}
	for _, test := range []struct {
		name     string
		clusters []any
		require  any
		all      bool // the answer has all hosts
	}{
		{"of another cluster", []any{"service"}, "all", false},
		{"of another cluster, in the answer", long, 1, true},
		{"of this gate", []any{"service", map[string]any{"name": "many", "min_healthy": hosts}}, "all", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests func() map[string]int
			s := newSite(
				t,
				adminAt(t, `{"clusters": [], "source": "admin", "stale_after": "30s", "admin": {"address": "ADMIN", "interval": "0.2s"}}`),
				withConfig(func(c *testbed.Bootstrap) {
					addHosts(c, hosts)
					c.SetGateKey("clusters", test.clusters)
					c.SetGateKey("require", test.require)
					requests = logAdmin(t, c)
				}),
			)
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
				longest := 0
				for path, size := range requests() {
					if strings.HasPrefix(path, "/clusters") {
						longest = max(longest, size)
					}
				}
				if all := longest > atLeast; longest == 0 || all != test.all {
					return fmt.Errorf("the longest answer has %d bytes", longest)
				}
				return nil
			})
		})
	}
}

// addHosts adds a cluster "many" of n hosts.
func addHosts(c *testbed.Bootstrap, n int) {
	addresses := make([]string, n)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.0.%d.%d:8080", i>>8, i&0xff)
	}
	cluster := c.CopyCluster("many")
	testbed.Patch(cluster, `{health_checks: null, type: STATIC}`)
	testbed.SetEndpoints(cluster, addresses...)
	c.AddCluster(cluster)
}

// logAdmin makes Envoy log the requests to admin. The returned function gives each path so far, with the bytes of its longest answer.
func logAdmin(t *testing.T, c *testbed.Bootstrap) (requests func() map[string]int) {
	file := filepath.Join(t.TempDir(), "admin.log")
	c.Patch(c.Admin, fmt.Sprintf(`access_log: [{name: envoy.access_loggers.file, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q,
		log_format: {text_format_source: {inline_string: "%%REQ(:PATH)%% %%BYTES_SENT%%\n"}}}}]`, file))
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

// A route that RDS replaces is another configuration, whose first probe must not fail because there is no sample yet.
func TestRouteUpdateWithSourceAdminFailsNoProbe(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS(), adminAt(t, `{"clusters": ["service"]}`))
	s.setServing(1)
	client := s.client("h2")
	admin := s.envoy.Admin
	for i := range 10 {
		path := fmt.Sprint("/probe", i)
		s.changeRoutes(func(host *routev3.VirtualHost) {
			addRoute(host, path, fmt.Sprintf(`{"path": "%s", "source": "admin", "admin": {"address": "%s", "interval": "60s"}}`, path, admin))
		})
		var reply *answer
		s.await(settle, func() error {
			if reply = s.mustDo(client, "GET", path, nil); reply.status == 404 {
				return fmt.Errorf("%s is not there yet", path)
			}
			return nil
		})
		if i == 0 { // there is no sample before the first poll
			s.awaitPath(path, 200)
			continue
		}
		expect(t, path, reply, 200, "ok\n", nil)
	}
}
