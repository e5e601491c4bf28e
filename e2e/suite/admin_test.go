package suite

import (
	"fmt"
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
		s.whileHanging(4, func() { s.awaitProbe(client, 503, 3*time.Second) })
		s.awaitProbe(client, 200, settle)
	})
}

// Stats show neither the cluster's health nor the drain here.
func TestSourceAdminSeesADrainWithoutAnyStats(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	const gate = `{"clusters": ["service"], "source": "admin", "admin": {"address": "ADMIN", "interval": "0.1s"}}`
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
			expect(t, "draining", s.awaitProbe(client, 503, settle), 503, "unavailable\n", draining)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it failed after %v, want one poll or two (0.1s each)", took)
			}
			expect(t, "drain: ignore", s.mustDo(client, "GET", "/ignoring", nil), 200, "ok\n", nil)
			s.post("/healthcheck/ok")
		}
		s.awaitProbe(client, 200, settle)
		s.awaitDetails("healthgate_draining")
	})
	t.Run("from the start", func(t *testing.T) {
		ingress, admin := unusedAddress(t), unusedAddress(t)
		s, p := prepare(t, withoutStats(), startedDraining(t), withConfig(func(c *testbed.Bootstrap) {
			c.Listen(ingress.Port, admin.Port)
			c.SetGate(strings.ReplaceAll(gate, "ADMIN", admin.String()))
		}))
		envoy, err := testbed.LaunchEnvoy(s.dir, p.config, variant.Options(p.options)) // not StartEnvoy: it never becomes ready
		mustSucceed(t, err)
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
		s.awaitDetails("healthgate_cluster_unknown")
		s.writeClusters(clusters...)
	}
	s.awaitProbe(client, 200, settle)
}

// The request to admin names the clusters in a regular expression in a URL, in which some characters have another meaning.
func TestSourceAdminFindsAClusterOfAnyName(t *testing.T) {
	t.Parallel()
	const name = `odd|8080.+a&b=c#d e%41;(é)\`
	s := newSite(t, adminAt(t, `{"clusters": ["CLUSTER"], "source": "admin", "admin": {"address": "ADMIN", "interval": "0.1s"}}`),
		withConfig(func(c *testbed.Bootstrap) {
			c.SetGateKey("clusters", []any{name})
			c.AddCluster(c.CopyCluster(name))
		}))
	s.awaitProbe(s.client("h2"), 200, settle)
}

// Admin's answer has 16 MiB or more with all hosts. A request for more names than fit into a path gets all.
func TestSourceAdminWithThousandsOfHosts(t *testing.T) {
	t.Parallel()
	addresses := make([]string, 26_000)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.0.%d.%d:8080", i>>8, i&0xff)
	}
	clusters := []any{"service", map[string]any{"name": "many", "min_healthy": len(addresses)}} // the two that are required
	for i := range 20 {
		clusters = append(clusters, fmt.Sprint(strings.Repeat("missing", 130), i))
	}
	s := newSite(t, adminAt(t, `{"clusters": [], "source": "admin", "stale_after": "30s", "admin": {"address": "ADMIN", "interval": "0.2s"}}`),
		withConfig(func(c *testbed.Bootstrap) {
			cluster := c.CopyCluster("many")
			testbed.Patch(cluster, `{health_checks: null, type: STATIC}`)
			testbed.SetEndpoints(cluster, addresses...)
			c.AddCluster(cluster)
			c.SetGateKey("clusters", clusters)
			c.SetGateKey("require", 2)
		}))
	client := s.client("h2")
	for _, status := range []int{200, 503, 200} {
		s.setBackend(0, status == 200)
		s.awaitProbe(client, status, settle)
	}
	s.awaitDetails("healthgate_cluster_unhealthy")
	s.mustNotLog("can't poll admin")
}

// A route that RDS replaces is another configuration, whose first probe must not fail because there is no sample yet.
func TestRouteUpdateWithSourceAdminFailsNoProbe(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withRDS(), adminAt(t, `{"clusters": ["service"]}`))
	client := s.client("h2")
	for i := range 10 {
		path := fmt.Sprint("/probe", i)
		s.changeRoutes(func(host *routev3.VirtualHost) {
			addRoute(host, path, fmt.Sprintf(`{"path": "%s", "source": "admin", "admin": {"address": "%s", "interval": "60s"}}`,
				path, s.envoy.Admin))
		})
		if i == 0 { // there is no sample before the first poll
			s.awaitPath(path, 200)
			continue
		}
		var reply *answer
		s.await(settle, func() error {
			if reply = s.mustDo(client, "GET", path, nil); reply.status == 404 {
				return fmt.Errorf("%s is not there yet", path)
			}
			return nil
		})
		expect(t, path, reply, 200, "ok\n", nil)
	}
}
