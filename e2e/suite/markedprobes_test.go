package suite

import (
	"fmt"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

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
	t.Parallel()
	skipWithRunningEnvoy(t, "it counts requests")
	for name, test := range map[string]struct {
		options []option
		counted uint64
	}{
		"marked": {[]option{markingProbes(t)}, 0},
		"not":    {nil, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(test.options, alone("it counts requests"))...)
			s.setServing(0)
			client := s.client("h2")
			for i := range 10 {
				reply := s.mustDo(client, "GET", "/", nil, "user-agent", fmt.Sprint("probe-", i))
				if reply.status != 503 {
					t.Errorf("the probe is answered with %d, want 503", reply.status)
				}
				if _, marked := reply.header["X-Envoy-Upstream-Healthchecked-Cluster"]; marked != (test.counted == 0) {
					t.Errorf("the reply has %v", reply.header)
				}
			}
			s.awaitLog("probe-9", settle) // the log has failing probes, marked or not
			const counter = "http.ingress.downstream_rq_5xx"
			if got := s.stat(counter); got != test.counted {
				t.Errorf("%s is %d after 10 probes that failed, want %d", counter, got, test.counted)
			}
			s.setServing(1)
			s.mustDo(client, "GET", "/", nil, "user-agent", "passes")
			callRouter(t, s)
			s.awaitLog("/router.Router/Recommend", settle)
			if strings.Contains(s.envoy.Log(), "passes") {
				t.Error("the log has a passing probe")
			}
		})
	}
}

func TestEnvoysFilterAnswersMarkedProbesDuringADrain(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, options := range map[string][]option{
		"reference configuration": nil,
		"without any stat":        {withoutStats()},
		"with drain: ignore":      {withGate(`{"clusters": [{"name": "service", "min_healthy": 0}], "drain": "ignore"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(options, markingProbes(t))...)
			client := s.client("h2")
			expect(t, "an ordinary request", s.mustDo(client, "GET", "/x", nil), 404, "",
				map[string]string{"x-envoy-immediate-health-check-fail": ""})
			s.post("/healthcheck/fail")
			expect(t, "the probe", s.probe(client), 503, "", map[string]string{
				"x-envoy-immediate-health-check-fail": "true", "cache-control": "",
			})
			expect(t, "an ordinary request during the drain", s.mustDo(client, "GET", "/x", nil), 404, "",
				map[string]string{"x-envoy-immediate-health-check-fail": "true"})
			s.awaitLog(`"details":"health_check_failed"`, settle)
			s.post("/healthcheck/ok")
			if reply := s.probe(client); reply.header.Get("x-envoy-immediate-health-check-fail") != "" {
				t.Errorf("after the drain the probe gets %v", reply.header)
			}
		})
	}
}
