package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"healthgate/e2e/bed"
)

// asInTheImage starts Envoy with the flags of the image's command, and with the drain time that Envoy has by itself.
func asInTheImage(t *testing.T) option {
	t.Helper()
	command := regexp.MustCompile(`(?m)^CMD (\["--config-path.*\])$`).FindStringSubmatch(readFile(t, filepath.Join(bed.Root(), "Dockerfile")))
	if command == nil {
		t.Fatal("the Dockerfile has no CMD that starts Envoy")
	}
	var flags []string
	if err := json.Unmarshal([]byte(command[1]), &flags); err != nil {
		t.Fatal(err)
	}
	flags = slices.DeleteFunc(flags[2:], func(flag string) bool { return flag == "--disable-hot-restart" }) // the bed has its own
	return func(p *plan) { p.options.Flags, p.options.DrainTime = flags, 600 }
}

// During the notice a client that is let go comes straight back, with one more handshake: the balancer has not noticed yet.
// After the notice nothing else moves it on.
func TestDrainKeepsConnectionsDuringTheNoticeAndMovesThemOnAfterIt(t *testing.T) {
	t.Parallel()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, asInTheImage(t), alone("it drains Envoy for good"))
			s.setServing(1)
			client := s.client(protocol)
			connections := func() uint64 {
				return s.stats("http.ingress.downstream_cx_total")["http.ingress.downstream_cx_total"]
			}
			call := func() *answer { return s.mustDo(client, http.MethodPost, "/router.Router/None", strings.NewReader("")) }
			call()
			s.post("/healthcheck/fail")
			before := connections()
			for range 25 {
				call()
				if reply := s.probe(client); reply.status != 503 {
					t.Errorf("during the notice the probe is answered with %d, want 503", reply.status)
				}
			}
			if n := connections() - before; n > 0 {
				t.Errorf("50 requests during the notice made %d connections, want 0", n)
			}
			s.post("/drain_listeners?graceful&skip_exit")
			call() // its reply says so
			before = connections()
			call()
			if connections() == before {
				t.Error("after the notice the client goes on with its connection")
			}
		})
	}
}

// markingProbes puts into the configuration what envoy/examples/mark-probes.yaml has more.
func markingProbes(t *testing.T) option {
	t.Helper()
	example, err := bed.LoadConfig("envoy/examples/mark-probes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return withConfig(func(c *bed.Config) {
		c.Set(bed.HCM+".access_log.0.filter", example.Get(bed.HCM+".access_log.0.filter"))
		c.Set(bed.HTTPFilters, append([]any{example.Get(bed.HTTPFilters + ".0")}, c.Get(bed.HTTPFilters).([]any)...))
	})
}

// silent leaves every stat out.
func silent() option {
	return withConfig(func(c *bed.Config) {
		c.Set("stats_config", map[string]any{"stats_matcher": map[string]any{"reject_all": true}})
	})
}

func TestMarkedProbesAreOutOfTheStatsOfTraffic(t *testing.T) {
	t.Parallel()
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
			s.awaitLog("probe-9", settle) // failed probes are in the log, marked or not
			const counter = "http.ingress.downstream_rq_5xx"
			if got := s.stats(counter)[counter]; got != test.counted {
				t.Errorf("%s is %d after 10 probes that failed, want %d", counter, got, test.counted)
			}
			s.setServing(1)
			s.mustDo(client, "GET", "/", nil, "user-agent", "passes")
			callRouter(t, s)
			s.awaitLog("/router.Router/Recommend", settle)
			if strings.Contains(s.envoy.Log(), "passes") {
				t.Error("the log has a probe that passed")
			}
		})
	}
}

func TestMarkedProbesOfADrainAreAnsweredByEnvoysOwnFilter(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]option{
		"as it is":           nil,
		"without any stat":   {silent()},
		"with drain: ignore": {withPlugin(`{"clusters": [{"name": "service", "min_healthy": 0}], "drain": "ignore"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(options, markingProbes(t))...)
			client := s.client("h2")
			expect(t, "an ordinary request", s.mustDo(client, "GET", "/x", nil), 404, "", map[string]string{"x-envoy-immediate-health-check-fail": ""})
			s.post("/healthcheck/fail")
			expect(t, "the probe", s.probe(client), 503, "", map[string]string{
				"x-envoy-immediate-health-check-fail": "true", "cache-control": "",
			})
			expect(t, "an ordinary request of a drain", s.mustDo(client, "GET", "/x", nil), 404, "", map[string]string{"x-envoy-immediate-health-check-fail": "true"})
			s.awaitLog(`"details":"health_check_failed"`, settle)
			s.post("/healthcheck/ok")
			if reply := s.probe(client); reply.header.Get("x-envoy-immediate-health-check-fail") != "" {
				t.Errorf("after the drain the probe gets %v", reply.header)
			}
		})
	}
}
