package suite

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"healthgate/e2e/testbed"
)

// Each key of the configuration that decides about a cluster, by its effect in Envoy.
func TestClusterRulesInEnvoy(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for _, test := range []struct {
		plugin string
		states map[string]int // hosts to the status of the answer
	}{
		{`{"clusters": [{"name": "service", "min_healthy": 2}]}`, map[string]int{"hh": 200, "hd": 200, "hu": 503, "": 503}},
		{`{"clusters": [{"name": "service", "min_healthy": 0}]}`, map[string]int{"": 200, "u": 200}},
		{`{"clusters": [{"name": "service", "min_healthy_percent": 50}]}`,
			map[string]int{"hu": 200, "huu": 503, "hhuu": 200, "xt?": 503, "?t": 200}},
		{`{"clusters": [{"name": "service", "degraded": "count"}]}`, map[string]int{"d": 200, "du": 200}},
		{`{"clusters": [{"name": "service", "degraded": "ignore"}]}`, map[string]int{"d": 503, "hd": 200}},
		{`{"clusters": ["service", "missing"]}`, map[string]int{"h": 503}},
		{`{"clusters": ["service", "missing"], "require": "all"}`, map[string]int{"h": 503}},
		{`{"clusters": ["service", "missing"], "require": "any"}`, map[string]int{"h": 200, "u": 503}},
		{`{"clusters": ["service", "missing"], "require": 1}`, map[string]int{"h": 200, "u": 503}},
		{`{"clusters": ["service", "missing"], "require": 2}`, map[string]int{"h": 503}},
	} {
		t.Run(test.plugin, func(t *testing.T) {
			s := newSite(t, withEDS(), withGate(test.plugin))
			client := s.client("h2")
			for states, status := range test.states {
				s.writeHosts(hosts(states)...)
				reply := s.probe(client)
				degraded := ""
				if status == 200 && states != "" && !strings.ContainsAny(states, "h?u") {
					degraded = "true"
				}
				if reply.status != status {
					t.Errorf("with hosts %q got %d, want %d", states, reply.status, status)
				} else if states == "d" && reply.header.Get("x-envoy-degraded") != degraded {
					t.Errorf("with hosts %q got x-envoy-degraded %q, want %q", states, reply.header.Get("x-envoy-degraded"), degraded)
				}
			}
		})
	}
}

func TestConfiguredPathAndResponses(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(), onEveryRoute(), withGate(`{"clusters": ["service"], "path": "/healthz",
		"response": {"healthy": {"status": 202, "body": "fine"}, "unhealthy": {"status": 500, "body": ""}}}`))
	client := s.client("h2")
	s.writeHosts(hosts("h")...)
	expect(t, "healthy", s.mustDo(client, "GET", "/healthz", nil), 202, "fine", map[string]string{"content-type": "text/plain"})
	s.writeHosts(hosts("u")...)
	expect(t, "unhealthy", s.mustDo(client, "GET", "/healthz", nil), 500, "", map[string]string{"cache-control": "no-store"})
	expect(t, "another path", s.mustDo(client, "GET", "/", nil), 503, "", map[string]string{"cache-control": ""})
}

func TestReportNeedsDetailsAndAnAcceptHeader(t *testing.T) {
	t.Parallel()
	for _, details := range []bool{true, false} {
		s := newSite(t, withEDS(), withGate(fmt.Sprintf(`{"clusters": ["service"], "response": {"details": %v}}`, details)))
		s.writeHosts(hosts("hdu")...)
		for _, protocol := range protocols {
			client := s.client(protocol)
			expect(t, "text", s.mustDo(client, "GET", "/", nil, "accept", "*/*"), 200, "ok\n", map[string]string{"content-type": "text/plain"})
			reply := s.mustDo(client, "GET", "/", nil, "accept", "text/html, application/json;q=0.9")
			if !details {
				expect(t, "details are off", reply, 200, "ok\n", map[string]string{"content-type": "text/plain"})
				continue
			}
			if got := reply.header.Get("content-type"); got != "application/health+json" {
				t.Errorf("got content-type %q", got)
			}
			var report struct {
				Status, Output string
				Checks         map[string][]struct {
					Status                   string
					Healthy, Degraded, Total int
				}
			}
			if err := json.Unmarshal([]byte(reply.body), &report); err != nil {
				t.Fatalf("%q: %v", reply.body, err)
			}
			check := report.Checks["service:membership"][0]
			if report.Status != "pass" || report.Output != "healthgate_ok" || check.Status != "pass" || check.Healthy != 1 || check.Degraded != 1 ||
				check.Total != 3 {
				t.Errorf("got %s", reply.body)
			}
			if strings.Contains(reply.body, "127.0.0.1") {
				t.Errorf("the report names a host: %s", reply.body)
			}
			head := s.mustDo(client, "HEAD", "/", nil, "accept", "application/json")
			if head.status != 200 || head.body != "" || head.header.Get("content-type") != "application/health+json" ||
				head.header.Get("content-length") != strconv.Itoa(len(reply.body)) {
				t.Errorf("HEAD got %d %q %v, GET has %d bytes", head.status, head.body, head.header, len(reply.body))
			}
		}
		if !details {
			continue
		}
		s.writeHosts(hosts("u")...)
		failing := s.mustDo(s.client("h2"), "GET", "/", nil, "accept", "application/json")
		if failing.status != 503 || !strings.Contains(failing.body, `"status": "fail"`) {
			t.Errorf("got %d %s", failing.status, failing.body)
		}
	}
}

