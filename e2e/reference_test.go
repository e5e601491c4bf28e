package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/backend/router"
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

// adminOnASocket puts admin on a unix socket, as envoy/examples/admin.yaml has it.
func adminOnASocket(t *testing.T) option {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e") // a short path, since a socket's is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return withConfig(func(c *bed.Config) {
		c.Set("admin.address", map[string]any{"pipe": map[string]any{"path": filepath.Join(dir, "admin.sock"), "mode": 0o600}})
	})
}

// halfACall sends a call that is under way until the connection is closed.
func (s *site) halfACall() {
	s.t.Helper()
	conn := s.dialTLS(s.t.Context(), "http/1.1")
	send(s.t, conn, "POST /router.Router/Recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\ncontent-length: 10\r\n\r\nhalf")
	s.await(settle, func() error {
		if n := s.stats("cluster.service.upstream_rq_active")["cluster.service.upstream_rq_active"]; n != 1 {
			return fmt.Errorf("%d requests are active", n)
		}
		return nil
	})
}

func TestLifecycleReachesAdminOnAUnixSocket(t *testing.T) {
	t.Parallel()
	s := newSite(t, adminOnASocket(t), alone("it ends Envoy"))
	s.setServing(1)
	if out, err := s.lifecycle(t.Context(), "alive"); err != nil {
		t.Errorf("it is not alive: %v: %s", err, out)
	}
	s.halfACall()
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_NOTICE_SECONDS=0", "DRAIN_FINISH_SECONDS=1")
	if err != nil || !strings.Contains(out, "1 requests are left after 1s") {
		t.Errorf("the drain ended with %v: %s", err, out)
	}
	if reply := s.probe(s.client("h2")); reply.header.Get("x-envoy-immediate-health-check-fail") != "true" {
		t.Errorf("after the drain the probe gets %d, %v", reply.status, reply.header)
	}
	s.envoy.Kill()
	for _, verb := range []string{"alive", "drain"} {
		out, err := s.lifecycle(t.Context(), verb)
		if err == nil || !strings.Contains(out, "healthgate: "+verb+": admin at unix:///") {
			t.Errorf("without an Envoy, %s ends with %v: %s", verb, err, out)
		}
	}
}

