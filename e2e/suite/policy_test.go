package suite

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// edsHost is a host as discovery describes it; without active health checks that is its health.
type edsHost struct {
	address string
	status  string // of envoy.config.core.v3.HealthStatus
}

// withEDS has the first cluster take its hosts from a file, and checks no host actively.
func withEDS() option {
	return func(p *plan) {
		p.addresses = nil
		p.eds = true
	}
}

// writeHosts makes the hosts of the cluster those given, and waits until Envoy's gauges say so.
func (s *site) writeHosts(hosts ...edsHost) {
	s.t.Helper()
	endpoints := []any{}
	var healthy, degraded uint64
	for _, host := range hosts {
		endpoint := testbed.Endpoint(host.address)
		endpoint["health_status"] = host.status
		endpoints = append(endpoints, endpoint)
		switch host.status {
		case "HEALTHY", "UNKNOWN":
			healthy++
		case "DEGRADED":
			degraded++
		}
	}
	s.write("eds", "envoy.config.endpoint.v3.ClusterLoadAssignment", map[string]any{
		"cluster_name": "service", "endpoints": []any{map[string]any{"lb_endpoints": endpoints}},
	})
	if s.envoy == nil {
		return
	}
	s.await(settle, func() error {
		const prefix = "cluster.service.membership_"
		stats, err := s.envoy.Stats(prefix)
		if err != nil {
			return err
		}
		if h, d, n := stats[prefix+"healthy"], stats[prefix+"degraded"], stats[prefix+"total"]; h != healthy || d != degraded || n != uint64(len(hosts)) {
			return fmt.Errorf("envoy counts %d healthy and %d degraded of %d, want %d and %d of %d", h, d, n, healthy, degraded, len(hosts))
		}
		return nil
	})
}

// hosts makes hosts of the states named by letters: h(ealthy), d(egraded), u(nhealthy).
func hosts(states string) []edsHost {
	names := map[rune]string{'h': "HEALTHY", 'd': "DEGRADED", 'u': "UNHEALTHY", 'x': "DRAINING", 't': "TIMEOUT", '?': "UNKNOWN"}
	var list []edsHost
	for i, state := range states {
		list = append(list, edsHost{fmt.Sprintf("127.0.0.1:%d", 20000+i), names[state]})
	}
	return list
}

