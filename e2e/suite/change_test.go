package suite

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// path probes one path.
func (s *site) path(path string) *answer {
	s.t.Helper()
	return s.mustDo(s.client("h2"), http.MethodGet, path, nil)
}

func (s *site) awaitPath(path string, status int) {
	s.t.Helper()
	s.await(settle, func() error {
		if reply := s.path(path); reply.status != status {
			return fmt.Errorf("%s is answered with %d, want %d", path, reply.status, status)
		}
		return nil
	})
}

// always probes a path for some time, and expects one status throughout.
func (s *site) always(path string, status int, during time.Duration) {
	s.t.Helper()
	for until := time.Now().Add(during); time.Now().Before(until); {
		if reply := s.path(path); reply.status != status {
			s.t.Fatalf("%s is answered with %d %q, want %d", path, reply.status, reply.body, status)
		}
	}
}

// withoutOverrides makes RDS bring the routes as they were at the start.
func (s *site) withoutOverrides() {
	s.t.Helper()
	s.writeRoutes(s.routes)
	s.await(settle, func() error {
		if reply := s.path("/readyz"); reply.header.Get("cache-control") != "" {
			return fmt.Errorf("/readyz is still answered by a gate")
		}
		return nil
	})
}

// twoClusters adds a cluster "other" with the same hosts, all by CDS.
func twoClusters(clusters *[]any) option {
	return func(p *plan) {
		p.cds = true
		p.configured = append(p.configured, func(p *plan, _ []string) {
			other := p.config.Clone().Get(testbed.Cluster).(map[string]any)
			other["name"] = "other"
			p.config.Set("static_resources.clusters.1", other)
			*clusters = p.config.Clone().Get("static_resources.clusters").([]any)
			unvalidated(p.config)
		})
	}
}

// An override that RDS brings, takes away and brings again sees its cluster as it is then.
func TestOverrideThatComesAgainIsAnsweredByItsCluster(t *testing.T) {
	t.Parallel()
	var clusters []any
	s := newSite(t, withRDS(), twoClusters(&clusters))
	s.setServing(1)
	const override = `{"path": "/readyz", "clusters": ["other"]}`
	s.overrideRoute("/readyz", override)
	s.awaitPath("/readyz", 200)
	for range 3 {
		s.withoutOverrides()
		looks := s.stats("healthgate.looks")["healthgate.looks"]
		s.await(settle, func() error { // until the module has made another pass; the plugin makes none
			if now := s.stats("healthgate.looks")["healthgate.looks"]; looks > 0 && now < looks+3 {
				return fmt.Errorf("%d passes, %d before", now, looks)
			}
			return nil
		})
		s.overrideRoute("/readyz", override)
		s.awaitPath("/readyz", 200)
		s.setServing(0)
		s.awaitPath("/readyz", 503)
		s.setServing(1)
		s.awaitPath("/readyz", 200)
	}
}

// The debounce of an override goes on, though Envoy builds it anew when another route changes.
func TestHoldOfAnOverrideOutlivesAnUpdateOfItsRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS())
	s.setServing(1)
	const override = `{"path": "/readyz", "hold": {"unhealthy_after": "6s"}}`
	s.overrideRoute("/readyz", override)
	s.awaitPath("/readyz", 200)
	began := time.Now()
	s.setServing(0)
	for i := range 3 {
		routes := s.routes.Clone()
		addRoute(routes, "virtual_hosts.0.routes", "/readyz", override)
		addRoute(routes, "virtual_hosts.0.routes", fmt.Sprintf("/other%d", i), `{"path": "/other", "stat_prefix": "other"}`)
		s.writeRoutes(routes)
		s.awaitStat("http.ingress.rds.routes.update_success", uint64(3+i))
		if reply := s.path("/readyz"); reply.status != 200 && time.Since(began) < 6*time.Second {
			t.Fatalf("%v after the host has failed it is answered with %d", time.Since(began), reply.status)
		}
	}
	s.awaitPath("/readyz", 503)
	if took := time.Since(began); took < 6*time.Second || took > 12*time.Second {
		t.Errorf("it failed after %v, unhealthy_after is 6s", took)
	}
}

// The debounce of a filter goes on in the next listener of the same configuration.
func TestHoldOfAFilterOutlivesAnUpdateOfItsListener(t *testing.T) {
	t.Parallel()
	const held = `{"clusters": ["service"], "hold": {"unhealthy_after": "600s"}}`
	s := newSite(t, withLDS(), withPlugin(held))
	s.setServing(1)
	s.awaitPath("/", 200)
	s.setServing(0)
	for i := range 3 {
		if !s.reload(held, func(c *testbed.Config) { c.Set(testbed.HCM+".server_name", fmt.Sprint("update", i)) }) {
			t.Fatal("envoy refused a good listener")
		}
		s.awaitPath("/", 200)
	}
}

// Counters that an operator resets, and those of a cluster that CDS brings again, begin anew.
func TestClusterWhoseCountersBeginAnewIsNotStale(t *testing.T) {
	t.Parallel()
	var clusters []any
	s := newSite(t, ofCDS(&clusters), withPlugin(`{"clusters": ["service"], "stale_after": "3s"}`))
	s.setServing(1)
	s.awaitPath("/", 200)
	s.post("/reset_counters")
	s.always("/", 200, 4*time.Second)
	added := s.stats("cluster_manager.cluster_added")["cluster_manager.cluster_added"]
	s.removeClusters()
	s.writeClusters(clusters...)
	s.awaitStat("cluster_manager.cluster_added", added+1)
	s.awaitStat("cluster_manager.warming_clusters", 0)
	s.awaitPath("/", 200)
	s.always("/", 200, 4*time.Second)
}

