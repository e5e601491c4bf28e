package suite

import (
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

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
	skipWithRunningEnvoy(t, "it changes the configuration")
	components := []string{"metrics/pod-monitor"}
	if variant.Name() == "module" {
		components = append(components, "module")
	}
	s := newSite(t, asDeployed(t, envoysDeployment(t, components...)))
	s.setServing(1)
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
	skipWithRunningEnvoy(t, "it changes the configuration")
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
