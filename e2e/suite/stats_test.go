package suite

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

func TestRepliesAreCountedAndChangesLoggedOnce(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, backends(2), withGate(`{"clusters": [{"name": "service", "min_healthy": 2}], "stat_prefix": "edge"}`))
	client := s.client("h2")
	for range 3 {
		expect(t, "a probe", s.probe(client), 200, "ok\n", nil)
	}
	s.setServing(1)
	for range 2 {
		expect(t, "a probe", s.probe(client), 503, "unavailable\n", nil)
	}
	s.post("/healthcheck/fail")
	s.probe(client)
	s.post("/healthcheck/ok")
	s.awaitStats("healthgate.edge.", map[string]uint64{
		"ok": 3, "failed": 3, "failed_cluster_unhealthy": 2, "failed_draining": 1, "transitions": 1, "healthy": 0,
	})
	s.setServing(2)
	s.probe(client)
	s.awaitStat("healthgate.edge.healthy", 1)

	const hosts = `: cluster "service" has %d healthy and 0 degraded of 2 hosts`
	for line, healthy := range map[string]int{
		"starts with 200 healthgate_ok": 2, "changed from 200 to 503 healthgate_cluster_unhealthy": 1, "changed from 503 to 200 healthgate_ok": 2,
	} {
		s.awaitLines(fmt.Sprintf("healthgate: gate edge "+line+hosts, healthy), 1, settle)
	}
}

// The names of Envoy's gauges do not always have the cluster's name.
func TestClusterIsFoundByItsStatName(t *testing.T) {
	t.Parallel()
	gates := []struct{ name, altStatName, cluster string }{
		{"outbound|8080||service:v1", "", `"outbound|8080||service:v1"`},
		{"http://service.example:80", "", `"http://service.example:80"`},
		{".service..v1.", "", `".service..v1."`},
		{"service..", "", `"service.."`},
		{"one", "the_service", `{"name": "one", "stat_name": "the_service"}`},
		{"two", "the:service", `{"name": "two", "stat_name": "the:service"}`},
	}
	s := newSite(t, onEveryRoute(), withConfig(func(c *testbed.Bootstrap) {
		for i, gate := range gates {
			cluster := c.CopyCluster(gate.name)
			cluster.AltStatName = gate.altStatName
			c.AddCluster(cluster)
			addGate(c, fmt.Sprint("gate", i), fmt.Sprintf(`{"clusters": [%s], "path": "/%d", "stat_prefix": "gate%d"}`, gate.cluster, i, i))
		}
	}))
	for up, status := range []int{503, 200} {
		s.setServing(up)
		for i, gate := range gates {
			path := fmt.Sprint("/", i)
			s.awaitStatus(gate.name, status, settle, func() *answer { return s.path(path) })
		}
	}
}

// A cluster whose gauges show no host fails, and after half a minute the log has the possible reasons, once.
func TestClusterWithoutHostsIsLogged(t *testing.T) {
	subtests(t, map[string][]option{
		"a missing cluster": {withGate(`{"clusters": ["service", "missing"]}`)},
		"excluded stats": {withGate(`clusters: [{name: service}, missing]`),
			withStatsMatcher(`exclusion_list: {patterns: [{prefix: cluster.missing.}]}`),
			withConfig(func(c *testbed.Bootstrap) { c.AddCluster(c.CopyCluster("missing")) })},
	}, func(t *testing.T, options []option) {
		if len(options) == 1 {
			needs(t, testbed.UnnoticedRemovals)
		}
		s := newServingSite(t, options...)
		expect(t, "a probe", s.probe(s.client("h2")), 503, "unavailable\n", nil)
		s.awaitLines(`cluster "missing" has shown no host yet`, 1, 45*time.Second)
		s.awaitLog("see /clusters", settle)
		s.awaitLog("set clusters[1].stat_name", settle)
		s.awaitLog("a stats matcher leaves out cluster.missing.membership_total", settle)
		s.mustNotLog(`cluster "service" has shown no host`)
	})
}

// markingProbes applies envoy/examples/mark-probes.yaml to the configuration.
func markingProbes(t *testing.T) option {
	t.Helper()
	example := readExample(t, "mark-probes").HCM()
	return withConfig(func(c *testbed.Bootstrap) {
		c.HCM().AccessLog[0].Filter = example.AccessLog[0].Filter
		c.PrependFilter(example.HttpFilters[0])
	})
}

