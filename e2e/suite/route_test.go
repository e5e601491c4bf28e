package suite

import (
	"fmt"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"healthgate/e2e/testbed"
)

func TestRouteOverrideHasItsOwnRules(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(),
		withGate(`{"clusters": [{"name": "service", "min_healthy": 2}], "stat_prefix": "balancer", "response": {"healthy": {"body": "all\n"}}}`),
		withRoute("/readyz", `{"path": "/readyz", "clusters": ["service"], "stat_prefix": "kubelet", "drain": "ignore"}`),
		withRoute("/any", `{"path": "/any", "clusters": ["missing", "service"], "require": "any"}`))
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
	// Keys that the override lacks are the filter's.
	expect(t, "the kubelet while draining", s.mustDo(client, "GET", "/readyz", nil), 200, "all\n", nil)
	s.post("/healthcheck/ok")
	// Each has its own metrics.
	s.awaitStat("healthgate.kubelet.ok", 3)
	s.awaitStat("healthgate.balancer.failed_draining", 1)
}

// The golang extension reads the routes of a listener's own route_config at the first request, on a worker; an error there would end Envoy.
func TestBadOverrideInRouteConfigFailsItsProbes(t *testing.T) {
	t.Parallel()
	needs(t, testbed.LateRouteErrors)
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

// During an update the plugin is loaded already, so Envoy can refuse the update.
func TestUpdateWithABadOverrideIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS(), withRoute("/readyz", `{"path": "/readyz"}`))
	s.setServing(1)
	client := s.client("h2")
	expect(t, "before", s.mustDo(client, "GET", "/readyz", nil), 200, "ok\n", nil)
	update := func(gate string) bool {
		return s.reload(`{"clusters": ["service"]}`, func(c *testbed.Bootstrap) { addRoute(c.VirtualHost(), "/readyz", gate) })
	}
	if update(`{"path": "/readyz", "drian": "ignore"}`) {
		t.Error("Envoy took an override with an unknown key")
	}
	s.awaitLog("drian: unknown key, did you mean drain?", settle)
	expect(t, "after", s.mustDo(client, "GET", "/readyz", nil), 200, "ok\n", nil)
	if !update(`{"path": "/readyz", "clusters": ["missing"]}`) {
		t.Error("Envoy refused a good override")
	}
	s.awaitPath("/readyz", 503)
}

func TestRouteUpdatesLeakNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS())
	s.setServing(1)
	client := s.client("h2")
	// A probe of each update's route makes the override merged and its timer started.
	update := func(i int) {
		path := fmt.Sprintf("/probe%d", i)
		s.changeRoutes(func(host *routev3.VirtualHost) {
			addRoute(host, path, fmt.Sprintf(`{"path": "%s", "hold": {"unhealthy_after": "1s"}, "stat_prefix": "route%d"}`, path, i%3))
		})
		s.awaitPath(path, 200)
	}
	const warmUp, updates = 200, 1000
	for i := range warmUp {
		update(i)
	}
	before := s.residentMiB()
	for i := range updates {
		update(warmUp + i)
	}
	// A merged configuration is destroyed at once or within seconds; 1,000 leaked ones, each with a goroutine and a timer, would be more
	// than this.
	s.await(60*time.Second, func() error {
		if after := s.residentMiB(); after > before+8 {
			return fmt.Errorf("envoy has grown by %.1f MiB in %d updates", after-before, updates)
		}
		return nil
	})
	expect(t, "the probe", s.probe(client), 200, "ok\n", nil)
}
