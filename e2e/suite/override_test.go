package suite

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// withSecondListener adds a listener like the first, with another configuration of the plugin.
func withSecondListener(plugin string) option { return func(p *plan) { p.second = parse(plugin) } }

// overrideRoute has RDS give a route with a configuration of its own.
func (s *site) overrideRoute(path, plugin string) {
	s.t.Helper()
	routes := s.routes.Clone()
	addRoute(routes, "virtual_hosts.0.routes", path, plugin)
	s.writeRoutes(routes)
	s.await(settle, func() error {
		reply := s.mustDo(s.client("h2"), "GET", path, nil)
		if reply.header.Get("cache-control") == "" {
			return fmt.Errorf("%s is answered by no gate: %d", path, reply.status)
		}
		return nil
	})
}

// byTurns probes a path on both listeners, one after the other, until each answers with a status, and returns how long that
// took.
func (s *site) byTurns(path string, status int) (took time.Duration) {
	s.t.Helper()
	began := time.Now()
	both := []*site{s, s.at("second")}
	s.await(settle, func() error {
		var err error
		for _, side := range both {
			if reply := side.mustDo(side.client("h2"), "GET", path, nil); reply.status != status {
				err = fmt.Errorf("%s is answered with %d, want %d", path, reply.status, status)
			}
		}
		return err
	})
	return time.Since(began)
}

// Two listeners whose routes come by one RDS share the route's override. The host keeps one merged configuration of it, and
// makes it anew whenever the other listener is asked.
func TestListenersThatShareRoutesEachHoldAndLogOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS(), withPlugin(`{"clusters": ["service"], "stat_prefix": "first"}`),
		withSecondListener(`{"clusters": ["service"], "stat_prefix": "second"}`))
	s.setServing(1)
	s.overrideRoute("/readyz", `{"path": "/readyz", "hold": {"unhealthy_after": "2s", "healthy_after": "1s"}}`)
	s.byTurns("/readyz", 200)
	s.setServing(0)
	if took := s.byTurns("/readyz", 503); took < time.Second { // the hold began up to a check before
		t.Errorf("they failed after %v, the hold is 2s", took)
	}
	s.setServing(1)
	if took := s.byTurns("/readyz", 200); took < 500*time.Millisecond {
		t.Errorf("they passed after %v, the hold is 1s", took)
	}
	for _, prefix := range []string{"first", "second"} {
		for _, change := range []string{"starts with 200", "changed from 200 to 503", "changed from 503 to 200"} {
			s.awaitLines("healthgate: gate "+prefix+" "+change, 1, settle)
		}
	}
}

// ofCDS has the clusters come by CDS, so that one can go; its routes don't ask for it.
func ofCDS(clusters *[]any) option {
	return func(p *plan) {
		p.cds = true
		p.configured = append(p.configured, func(p *plan, _ []string) {
			*clusters = p.config.Clone().Get("static_resources.clusters").([]any)
			unvalidated(p.config)
		})
	}
}

// unvalidated has the routes name clusters that are not there.
func unvalidated(c *testbed.Config) { c.Set(testbed.HCM+".route_config.validate_clusters", false) }

// removeClusters has CDS take every cluster away.
func (s *site) removeClusters() {
	s.t.Helper()
	s.writeClusters()
	s.awaitStat("cluster_manager.cluster_removed", 1)
}

func TestListenersThatShareRoutesEachTurnStale(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Ghosts)
	var clusters []any
	s := newSite(t, withRDS(), ofCDS(&clusters), withSecondListener(`{"clusters": ["service"], "stat_prefix": "second"}`))
	s.awaitProbe(s.client("h2"), 200, settle)
	s.overrideRoute("/readyz", `{"path": "/readyz", "stale_after": "2s"}`)
	s.byTurns("/readyz", 200)
	s.removeClusters()
	if took := s.byTurns("/readyz", 503); took > 4*time.Second {
		t.Errorf("they turned stale after %v, stale_after is 2s", took)
	}
	s.awaitLog(`"details":"healthgate_stale"`, settle)
}