func TestMarkedProbesAreNotInTheTrafficStats(t *testing.T) {
	type row struct {
		options []option
		counted uint64
	}
	subtests(t, map[string]row{"marked": {[]option{markingProbes(t)}, 0}, "not": {nil, 10}}, func(t *testing.T, test row) {
		s := newSite(t, test.options...)
		s.setServing(0)
		client := s.client("h2")
		for i := range 10 {
			reply := s.mustDo(client, "GET", "/", nil, "user-agent", fmt.Sprint("probe-", i))
			_, marked := reply.header["X-Envoy-Upstream-Healthchecked-Cluster"]
			if reply.status != 503 || marked != (test.counted == 0) {
				t.Errorf("the probe is answered with %d, want 503; the reply has %v", reply.status, reply.header)
			}
		}
		s.awaitLog("probe-9", settle) // the log has failing probes, marked or not
		s.awaitStat("http.ingress.downstream_rq_5xx", test.counted)
		s.setServing(1)
		s.mustDo(client, "GET", "/", nil, "user-agent", "passes")
		callRouter(t, s)
		s.awaitLog("/router.Router/Recommend", settle)
		s.mustNotLog("passes")
		s.awaitDetails("healthgate_cluster_unhealthy")
	})
}

func TestEnvoysFilterAnswersMarkedProbesDuringADrain(t *testing.T) {
	subtests(t, map[string][]option{
		"reference configuration": nil,
		"without any stat":        {withoutStats()},
		"with drain: ignore":      {withGate(`{"clusters": [{"name": "service", "min_healthy": 0}], "drain": "ignore"}`)},
	}, func(t *testing.T, options []option) {
		s := newSite(t, append(options, markingProbes(t))...)
		client := s.client("h2")
		expect(t, "an ordinary request", s.mustDo(client, "GET", "/x", nil), 404, "", notDraining)
		s.post("/healthcheck/fail")
		reply := s.probe(client)
		expect(t, "the probe", reply, 503, "", draining)
		expect(t, "the probe", reply, 503, "", map[string]string{"cache-control": ""})
		expect(t, "an ordinary request during the drain", s.mustDo(client, "GET", "/x", nil), 404, "", draining)
		s.awaitDetails("health_check_failed")
		s.post("/healthcheck/ok")
		if got := s.probe(client).header.Get("x-envoy-immediate-health-check-fail"); got != "" {
			t.Errorf("after the drain the probe gets x-envoy-immediate-health-check-fail: %s", got)
		}
	})
}

// askedFor returns the metrics in the queries of the alerts and the dashboard.
func askedFor(t *testing.T) []string {
	t.Helper()
	text := readFile(t, filepath.Join(testbed.Root(), "manifests", "alerts.yaml")) + readFile(t,
		filepath.Join(testbed.Root(), "manifests", "components", "metrics", "dashboard.json"))
	text = strings.ReplaceAll(text, "${gate}", "healthgate_default")
	names := regexp.MustCompile(`\benvoy_\w+`).FindAllString(text, -1)
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "envoy_cluster_name" }) // a label
}

// With the shipped manifests Envoy exposes each metric that the alerts and the dashboard query.
func TestEnvoyExposesTheMetricsOfAlertsAndDashboard(t *testing.T) {
	t.Parallel()
	components := []string{"metrics/pod-monitor"}
	if variant.Name() == "module" {
		components = append(components, "module")
	}
	s := newServingSite(t, asDeployed(t, envoysDeployment(t, components...)))
	expect(t, "the probe", s.probe(s.client("h2")), 200, "ok\n", nil)
	s.awaitStat("healthgate.default.ok", 1)
	shown := s.plain("metrics", http.MethodGet, "/stats/prometheus")
	if shown.status != 200 {
		t.Fatalf("it is answered with %d", shown.status)
	}
	names := askedFor(t)
	if len(names) < 15 {
		t.Errorf("the queries have only %v", names)
	}
	for _, name := range names {
		onlyStock := name == "envoy_healthgate_looks" || strings.HasPrefix(name, "envoy_healthgate_default_grpc_")
		if there := regexp.MustCompile(`(?m)^` + name + `(\{| )`).MatchString(shown.body); !there && (!onlyStock || variant.Name() == "module") {
			t.Errorf("%s is queried, but not exposed", name)
		}
	}
	if !strings.Contains(shown.body, `envoy_cluster_membership_total{envoy_cluster_name="service"}`) {
		t.Error("the metrics of the cluster's hosts lack its name")
	}
}

// The metrics listener forwards no other request to admin.
func TestMetricsListenerForwardsOnlyMetrics(t *testing.T) {
	t.Parallel()
	s := newSite(t, asDeployed(t, envoysDeployment(t, "metrics/pod-monitor")))
	for _, request := range [][2]string{
		{"GET", "/"}, {"GET", "/stats"}, {"GET", "/stats/prometheus/"}, {"POST", "/stats/prometheus"}, {"POST", "/quitquitquit"},
		{"GET", "/config_dump"}, {"GET", "/stats/prometheus/../../config_dump"}, {"GET", "/stats/prometheus%2f..%2f..%2fconfig_dump"},
		{"GET", "//stats/prometheus"}, {"POST", "/healthcheck/fail"},
	} {
		if reply := s.plain("metrics", request[0], request[1]); reply.status != 404 {
			t.Errorf("%v is answered with %d", request, reply.status)
		}
	}
}