// Only the module knows which clusters Envoy has, and it knows at once.
func TestClusterIsUnknownAsLongAsEnvoyDoesNotHaveIt(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var clusters []any
	s := newSite(t, twoClusters(&clusters), withPlugin(`{"clusters": [{"name": "other", "min_healthy": 0}]}`))
	s.setServing(1)
	expect(t, "a cluster by CDS", s.path("/"), 200, "ok\n", nil)
	for i := range 3 {
		s.writeClusters(clusters[0])
		s.awaitPath("/", 503)
		s.awaitLog(`"details":"healthgate_cluster_unknown"`, settle)
		s.writeClusters(clusters...)
		s.awaitPath("/", 200)
		s.awaitStat("cluster_manager.cluster_removed", uint64(i+1))
	}
	if strings.Contains(s.envoy.Log(), "healthgate_cluster_empty") {
		t.Error("a cluster that is not there was taken for an empty one")
	}
}

// Gates whose cluster never was there, from the first probe on.
func TestClusterThatNeverWasThereIsUnknown(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withRDS(), withPlugin(`{"clusters": [{"name": "nope", "min_healthy": 0}]}`))
	expect(t, "the first probe", s.path("/"), 503, "unavailable\n", nil)
	s.overrideRoute("/readyz", `{"path": "/readyz", "clusters": [{"name": "neither", "min_healthy": 0}]}`)
	expect(t, "an override", s.path("/readyz"), 503, "unavailable\n", nil)
	s.awaitStat("healthgate.default.failed_cluster_unknown", s.stats("healthgate.default.failed")["healthgate.default.failed"])
}

// While a listener warms, the gate of the next configuration writes neither the gauge nor the log beside the one that serves.
func TestListenerThatWarmsWritesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS(), alone("it reads Envoy's log"))
	s.setServing(1)
	s.awaitPath("/", 200)
	s.awaitStat("healthgate.default.healthy", 1)
	before := s.stats("listener_manager.")["listener_manager.total_listeners_warming"]
	config := referenceConfig(t)
	config.UseCertificate(s.cert)
	config.Listen(0, 0)
	// Its routes never come.
	config.Delete(testbed.HCM + ".route_config")
	config.Set(testbed.HCM+".rds", parse(`{"route_config_name": "late", "config_source": {"resource_api_version": "V3", "initial_fetch_timeout": "0s",
		"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "service"}}]}}}`))
	variant.Prepare(config)
	s.writeListener(config.Get(testbed.Listener))
	s.await(settle, func() error {
		if now := s.stats("listener_manager.")["listener_manager.total_listeners_warming"]; now != before+1 {
			return fmt.Errorf("%d listeners are warming", now)
		}
		return nil
	})
	s.always("/", 200, 2*time.Second)
	if n := strings.Count(s.envoy.Log(), "gate default starts with"); n != 1 {
		t.Errorf("%d lines of gates that start", n)
	}
	if healthy := s.stats("healthgate.default.healthy")["healthgate.default.healthy"]; healthy != 1 {
		t.Errorf("healthy is %d", healthy)
	}
}

// A process that is stopped and goes on (SIGSTOP, the cgroup freezer, a migration) has no health that is known to be bad.
func TestProbesThatWaitedWhileEnvoyWasStoppedPass(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it stops Envoy")
	for name, plugin := range map[string]string{"plain": `{"clusters": ["service"]}`, "stale_after": `{"clusters": ["service"], "stale_after": "2s"}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withPlugin(plugin), alone("it stops Envoy"))
			s.setServing(1)
			s.awaitPath("/", 200)
			l := s.probeUntilStopped(40)
			s.await(settle, func() error {
				if l.sofar(200) < 40 {
					return fmt.Errorf("the load has not begun")
				}
				return nil
			})
			pid := s.envoy.Pid()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6500 * time.Millisecond) // the time that is stopped is what this is about
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			sofar := l.sofar(200)
			s.await(settle, func() error {
				if l.sofar(200) < sofar+200 {
					return fmt.Errorf("%d probes since", l.sofar(200)-sofar)
				}
				return nil
			})
			l.mustAllBe(200, 200)
		})
	}
}

// Many filter chains come in one update: neither the update nor a probe waits for a pass for each.
func TestUpdateOfManyFilterChainsMakesFewPasses(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withLDS(), alone("it counts passes"))
	s.setServing(1)
	s.awaitPath("/", 200)
	chains := func(update int) func(*testbed.Config) {
		return func(c *testbed.Config) {
			first := c.Clone().Get(testbed.Listener + ".filter_chains.0").(map[string]any)
			all := []any{first}
			for i := range 200 {
				chain := c.Clone().Get(testbed.Listener + ".filter_chains.0").(map[string]any)
				chain["filter_chain_match"] = map[string]any{"server_names": []any{fmt.Sprintf("host%d-%d.example", i, update)}}
				all = append(all, chain)
			}
			c.Set(testbed.Listener+".filter_chains", slices.Clip(all))
		}
	}
	l := s.probeUntilStopped(4)
	for update := range 3 {
		before, began := s.stats("healthgate.looks")["healthgate.looks"], time.Now()
		if !s.reload(`{"clusters": ["service"]}`, chains(update)) {
			t.Fatal("envoy refused 200 filter chains")
		}
		// One for all of the new names, and those that come anyway.
		passes := s.stats("healthgate.looks")["healthgate.looks"] - before
		if most := uint64(time.Since(began)/(50*time.Millisecond)) + 3; passes > most {
			t.Errorf("update %d made %d passes in %v, want %d at most", update, passes, time.Since(began), most)
		}
	}
	l.mustAllBe(200, 10)
}