// A request that no stat tells of is not cut off before the time that it was given.
func TestDrainThatSeesNoRequestWaitsAllOfItsTime(t *testing.T) {
	t.Parallel()
	for name, matcher := range map[string]string{
		"of the bootstrap": `{"exclusion_list": {"patterns": [{"prefix": "http."}]}}`,
		"but admin's":      `{"inclusion_list": {"patterns": [{"prefix": "http.admin."}, {"prefix": "cluster."}, {"prefix": "server."}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *bed.Config) {
				c.Set("stats_config", map[string]any{"stats_matcher": parse(matcher)})
			}))
			s.setServing(1)
			s.halfACall()
			began := time.Now()
			out, err := s.lifecycle(t.Context(), "drain", "DRAIN_NOTICE_SECONDS=0", "DRAIN_FINISH_SECONDS=3")
			if took := time.Since(began); err != nil || took < 2*time.Second || strings.Contains(out, "no request is left") {
				t.Errorf("the drain ended after %v with %v: %s", took, err, out)
			}
			if n := strings.Count(out, "can't see requests"); n != 1 {
				t.Errorf("it says %d times that it can't see requests, want once: %s", n, out)
			}
		})
	}
}

// A client between two calls is none under way, and would open its next one on a connection that ends.
func TestDrainEndsNotBeforeClientsThatCallNowAndThenAreSentAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, asInTheImage(t), alone("it drains Envoy for good"))
	s.setServing(1)
	client := s.client("http/1.1")
	call := func() { s.mustDo(client, http.MethodPost, "/router.Router/None", strings.NewReader("")) }
	call()
	const total = "http.ingress.downstream_cx_total"
	before := s.stats(total)[total]
	ended := make(chan error, 1)
	go func() {
		out, err := s.lifecycle(t.Context(), "drain", "DRAIN_NOTICE_SECONDS=0", "DRAIN_FINISH_SECONDS=10")
		if err == nil && !strings.Contains(out, "no request is left") {
			err = errors.New(out)
		}
		ended <- err
	}()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			if s.stats(total)[total] == before {
				t.Error("the drain has ended, and the client still has its connection")
			}
			return
		case <-time.After(300 * time.Millisecond):
			call()
		}
	}
}

// What a hook prints, Kubernetes throws away; what the container's first process prints, it keeps.
func TestDrainSpeaksInTheContainersLog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_NOTICE_SECONDS=0", "CONTAINER_LOG="+log)
	if got := readFile(t, log); err != nil || got != "before\n"+out || strings.Count(out, "healthgate: drain: ") != 2 {
		t.Errorf("it ended with %v; it prints\n%s\nand the log has\n%s", err, out, got)
	}
	// Where it can't write, that is no reason to end.
	if out, err := s.lifecycle(t.Context(), "drain", "DRAIN_NOTICE_SECONDS=0", "CONTAINER_LOG=/proc/1/nothing"); err != nil || strings.Contains(out, "nothing") {
		t.Errorf("without a log it ended with %v: %s", err, out)
	}
}

// gRPC's metadata may have an underscore in its name, and it arrives.
func TestMetadataWithAnUnderscoreArrives(t *testing.T) {
	t.Parallel()
	s := newSite(t, withConfig(func(c *bed.Config) {
		c.Set(bed.HCM+".access_log.0.typed_config.log_format.json_format.user", "%REQ(user_id)%")
	}))
	s.setServing(1)
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "user_id", "somebody"), settle)
	defer cancel()
	if _, err := router.NewRouterClient(s.dialGRPC()).Recommend(ctx, &router.RecommendRequest{Points: []*router.Point{{}}}); err != nil {
		t.Errorf("a call with metadata user_id got %v", err)
	}
	s.awaitLog(`"user":"somebody"`, settle)
}

// commentedOut returns what stands behind a comment of the reference configuration, in lines of its own that are comments too.
func commentedOut(t *testing.T, comment string) map[string]any {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, filepath.Join(bed.Root(), "envoy", "envoy.yaml")), comment+"\n")
	if !found {
		t.Fatalf("envoy.yaml lacks %q", comment)
	}
	var text strings.Builder
	for line := range strings.Lines(rest) {
		line, commented := strings.CutPrefix(strings.TrimLeft(line, " "), "# ")
		if !commented {
			break
		}
		text.WriteString(line)
	}
	lines := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text.String()), &lines); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestHTTP10IsAnsweredWithTheLinesThatTheCommentHas(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options []option
		status  string
	}{
		"without": {nil, "HTTP/1.1 426 Upgrade Required"},
		"with": {[]option{withConfig(func(c *bed.Config) {
			for key, value := range commentedOut(t, "unless these two lines are there:") {
				c.Set(bed.HCM+"."+key, value)
			}
		})}, "HTTP/1.0 200 OK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, test.options...)
			s.setServing(1)
			conn := s.dialTLS(t.Context(), "http/1.1")
			send(t, conn, "GET / HTTP/1.0\r\n\r\n") // without a host, as it was then
			answer, err := io.ReadAll(conn)
			if first, _, _ := strings.Cut(string(answer), "\r\n"); first != test.status {
				t.Errorf("it is answered with %q, %v, want %q", answer, err, test.status)
			}
		})
	}
}

// What an ALB target group of version GRPC takes for success by default, Envoy answers whatever the backends are.
func TestDefaultCheckOfAnALBOfVersionGRPCPassesWithoutABackend(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.client("h2")
	s.setServing(0)
	reply := s.mustDo(client, "POST", "/AWS.ALB/healthcheck", nil, "content-type", "application/grpc")
	if got := reply.header.Get("grpc-status"); reply.status != 200 || got != "12" {
		t.Errorf("it got %d with grpc-status %q, want 200 with 12", reply.status, got)
	}
}
