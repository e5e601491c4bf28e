package suite

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// forRoute is a route's configuration of the plugin, which also enables it there.
func forRoute(plugin string) map[string]any {
	return map[string]any{
		"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
		"config": map[string]any{
			"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute",
			"plugins_config": map[string]any{"healthgate": map[string]any{"config": map[string]any{
				"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": parse(plugin),
			}}},
		},
	}
}

// addRoute puts a probe's route with a configuration of its own before the others, which are at the path routes.
func addRoute(c *testbed.Config, routes, path, plugin string) {
	c.Set(routes, slices.Insert(c.Get(routes).([]any), 0, any(map[string]any{
		"match":                   map[string]any{"path": path},
		"direct_response":         map[string]any{"status": 503},
		"typed_per_filter_config": map[string]any{"healthgate": forRoute(plugin)},
	})))
}

func withRoute(path, plugin string) option {
	return withConfig(func(c *testbed.Config) { addRoute(c, testbed.Routes, path, plugin) })
}

func TestRouteHasRulesOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(),
		withPlugin(`{"clusters": [{"name": "service", "min_healthy": 2}], "stat_prefix": "balancer", "response": {"healthy": {"body": "all\n"}}}`),
		withRoute("/readyz", `{"path": "/readyz", "clusters": ["service"], "stat_prefix": "kubelet", "drain": "ignore"}`),
		withRoute("/any", `{"path": "/any", "clusters": ["nobody", "service"], "require": "any"}`))
	client := s.client("h2")
	for states, want := range map[string][3]int{"hh": {200, 200, 200}, "hu": {503, 200, 200}, "uu": {503, 503, 503}} {
		s.writeHosts(hosts(states)...)
		for i, path := range []string{"/", "/readyz", "/any"} {
			if got := s.mustDo(client, "GET", path, nil); got.status != want[i] {
				t.Errorf("with hosts %s %s got %d, want %d", states, path, got.status, want[i])
			}
		}
	}
	s.writeHosts(hosts("hh")...)
	s.post("/healthcheck/fail")
	expect(t, "the balancer while draining", s.mustDo(client, "GET", "/", nil), 503, "unavailable\n", nil)
	// What the route leaves out is the filter's.
	expect(t, "the kubelet while draining", s.mustDo(client, "GET", "/readyz", nil), 200, "all\n", nil)
	s.post("/healthcheck/ok")
	// Each has metrics of its own.
	s.awaitStat("healthgate.kubelet.ok", 3)
	s.awaitStat("healthgate.balancer.failed_draining", 1)
}

// The routes of a listener's own route_config are read at the first request, on a worker; an error there would end Envoy.
func TestBadRouteOfTheListenersOwnFailsItsProbesAndEnvoyLives(t *testing.T) {
	t.Parallel()
	needs(t, testbed.BadRoutes)
	s := newSite(t, withRoute("/readyz", `{"path": "/readyz", "require": 7}`), withRoute("/broken", `{"path": "/broken", "paht": "/"}`))
	s.setServing(1)
	client := s.client("h2")
	for range 3 {
		for _, path := range []string{"/readyz", "/broken"} {
			expect(t, path, s.mustDo(client, "GET", path, nil), 503, "unavailable\n", map[string]string{"cache-control": "no-store"})
		}
		expect(t, "/", s.probe(client), 200, "ok\n", nil)
	}
	s.awaitLog("paht: unknown key, did you mean path?", settle)
	s.awaitLog("require: 7 is not a whole number from 1 to 1, the number of clusters", settle)
	s.awaitLog(`"details":"healthgate_error"`, settle)
	if err := s.envoy.Stop(); err != nil {
		t.Errorf("envoy ended with %v, want 0", err)
	}
}

// In an update the plugin is loaded, and Envoy can refuse.
func TestBadRouteOfAnUpdateIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS(), withRoute("/readyz", `{"path": "/readyz"}`))
	s.setServing(1)
	client := s.client("h2")
	expect(t, "before", s.mustDo(client, "GET", "/readyz", nil), 200, "ok\n", nil)
	update := func(plugin string) bool {
		config := referenceConfig(t)
		config.UseCertificate(s.cert)
		config.Listen(0, 0)
		addRoute(config, testbed.Routes, "/readyz", plugin)
		return s.reloadListener(config)
	}
	if update(`{"path": "/readyz", "drian": "ignore"}`) {
		t.Error("envoy took a route's configuration with an unknown key")
	}
	s.awaitLog("drian: unknown key, did you mean drain?", settle)
	expect(t, "after", s.mustDo(client, "GET", "/readyz", nil), 200, "ok\n", nil)
	if !update(`{"path": "/readyz", "clusters": ["nobody"]}`) {
		t.Error("envoy refused a good route's configuration")
	}
	s.await(settle, func() error {
		if reply := s.mustDo(client, "GET", "/readyz", nil); reply.status != 503 {
			return fmt.Errorf("got %d, want 503", reply.status)
		}
		return nil
	})
}

func TestAThousandRouteUpdatesLeaveNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS())
	s.setServing(1)
	client := s.client("h2")
	// Each update's route is used, so that it is merged; each has what runs in the background.
	update := func(i int) {
		routes, path := s.routes.Clone(), fmt.Sprintf("/probe%d", i)
		addRoute(routes, "virtual_hosts.0.routes", path,
			fmt.Sprintf(`{"path": "%s", "hold": {"unhealthy_after": "1s"}, "stat_prefix": "route%d"}`, path, i%3))
		s.writeRoutes(routes)
		s.await(settle, func() error {
			reply := s.mustDo(client, "GET", path, nil)
			if reply.status != 200 {
				return fmt.Errorf("update %d is answered with %d", i, reply.status)
			}
			return nil
		})
	}
	const warmUp, updates = 200, 1000
	for i := range warmUp {
		update(i)
	}
	before := s.residentMiB()
	for i := range updates {
		update(warmUp + i)
	}
	// A merged configuration is destroyed at once or within seconds; 1,000 that were kept, each with a goroutine and a
	// timer, would be more than this.
	s.await(60*time.Second, func() error {
		if after := s.residentMiB(); after > before+8 {
			return fmt.Errorf("envoy has grown by %.1f MiB in %d updates", after-before, updates)
		}
		return nil
	})
	expect(t, "the probe", s.probe(client), 200, "ok\n", nil)
}