func TestHoldDelaysAChange(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(),
		withGate(`{"clusters": ["service"], "stat_prefix": "held", "hold": {"unhealthy_after": "1s", "healthy_after": "2s"}}`))
	client := s.client("h2")
	s.writeHosts(hosts("h")...)
	// A new configuration starts with the current verdict; this one may have seen the empty cluster first.
	s.awaitProbe(client, 200, settle)
	began := time.Now()
	s.writeHosts(hosts("u")...)
	// The change is at most as old as the wait for the gauges.
	s.awaitProbe(client, 503, settle)
	if held := time.Since(began); held < time.Second {
		t.Errorf("it failed after %v, want 1s at least", held)
	}
	began = time.Now()
	s.writeHosts(hosts("h")...)
	s.awaitProbe(client, 200, settle)
	if held := time.Since(began); held < 2*time.Second {
		t.Errorf("it passed after %v, want 2s at least", held)
	}
	// The access log has the held 503, and not the held 200.
	s.awaitLog(`"details":"healthgate_held"`, settle)
	for line := range strings.Lines(s.envoy.Log()) {
		if strings.Contains(line, `"details":"healthgate_held"`) && strings.Contains(line, `"status":200`) {
			t.Errorf("the access log has a probe that was answered with 200: %s", line)
			break
		}
	}

	// Draining is never held back.
	s.post("/healthcheck/fail")
	expect(t, "draining", s.probe(client), 503, "unavailable\n", map[string]string{"x-envoy-immediate-health-check-fail": "true"})
	s.post("/healthcheck/ok")
	expect(t, "no longer draining", s.probe(client), 200, "ok\n", nil)
}

// The gate evaluates between probes, too.
func TestHoldEndsWithoutAProbe(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(), withGate(`{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`))
	client := s.client("h2")
	s.writeHosts(hosts("h")...)
	s.awaitProbe(client, 200, settle)
	s.writeHosts(hosts("u")...)
	// Without a probe the verdict changes all the same, and with it the gauge.
	s.awaitStat("healthgate.default.healthy", 0)
	expect(t, "the first probe", s.probe(client), 503, "unavailable\n", nil)
}

func TestRemovedClusterBecomesStale(t *testing.T) {
	t.Parallel()
	needs(t, testbed.UnnoticedRemovals)
	var clusters []*clusterv3.Cluster
	s := newSite(t, clustersByCDS(&clusters), withGate(`{"clusters": ["service"], "stale_after": "2s"}`))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.removeClusters()
	// Its gauges keep their values, so only stale_after can fail the probe.
	if n := s.stat("cluster.service.membership_healthy"); n != 1 {
		t.Fatalf("the removed cluster has %d healthy hosts in its gauge, want 1", n)
	}
	removed := time.Now()
	s.awaitProbe(client, 503, settle)
	if took := time.Since(removed); took > 3*time.Second {
		t.Errorf("it failed after %v, want within stale_after (2s) and a sample", took)
	}
	s.awaitLog(`"details":"healthgate_stale"`, settle)
	s.writeClusters(clusters...)
	s.awaitProbe(client, 200, settle)
}

func TestHangingMainThreadBecomesStale(t *testing.T) {
	t.Parallel()
	s := newSite(t, withGate(`{"clusters": ["service"], "stale_after": "1s"}`))
	client := s.client("h2")
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
	hung := s.hang(4)
	s.awaitProbe(client, 503, 3*time.Second) // while it hangs
	select {
	case err := <-hung:
		t.Fatalf("the main thread did not hang: %v", err)
	default:
	}
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	s.awaitProbe(client, 200, settle)
}