// Each key of the configuration that decides about a cluster, by its effect in Envoy.
func TestRulesOfAClusterInEnvoy(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for _, test := range []struct {
		plugin string
		states map[string]int // hosts to the status of the answer
	}{
		{`{"clusters": [{"name": "service", "min_healthy": 2}]}`, map[string]int{"hh": 200, "hd": 200, "hu": 503, "": 503}},
		{`{"clusters": [{"name": "service", "min_healthy": 0}]}`, map[string]int{"": 200, "u": 200}},
		{`{"clusters": [{"name": "service", "min_healthy_percent": 50}]}`, map[string]int{"hu": 200, "huu": 503, "hhuu": 200, "xt?": 503, "?t": 200}},
		{`{"clusters": [{"name": "service", "degraded": "count"}]}`, map[string]int{"d": 200, "du": 200}},
		{`{"clusters": [{"name": "service", "degraded": "ignore"}]}`, map[string]int{"d": 503, "hd": 200}},
		{`{"clusters": ["service", "nobody"]}`, map[string]int{"h": 503}},
		{`{"clusters": ["service", "nobody"], "require": "all"}`, map[string]int{"h": 503}},
		{`{"clusters": ["service", "nobody"], "require": "any"}`, map[string]int{"h": 200, "u": 503}},
		{`{"clusters": ["service", "nobody"], "require": 1}`, map[string]int{"h": 200, "u": 503}},
		{`{"clusters": ["service", "nobody"], "require": 2}`, map[string]int{"h": 503}},
	} {
		t.Run(test.plugin, func(t *testing.T) {
			s := newSite(t, withEDS(), withPlugin(test.plugin))
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

func TestResponsesAndPathAreTheConfiguredOnes(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(), onEveryRoute(), withPlugin(`{"clusters": ["service"], "path": "/healthz",
		"response": {"healthy": {"status": 202, "body": "fine"}, "unhealthy": {"status": 500, "body": ""}}}`))
	client := s.client("h2")
	s.writeHosts(hosts("h")...)
	expect(t, "healthy", s.mustDo(client, "GET", "/healthz", nil), 202, "fine", map[string]string{"content-type": "text/plain"})
	s.writeHosts(hosts("u")...)
	expect(t, "unhealthy", s.mustDo(client, "GET", "/healthz", nil), 500, "", map[string]string{"cache-control": "no-store"})
	expect(t, "another path", s.mustDo(client, "GET", "/", nil), 503, "", map[string]string{"cache-control": ""})
}

func TestReportIsForThoseWhoAskWhereDetailsAreOn(t *testing.T) {
	t.Parallel()
	for _, details := range []bool{true, false} {
		s := newSite(t, withEDS(), withPlugin(fmt.Sprintf(`{"clusters": ["service"], "response": {"details": %v}}`, details)))
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
			if report.Status != "pass" || report.Output != "healthgate_ok" || check.Status != "pass" || check.Healthy != 1 || check.Degraded != 1 || check.Total != 3 {
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

func TestHoldDampsInEnvoy(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(), withPlugin(`{"clusters": ["service"], "stat_prefix": "held", "hold": {"unhealthy_after": "1s", "healthy_after": "2s"}}`))
	client := s.client("h2")
	s.writeHosts(hosts("h")...)
	// A fresh configuration starts from the truth; this one may have seen the empty cluster first.
	s.awaitProbe(client, 200, settle)
	began := time.Now()
	s.writeHosts(hosts("u")...)
	// Whatever is read now is at most as old as the wait for the gauges.
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
	// The access log has the 503 that was held, and leaves out the 200.
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

// What happens between two probes counts: a host that was away for a moment starts the time anew.
func TestHoldSeesWhatHappensBetweenProbes(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(), withPlugin(`{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`))
	client := s.client("h2")
	s.writeHosts(hosts("h")...)
	s.awaitProbe(client, 200, settle)
	s.writeHosts(hosts("u")...)
	// No probe comes; the gate turns all the same, and says so in its gauge.
	s.awaitStat("healthgate.default.healthy", 0)
	expect(t, "the first probe", s.probe(client), 503, "unavailable\n", nil)
}

func TestClusterThatCDSRemovedTurnsStale(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Ghosts)
	var clusters []any
	s := newSite(t, ofCDS(&clusters), withPlugin(`{"clusters": ["service"], "stale_after": "2s"}`))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.removeClusters()
	// Its gauges stay where they were; that is what this is about.
	if n := s.stats("cluster.service.membership_healthy")["cluster.service.membership_healthy"]; n != 1 {
		t.Fatalf("the removed cluster has %d healthy hosts in its gauge, want 1", n)
	}
	removed := time.Now()
	s.awaitProbe(client, 503, settle)
	if took := time.Since(removed); took > 3*time.Second {
		t.Errorf("it failed after %v, want within stale_after (2s) and a look", took)
	}
	s.awaitLog(`"details":"healthgate_stale"`, settle)
	s.writeClusters(clusters...)
	s.awaitProbe(client, 200, settle)
}

func TestMainThreadThatHangsTurnsStaleWhileWorkersAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t, withPlugin(`{"clusters": ["service"], "stale_after": "1s"}`))
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

// A host that outlier detection ejected counts as unhealthy by either source.
func TestEjectedHostCountsAsUnhealthy(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(0), func(p *plan) {
		p.configured = append(p.configured, func(p *plan, _ []string) {
			p.config.SetEndpoints(unusedAddress(t).String())
			p.config.Delete(testbed.Cluster + ".health_checks")
			p.config.Set(testbed.Cluster+".outlier_detection", parse(`{"consecutive_5xx": 3, "interval": "0.1s", "base_ejection_time": "60s", "max_ejection_percent": 100}`))
		})
	}, adminAt(t, `{"clusters": ["service"]}`), withConfig(func(c *testbed.Config) {
		port := c.Get("admin.address.socket_address.port_value")
		addGate(c, "byadmin", fmt.Sprintf(`{"clusters": ["service"], "path": "/byadmin", "stat_prefix": "byadmin", "source": "admin",
			"admin": {"address": "127.0.0.1:%v", "interval": "0.1s"}}`, port))
	}), onEveryRoute())
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	s.await(settle, func() error {
		reply := s.mustDo(client, "POST", "/router.Router/Recommend", nil, "content-type", "application/grpc")
		if n := s.stats("cluster.service.outlier_detection.")["cluster.service.outlier_detection.ejections_active"]; n != 1 {
			return fmt.Errorf("not ejected after a call that got %d", reply.status)
		}
		return nil
	})
	s.awaitProbe(client, 503, settle)
	s.await(settle, func() error {
		if reply := s.mustDo(client, "GET", "/byadmin", nil); reply.status != 503 {
			return fmt.Errorf("by admin it is answered with %d", reply.status)
		}
		return nil
	})
}

// addGate puts another healthgate behind the first, for all routes.
func addGate(c *testbed.Config, name, plugin string) {
	gate := c.Clone().Get(testbed.Healthgate).(map[string]any)
	gate["name"] = name
	delete(gate, "disabled")
	gate["typed_config"].(map[string]any)["plugin_config"].(map[string]any)["value"] = parse(plugin)
	addFilter(c, gate)
}

// addFilter puts a filter behind the first, which stays what the paths of bed name.
func addFilter(c *testbed.Config, filter any) {
	c.Set(testbed.HTTPFilters, slices.Insert(c.Get(testbed.HTTPFilters).([]any), 1, filter))
}

// beside is a site with gates of each percentage, Envoy's own filter of the same, and one gate by admin.
func beside(t *testing.T, percents []int) *site {
	t.Helper()
	return newSite(t, withEDS(), onEveryRoute(), adminAt(t, `{"clusters": [{"name": "service", "min_healthy": 0}], "response": {"details": true}}`),
		withConfig(func(c *testbed.Config) {
			port := c.Get("admin.address.socket_address.port_value")
			for _, percent := range percents {
				addGate(c, fmt.Sprint("gate", percent), fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy": 0, "min_healthy_percent": %d}],
					"path": "/gate/%d", "stat_prefix": "gate%d"}`, percent, percent, percent))
				native := map[string]any{
					"name": fmt.Sprint("native", percent),
					"typed_config": map[string]any{
						"@type":                           "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
						"pass_through_mode":               false,
						"cluster_min_healthy_percentages": map[string]any{"service": map[string]any{"value": percent}},
						"headers":                         []any{map[string]any{"name": ":path", "string_match": map[string]any{"exact": fmt.Sprint("/native/", percent)}}},
					},
				}
				addFilter(c, native)
			}
			addGate(c, "byadmin", fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy": 0}], "path": "/byadmin", "stat_prefix": "byadmin",
				"response": {"details": true}, "source": "admin", "admin": {"address": "127.0.0.1:%v", "interval": "0.1s"}}`, port))
		}))
}

// Healthgate, Envoy's own health_check filter and admin as a source, of equivalent policies in the same Envoy, through
// random states of the hosts.
func TestAgreesWithEnvoysOwnFilterThroughRandomStates(t *testing.T) {
	t.Parallel()
	states := 2000
	if variant.Name() == "module" {
		states = 400 // each waits for a look
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
		if state%20 == 0 && !draining { // a look of admin's takes a while
			s.await(settle, func() error {
				a, b := counts(t, s.mustDo(client, "GET", "/byadmin", nil, "accept", "application/json")), counts(t, s.mustDo(client, "GET", "/", nil, "accept", "application/json"))
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
