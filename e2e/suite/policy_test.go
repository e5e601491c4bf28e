package suite

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// Each key of the configuration that decides about a cluster, by its effect in Envoy.
func TestClusterRulesInEnvoy(t *testing.T) {
	t.Parallel()
	gates := []struct {
		rules  string
		states map[string]int // hosts to the status of the answer
	}{
		{`clusters: [{name: service, min_healthy: 2}]`, map[string]int{"hh": 200, "hd": 200, "hu": 503, "": 503}},
		{`clusters: [{name: service, min_healthy: 0}]`, map[string]int{"": 200, "u": 200}},
		{`clusters: [{name: service, min_healthy_percent: 50}]`, map[string]int{"hu": 200, "huu": 503, "hhuu": 200, "xt?": 503, "?t": 200}},
		{`clusters: [{name: service, degraded: count}]`, map[string]int{"d": 200, "du": 200}},
		{`clusters: [{name: service, degraded: ignore}]`, map[string]int{"d": 503, "hd": 200}},
		{`clusters: [service, missing]`, map[string]int{"h": 503}},
		{`clusters: [service, missing], require: all`, map[string]int{"h": 503}},
		{`clusters: [service, missing], require: any`, map[string]int{"h": 200, "u": 503}},
		{`clusters: [service, missing], require: 1`, map[string]int{"h": 200, "u": 503}},
		{`clusters: [service, missing], require: 2`, map[string]int{"h": 503}},
	}
	options := []option{withEDS()}
	all := map[string]bool{}
	for i, gate := range gates {
		options = append(options, withRoute(fmt.Sprint("/", i),
			fmt.Sprintf("{path: /%d, stat_prefix: gate%d, %s}", i, i, gate.rules)))
		for states := range gate.states {
			all[states] = true
		}
	}
	s := newSite(t, options...)
	client := s.client("h2")
	for states := range all {
		s.writeHosts(hosts(states)...)
		for i, gate := range gates {
			status, tested := gate.states[states]
			if !tested {
				continue
			}
			reply := s.mustDo(client, "GET", fmt.Sprint("/", i), nil)
			if degraded := reply.header.Get("x-envoy-degraded"); reply.status != status ||
				states == "d" && degraded != map[int]string{200: "true"}[status] {
				t.Errorf("with %s and hosts %q got %d and x-envoy-degraded %q, want %d", gate.rules, states, reply.status, degraded, status)
			}
		}
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

// healthReport is the JSON of a gate with details.
type healthReport struct {
	Status, Output string
	Checks         map[string][]hostCounts
}

type hostCounts struct {
	Status                   string
	Healthy, Degraded, Total int
}

// report returns the answer to a client that accepts a report.
func (s *site) report(path string) (reply *answer, read healthReport) {
	s.t.Helper()
	reply = s.mustDo(s.client("h2"), "GET", path, nil, "accept", "text/html, application/json;q=0.9")
	if err := json.Unmarshal([]byte(reply.body), &read); err != nil {
		s.t.Fatalf("%d %q: %v", reply.status, reply.body, err)
	}
	return reply, read
}

func TestReportNeedsDetailsAndAnAcceptHeader(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(), withGate(`{clusters: [service], response: {details: true}}`),
		withRoute("/plain", `{path: /plain, response: {details: false}}`))
	s.writeHosts(hosts("hdu")...)
	text := map[string]string{"content-type": "text/plain"}
	reply, got := s.report("/")
	want := healthReport{"pass", "healthgate_ok", map[string][]hostCounts{"service:membership": {{"pass", 1, 1, 3}}}}
	if !reflect.DeepEqual(got, want) || reply.status != 200 || strings.Contains(reply.body, "127.0.0.1") {
		t.Errorf("got %d %s", reply.status, reply.body)
	}
	headers := map[string]string{"content-type": "application/health+json", "content-length": strconv.Itoa(len(reply.body))}
	for _, protocol := range protocols {
		client := s.client(protocol)
		expect(t, "no accept header", s.mustDo(client, "GET", "/", nil, "accept", "*/*"), 200, "ok\n", text)
		expect(t, "details are off", s.mustDo(client, "GET", "/plain", nil, "accept", "application/json"), 200, "ok\n", text)
		expect(t, "GET", s.mustDo(client, "GET", "/", nil, "accept", "application/json"), 200, reply.body, headers)
		expect(t, "HEAD", s.mustDo(client, "HEAD", "/", nil, "accept", "application/json"), 200, "", headers)
	}
	s.writeHosts(hosts("u")...)
	if reply, got = s.report("/"); reply.status != 503 || got.Status != "fail" {
		t.Errorf("got %d %s", reply.status, reply.body)
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
	// The gate evaluates between probes, too: its metric changes without one.
	began = time.Now()
	s.writeHosts(hosts("h")...)
	s.probe(client) // which the log shows
	s.awaitStat("healthgate.held.healthy", 1)
	expect(t, "the first probe", s.probe(client), 200, "ok\n", nil)
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

func TestHangingMainThreadBecomesStale(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withGate(`{"clusters": ["service"], "stale_after": "1s"}`))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	hung := s.hang(4)
	s.awaitProbe(client, 503, 3*time.Second) // while it hangs
	if len(hung) > 0 {
		t.Fatalf("the main thread did not hang: %v", <-hung)
	}
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	s.awaitProbe(client, 200, settle)
}

// The hosts that admin shows count as in Envoy's gauges.
func TestSourceAdminCountsHostsLikeTheGauges(t *testing.T) {
	t.Parallel()
	const rules = `clusters: [{name: service, min_healthy: 0}], response: {details: true}`
	s := newSite(t, withEDS(), adminAt(t, `{`+rules+`, source: admin, admin: {address: "ADMIN", interval: 0.1s}}`), onEveryRoute(),
		withConfig(func(c *testbed.Bootstrap) { addGate(c, "gauges", `{`+rules+`, path: /gauges, stat_prefix: gauges}`) }))
	for _, states := range []string{"hhdduuxt?", "", "h", "d", "u", "x", "t", "?"} {
		s.writeHosts(hosts(states)...)
		s.await(settle, func() error {
			_, admin := s.report("/")
			if _, gauges := s.report("/gauges"); !reflect.DeepEqual(admin.Checks["service:membership"], gauges.Checks["service:membership"]) {
				return fmt.Errorf("hosts %q: admin counts %v, the gauges %v", states, admin, gauges)
			}
			return nil
		})
	}
}
