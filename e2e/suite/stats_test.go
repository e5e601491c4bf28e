package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

func TestRepliesAreCountedAndChangesLoggedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2), withGate(`{"clusters": [{"name": "service", "min_healthy": 2}], "stat_prefix": "edge"}`))
	client := s.client("h2")
	s.setServing(2)
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
	want := map[string]uint64{
		"ok": 3, "failed": 3, "failed_cluster_unhealthy": 2, "failed_draining": 1, "transitions": 1, "healthy": 0,
	}
	s.await(settle, func() error {
		got := s.stats("healthgate.edge.")
		for name, value := range want {
			if got["healthgate.edge."+name] != value {
				return fmt.Errorf("got %v, want %v", got, want)
			}
		}
		return nil
	})
	s.setServing(2)
	s.probe(client)
	s.awaitStat("healthgate.edge.healthy", 1)

	for line, want := range map[string]int{
		`starts with 200 healthgate_ok: cluster "service" has 2 healthy and 0 degraded of 2 hosts`:                        1,
		`changed from 200 to 503 healthgate_cluster_unhealthy: cluster "service" has 1 healthy and 0 degraded of 2 hosts`: 1,
		`changed from 503 to 200 healthgate_ok: cluster "service" has 2 healthy and 0 degraded of 2 hosts`:                1,
	} {
		s.awaitLines("healthgate: gate edge "+line, want, settle)
	}
}

func TestAccessLogHasOnlyFailingProbes(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it reads Envoy's log"))
	client := s.client("h2")
	s.setServing(1)
	s.mustDo(client, "GET", "/?first=passes", nil)
	s.setServing(0)
	s.mustDo(client, "GET", "/?second=fails", nil)
	s.mustDo(client, "GET", "/third", nil)
	s.awaitLog("/third", settle) // the log is in order, so it has the others before this one
	if strings.Contains(s.envoy.Log(), "first=passes") {
		t.Error("the access log has a probe that was answered with 200")
	}
	if !strings.Contains(s.envoy.Log(), `"path":"/?second=fails"`) {
		t.Error("the access log lacks a probe that was answered with 503")
	}
	if !strings.Contains(s.envoy.Log(), `"details":"healthgate_cluster_unhealthy"`) {
		t.Error("the access log lacks the details of a probe that was answered with 503")
	}
}

// The names of Envoy's gauges do not always have the cluster's name.
func TestClusterIsFoundByItsStatName(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, test := range map[string]struct{ cluster, altStatName, plugin string }{
		"a colon":             {"outbound|8080||service:v1", "", `{"clusters": ["outbound|8080||service:v1"]}`},
		"a URL":               {"http://service.example:80", "", `{"clusters": ["http://service.example:80"]}`},
		"dots everywhere":     {".service..v1.", "", `{"clusters": [".service..v1."]}`},
		"two dots at the end": {"service..", "", `{"clusters": ["service.."]}`},
		"alt_stat_name":       {"service", "the_service", `{"clusters": [{"name": "service", "stat_name": "the_service"}]}`},
		"alt_stat_name colon": {"service", "the:service", `{"clusters": [{"name": "service", "stat_name": "the:service"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, withGate(test.plugin), withConfig(func(c *testbed.Bootstrap) {
				testbed.RenameCluster(c.Cluster(), test.cluster)
				c.Cluster().AltStatName = test.altStatName
				c.Patch(c.ServiceRoute(), fmt.Sprintf(`route: {cluster: %q}`, test.cluster))
			}))
			s.awaitProbe(s.client("h2"), 200, settle)
			if err := s.backends[0].SetServing(false); err != nil {
				t.Fatal(err)
			}
			s.awaitProbe(s.client("h2"), 503, settle)
		})
	}
}

// A cluster whose gauges show no host fails, and after half a minute the log has the possible reasons, once.
func TestClusterWithoutHostsIsLogged(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, options := range map[string][]option{
		"a missing cluster": {withGate(`{"clusters": ["service", "missing"]}`)},
		"excluded stats": {withGate(`clusters: [{name: service}, missing]`),
			withStatsMatcher(`exclusion_list: {patterns: [{prefix: cluster.missing.}]}`),
			withConfig(func(c *testbed.Bootstrap) { c.AddCluster(c.CopyCluster("missing")) })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if len(options) == 1 {
				needs(t, testbed.UnnoticedRemovals)
			}
			s := newSite(t, options...)
			s.setServing(1)
			expect(t, "a probe", s.probe(s.client("h2")), 503, "unavailable\n", nil)
			const warning = `cluster "missing" has shown no host yet`
			s.awaitLines(warning, 1, 45*time.Second)
			log := s.envoy.Log()
			for _, reason := range []string{
				"see /clusters", "set clusters[1].stat_name", "a stats matcher leaves out cluster.missing.membership_total",
			} {
				if !strings.Contains(log, reason) {
					t.Errorf("the warning lacks %q", reason)
				}
			}
			if strings.Contains(log, `cluster "service" has shown no host`) {
				t.Errorf("the warning is there for another cluster, too:\n%s", testbed.Tail(log, 5))
			}
		})
	}
}