// With either source, a host that outlier detection has ejected counts as unhealthy.
func TestEjectedHostCountsAsUnhealthy(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(0), withConfig(func(c *testbed.Bootstrap) {
		c.SetEndpoints(unusedAddress(t).String())
		c.Patch(c.Cluster(), `{health_checks: null,
			outlier_detection: {consecutive_5xx: 3, interval: 0.1s, base_ejection_time: 60s, max_ejection_percent: 100}}`)
	}), adminAt(t, `{"clusters": ["service"]}`), withConfig(func(c *testbed.Bootstrap) {
		addGate(c, "byadmin", fmt.Sprintf(`{"clusters": ["service"], "path": "/byadmin", "stat_prefix": "byadmin", "source": "admin",
			"admin": {"address": "127.0.0.1:%d", "interval": "0.1s"}}`, adminPort(c)))
	}), onEveryRoute())
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.await(settle, func() error {
		reply := s.mustDo(client, "POST", "/router.Router/Recommend", nil, "content-type", "application/grpc")
		if n := s.stat("cluster.service.outlier_detection.ejections_active"); n != 1 {
			return fmt.Errorf("not ejected after a call that got %d", reply.status)
		}
		return nil
	})
	s.awaitProbe(client, 503, settle)
	s.awaitPath("/byadmin", 503)
}

// beside returns a site with a gate for each percentage, Envoy's own filter for each of them, and one gate with source: admin.
func beside(t *testing.T, percents []int) *site {
	t.Helper()
	return newSite(
		t,
		withEDS(),
		onEveryRoute(),
		adminAt(t, `{"clusters": [{"name": "service", "min_healthy": 0}], "response": {"details": true}}`),
		withConfig(func(c *testbed.Bootstrap) {
			for _, percent := range percents {
				addGate(c, fmt.Sprint("gate", percent), fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy": 0, "min_healthy_percent": %d}],
					"path": "/gate/%d", "stat_prefix": "gate%d"}`, percent, percent, percent))
				c.AddFilter(testbed.Parse[*hcmv3.HttpFilter](fmt.Sprintf(`{name: native%[1]d, typed_config: {
					"@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, pass_through_mode: false,
					cluster_min_healthy_percentages: {service: {value: %[1]d}},
					headers: [{name: ":path", string_match: {exact: /native/%[1]d}}]}}`, percent)))
			}
			addGate(c, "byadmin", fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy": 0}], "path": "/byadmin", "stat_prefix": "byadmin",
				"response": {"details": true}, "source": "admin", "admin": {"address": "127.0.0.1:%d", "interval": "0.1s"}}`, adminPort(c)))
		}),
	)
}

// Healthgate with either source and Envoy's own health_check filter answer alike, with the same policies in the same Envoy, in random
// states of the hosts.
func TestAgreesWithEnvoysHealthCheckFilterInRandomStates(t *testing.T) {
	t.Parallel()
	states := 2000
	if variant.Name() == "module" {
		states = 400 // each waits for a sample
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	percents := []int{0, 1, 33, 50, 67, 75, 100}
	s := beside(t, percents)
	client := s.client("h2")
	draining := false
	letters := "hhhdduuxt?"
	answers := map[int]int{}
	for state := range states {
		n := r.IntN(9)
		if r.IntN(10) == 0 {
			n = 0
		}
		var text []byte
		for range n {
			text = append(text, letters[r.IntN(len(letters))])
		}
		s.writeHosts(hosts(string(text))...)
		if r.IntN(20) == 0 {
			draining = !draining
			s.post(map[bool]string{true: "/healthcheck/fail", false: "/healthcheck/ok"}[draining])
		}
		percent := percents[state%len(percents)]
		gate := s.mustDo(client, "GET", fmt.Sprint("/gate/", percent), nil)
		native := s.mustDo(client, "GET", fmt.Sprint("/native/", percent), nil)
		if gate.status != native.status {
			t.Fatalf("seed %d, state %d, hosts %q at %d %%, draining %v: healthgate answers %d, Envoy's own filter %d",
				seed, state, text, percent, draining, gate.status, native.status)
		}
		answers[gate.status]++
		if state%20 == 0 && !draining { // a poll of admin takes a while
			s.await(settle, func() error {
				a, b := counts(t, s.mustDo(client, "GET", "/byadmin", nil, "accept", "application/json")), counts(t,
					s.mustDo(client, "GET", "/", nil, "accept", "application/json"))
				if a != b {
					return fmt.Errorf("hosts %q: admin counts %v, the gauges %v", text, a, b)
				}
				return nil
			})
		}
	}
	if answers[200] < states/10 || answers[503] < states/10 {
		t.Errorf("the states were not mixed: %v", answers)
	}
}

func counts(t *testing.T, reply *answer) [3]int {
	t.Helper()
	var report struct {
		Checks map[string][]struct{ Healthy, Degraded, Total int }
	}
	if err := json.Unmarshal([]byte(reply.body), &report); err != nil {
		t.Fatalf("%d %q: %v", reply.status, reply.body, err)
	}
	check := report.Checks["service:membership"][0]
	return [3]int{check.Healthy, check.Degraded, check.Total}
}