// Updates that come more often than stale_after must not keep fresh what is gone.
func TestUpdatesDontMakeARemovedClusterAnyFresher(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Ghosts)
	var clusters []any
	s := newSite(t, withLDS(), ofCDS(&clusters), withPlugin(`{"clusters": ["service"], "stale_after": "3s"}`))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.removeClusters()
	removed := time.Now()
	update := 0
	s.await(settle, func() error {
		if update++; !s.reload(fmt.Sprintf(`{"clusters": ["service"], "stale_after": "3s", "stat_prefix": "update%d"}`, update), unvalidated) {
			t.Fatal("envoy refused a good configuration")
		}
		if reply := s.probe(client); reply.status != 503 {
			return fmt.Errorf("after %v and %d updates it is answered with %d", time.Since(removed), update, reply.status)
		}
		return nil
	})
	if took := time.Since(removed); took > 6*time.Second || update < 3 {
		t.Errorf("it turned stale after %v and %d updates, stale_after is 3s", took, update)
	}
}

// What is wrong with a pair of listener and route is mended by either.
func TestErrorOfARouteIsMendedByItsListener(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS(), withLDS())
	s.setServing(1)
	s.overrideRoute("/readyz", `{"path": "/readyz", "require": 2}`)
	client := s.client("h2")
	expect(t, "two of one cluster", s.mustDo(client, "GET", "/readyz", nil), 503, "unavailable\n", nil)
	s.awaitLog(`"details":"healthgate_error"`, settle)

	if !s.reload(`{"clusters": ["service", {"name": "nobody", "min_healthy": 0}]}`, func(c *testbed.Config) {
		c.Delete(testbed.HCM + ".route_config")
		c.Set(testbed.HCM+".rds", map[string]any{"route_config_name": "routes", "config_source": s.fromFile("rds")})
	}) {
		t.Fatal("envoy refused a good listener")
	}
	s.await(settle, func() error {
		reply := s.mustDo(s.client("h2"), "GET", "/readyz", nil)
		if variant.Can(testbed.Ghosts) != nil { // it knows that there is no such cluster
			if !strings.Contains(s.envoy.Log(), `"details":"healthgate_cluster_unknown"`) {
				return errors.New("the error stays as it was")
			}
			return nil
		}
		if reply.status != 200 {
			return fmt.Errorf("two of two clusters: %d", reply.status)
		}
		return nil
	})
}

// What is laid over something broken is broken: the rules of a wider level must not answer for it.
func TestBrokenLevelFailsTheProbesBelowIt(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	needs(t, testbed.Levels)
	const good = `{"path": "/readyz", "stat_prefix": "kubelet"}`
	for name, levels := range map[string][2]string{
		"the widest":          {`{"paht": "/"}`, `{}`},
		"the one between":     {`{"drain": "ignore"}`, `{"require": 9}`},
		"both":                {`{"require": 9}`, `{"paht": "/"}`},
		"neither":             {`{"drain": "ignore"}`, `{}`},
		"mended by the route": {`{}`, `{"require": 2}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			route := good
			if name == "mended by the route" {
				route = `{"path": "/readyz", "clusters": ["service", {"name": "nobody", "min_healthy": 0}]}`
			}
			s := newSite(t, withOverride(routeConfiguration, forRoute(levels[0])), withOverride(virtualHost, forRoute(levels[1])), withRoute("/readyz", route))
			s.setServing(1)
			for _, protocol := range protocols {
				reply := s.mustDo(s.client(protocol), "GET", "/readyz", nil)
				if name == "neither" {
					expect(t, protocol, reply, 200, "ok\n", nil)
					continue
				}
				expect(t, protocol, reply, 503, "unavailable\n", map[string]string{"cache-control": "no-store"})
			}
			if name == "neither" {
				return
			}
			s.awaitLog(`"details":"healthgate_error"`, settle)
			s.awaitLines("healthgate: a route's configuration can't be used", 1, settle)
		})
	}
}

// What lies between the filter and the route that answers writes no metrics of its own.
func TestLevelThatAnswersNobodyHasNoMetrics(t *testing.T) {
	t.Parallel()
	needs(t, testbed.LateStats)
	s := newSite(t, withOverride(routeConfiguration, forRoute(`{"stat_prefix": "between", "hold": {"unhealthy_after": "1s"}}`)),
		withRoute("/readyz", `{"path": "/readyz", "stat_prefix": "kubelet"}`))
	s.setServing(1)
	expect(t, "the probe", s.mustDo(s.client("h2"), "GET", "/readyz", nil), 200, "ok\n", nil)
	s.awaitStat("healthgate.kubelet.healthy", 1)
	if stats := s.stats("healthgate.between"); len(stats) > 0 {
		t.Errorf("the level between has %v", stats)
	}
	if strings.Contains(s.envoy.Log(), "gate between") {
		t.Error("the level between has logged")
	}
}
