package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/examples"
	"healthgate/e2e/testbed"
)

// asInTheImage starts Envoy with the flags of the image's command, and with the drain time that Envoy has by itself.
func asInTheImage(t *testing.T) option {
	t.Helper()
	command := regexp.MustCompile(`(?m)^CMD (\["--config-path.*\])$`).FindStringSubmatch(readFile(t, filepath.Join(testbed.Root(), "Dockerfile")))
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
	skipWherePointed(t, "it drains Envoy for good")
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

// markingProbes applies envoy/examples/mark-probes.yaml to the configuration.
func markingProbes(t *testing.T) option {
	t.Helper()
	bootstrap, err := examples.Read(filepath.Join(testbed.Root(), "envoy"), "mark-probes", "plugin")
	if err != nil {
		t.Fatal(err)
	}
	example := testbed.Tree(bootstrap)
	return withConfig(func(c *testbed.Config) {
		c.Set(testbed.HCM+".access_log.0.filter", example.Get(testbed.HCM+".access_log.0.filter"))
		c.Set(testbed.HTTPFilters, append([]any{example.Get(testbed.HTTPFilters + ".0")}, c.Get(testbed.HTTPFilters).([]any)...))
	})
}

// silent leaves every stat out.
func silent() option {
	return withConfig(func(c *testbed.Config) {
		c.Set("stats_config", map[string]any{"stats_matcher": map[string]any{"reject_all": true}})
	})
}

func TestMarkedProbesAreOutOfTheStatsOfTraffic(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it counts requests")
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
	skipWherePointed(t, "it needs a configuration of its own")
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
	return withConfig(func(c *testbed.Config) {
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
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=1s")
	if err != nil || !strings.Contains(out, "1 request is left after the timeout of 1s") {
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
	skipWherePointed(t, "it needs a configuration of its own")
	for name, matcher := range map[string]string{
		"of the bootstrap": `{"exclusion_list": {"patterns": [{"prefix": "http."}]}}`,
		"but admin's":      `{"inclusion_list": {"patterns": [{"prefix": "http.admin."}, {"prefix": "cluster."}, {"prefix": "server."}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Config) {
				c.Set("stats_config", map[string]any{"stats_matcher": parse(matcher)})
			}))
			s.setServing(1)
			s.halfACall()
			began := time.Now()
			out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=3s")
			if took := time.Since(began); err != nil || took < 2*time.Second || strings.Contains(out, "no request is left") {
				t.Errorf("the drain ended after %v with %v: %s", took, err, out)
			}
			if n := strings.Count(out, "requests are not visible: no stat"); n != 1 {
				t.Errorf("it says %d times that requests are not visible, want once: %s", n, out)
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
		out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=10s")
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
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "CONTAINER_LOG="+log)
	if got := readFile(t, log); err != nil || got != "before\n"+out || strings.Count(out, "healthgate: drain: ") != 3 {
		t.Errorf("it ended with %v; it prints\n%s\nand the log has\n%s", err, out, got)
	}
	// Where it can't write, that is no reason to end.
	if out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "CONTAINER_LOG=/proc/1/nothing"); err != nil || strings.Contains(out, "nothing") {
		t.Errorf("without a log it ended with %v: %s", err, out)
	}
}

// gRPC's metadata may have an underscore in its name, and it arrives.
func TestMetadataWithAnUnderscoreArrives(t *testing.T) {
	t.Parallel()
	s := newSite(t, withConfig(func(c *testbed.Config) {
		c.Set(testbed.HCM+".access_log.0.typed_config.log_format.json_format.user", "%REQ(user_id)%")
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
	_, rest, found := strings.Cut(readFile(t, filepath.Join(testbed.Root(), "envoy", "envoy.yaml")), comment+"\n")
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
	skipWherePointed(t, "it reads Envoy's log")
	for name, test := range map[string]struct {
		options []option
		status  string
	}{
		"without": {nil, "HTTP/1.1 426 Upgrade Required"},
		"with": {[]option{withConfig(func(c *testbed.Config) {
			for key, value := range commentedOut(t, "unless these two lines are there:") {
				c.Set(testbed.HCM+"."+key, value)
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
			if name == "without" {
				s.awaitLog(`"details":"low_version"`, settle)
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

// mend returns the lines that docs/envoy-configuration.md has under a heading.
func mend(t *testing.T, heading string) map[string]any {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, filepath.Join(testbed.Root(), "docs", "envoy-configuration.md")), "\n## "+heading+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	_, rest, shown := strings.Cut(rest, "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	if !found || !shown {
		t.Fatalf("docs/envoy-configuration.md has no lines under %q", heading)
	}
	lines := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &lines); err != nil {
		t.Fatal(err)
	}
	return lines
}

// Where things are besides.
const (
	virtualHosts = testbed.HCM + ".route_config.virtual_hosts"
	localReplies = testbed.HCM + ".local_reply_config"
)

// filterBeside puts a filter before Healthgate, or behind it.
func filterBeside(before bool, filter string) option {
	return withConfig(func(c *testbed.Config) {
		all, other := c.Get(testbed.HTTPFilters).([]any), parse(filter)
		if before {
			c.Set(testbed.HTTPFilters, append([]any{other}, all...))
		} else {
			c.Set(testbed.HTTPFilters, slices.Insert(slices.Clone(all), 1, other))
		}
	})
}

// pitfall is what a probe meets in an Envoy that somebody else has written.
type pitfall struct {
	options []option
	status  int
	details string // in the access log, where it is not 200
	rule    string // by which lint finds it; "" where there is nothing to find
}

// The filters that may answer before Healthgate.
const (
	rbac = `{"name": "rbac", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
		"rules": {"action": "DENY", "policies": {"all": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}}}`
	authz = `{"name": "authz", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
		"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "service"}, "timeout": "1s"}}}`
	jwt = `{"name": "jwt", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
		"providers": {"one": {"local_jwks": {"inline_string": "{\"keys\":[{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"c2VjcmV0\"}]}"}}},
		"rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "one"}}]}}`
	limit = `{"name": "limit", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
		"stat_prefix": "limit", "token_bucket": {"max_tokens": 1, "fill_interval": "3600s"},
		"filter_enabled": {"default_value": {"numerator": 100}}, "filter_enforced": {"default_value": {"numerator": 100}}}}`
)

// apology is a local_reply_config that says sorry.
func apology(t *testing.T, mended bool) option {
	return withConfig(func(c *testbed.Config) {
		mapper := parse(`{"filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 200, "runtime_key": "yours"}}}},
			"status_code": 500, "body": {"inline_string": "sorry"}}`).(map[string]any)
		if mended {
			mapper["filter"] = mend(t, "local_reply_config")["filter"]
		}
		c.Set(localReplies, map[string]any{"mappers": []any{mapper}})
		if mended { // as if it were for answers that pass too
			c.Set(localReplies+".mappers.0.filter.and_filter.filters.0.status_code_filter.comparison.value.default_value", 200)
		}
	})
}

// Each pitfall of docs/envoy-configuration.md that shows in the answer to a probe alone: what is seen with it, and that the mend mends it. The
// service is healthy throughout.
func TestPitfalls(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	inTheClear := func(c *testbed.Config) { c.Delete(testbed.Listener + ".filter_chains.0.transport_socket") }
	byDomain := func(c *testbed.Config) { c.Set(virtualHosts+".0.domains", []any{"grpc.example.com"}) }
	probesHost := func(c *testbed.Config) { c.Set(virtualHosts+".1", mend(t, "A virtual host for the probe")) }
	requireTLS := func(c *testbed.Config) { c.Set(virtualHosts+".0.require_tls", "ALL") }
	redirect := parse(`{"match": {"prefix": "/"}, "redirect": {"https_redirect": true}}`)
	for name, test := range map[string]pitfall{
		"require_tls":         {[]option{withConfig(inTheClear), withConfig(requireTLS)}, 301, "direct_response", "shadowed"},
		"require_tls, mended": {[]option{withConfig(inTheClear), withConfig(requireTLS), withConfig(byDomain), withConfig(probesHost)}, 200, "", ""},
		"a redirect": {[]option{withConfig(func(c *testbed.Config) {
			c.Set(testbed.Routes, append([]any{redirect}, c.Get(testbed.Routes).([]any)...))
		})}, 301, "direct_response", "shadowed"},
		"a redirect, mended":            {[]option{withConfig(func(c *testbed.Config) { c.Set(testbed.Routes+".2", redirect) })}, 200, "", ""},
		"RBAC":                          {[]option{filterBeside(true, rbac)}, 403, "rbac_access_denied_matched_policy[all]", "order"},
		"RBAC, mended":                  {[]option{filterBeside(false, rbac)}, 200, "", ""},
		"ext_authz":                     {[]option{filterBeside(true, authz)}, 403, "ext_authz_error", "order"},
		"ext_authz, mended":             {[]option{filterBeside(false, authz)}, 200, "", "order"}, // a warning: Envoy shows it the reply
		"JWT":                           {[]option{filterBeside(true, jwt)}, 401, "jwt_authn_access_denied", "order"},
		"JWT, mended":                   {[]option{filterBeside(false, jwt)}, 200, "", ""},
		"a rate limit":                  {[]option{filterBeside(true, limit)}, 429, "local_rate_limited", "order"},
		"a rate limit, mended":          {[]option{filterBeside(false, limit)}, 200, "", ""},
		"virtual hosts by domain":       {[]option{withConfig(byDomain)}, 404, "route_not_found", "domains"},
		"virtual hosts, mended":         {[]option{withConfig(byDomain), withConfig(probesHost)}, 200, "", ""},
		"local_reply_config":            {[]option{apology(t, false)}, 500, "healthgate_ok", "local-reply"},
		"local_reply_config, mended":    {[]option{apology(t, true)}, 200, "", ""},
		"a bootstrap's stats matcher":   {[]option{withStatsMatcher(`{"exclusion_list": {"patterns": [{"prefix": "cluster."}]}}`)}, 503, "healthgate_cluster_empty", "stats"},
		"a cluster's own stats matcher": {[]option{withClusterStatsMatcher(`{"inclusion_list": {"patterns": [{"prefix": "cluster.service.upstream_"}]}}`)}, 503, "healthgate_cluster_empty", "stats"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.meet(t)
		})
	}
}

// meet probes an Envoy that has the pitfall.
func (p pitfall) meet(t *testing.T) {
	t.Helper()
	options := append(p.options, withConfig(func(c *testbed.Config) { c.Delete(testbed.HCM + ".access_log.0.filter") }))
	s := newSite(t, options...)
	expectLint(t, s.config, p.rule)
	s.await(settle, func() error { // not by a gauge, which may be left out
		hosts, err := s.envoy.Hosts("service")
		if err == nil && hosts[s.backends[0].Address] != "healthy" {
			err = fmt.Errorf("envoy has %v", hosts)
		}
		return err
	})
	client := s.client("http/1.1")
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	scheme := "https://"
	if s.config.Get(testbed.Listener+".filter_chains.0.transport_socket") == nil {
		scheme = "http://"
	}
	for range 2 { // a rate limit lets the first one pass
		reply, err := client.Get(scheme + s.envoy.Ingress + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, reply.Body)
		reply.Body.Close()
		if reply.StatusCode != p.status && p.details != "local_rate_limited" {
			t.Errorf("the probe is answered with %d, want %d", reply.StatusCode, p.status)
		}
	}
	s.awaitLog(fmt.Sprintf(`"status":%d`, p.status), settle)
	if p.details != "" {
		s.awaitLog(`"details":"`+p.details, settle)
	}
}

func withStatsMatcher(matcher string) option {
	return withConfig(func(c *testbed.Config) { c.Set("stats_config", map[string]any{"stats_matcher": parse(matcher)}) })
}

func withClusterStatsMatcher(matcher string) option {
	return withConfig(func(c *testbed.Config) {
		own := parse(matcher).(map[string]any)
		own["@type"] = "type.googleapis.com/envoy.config.metrics.v3.StatsMatcher"
		c.Set(testbed.Cluster+".metadata", map[string]any{"typed_filter_metadata": map[string]any{"envoy.stats_matcher": own}})
	})
}

// The names that docs/envoy-configuration.md has a stats matcher let through are all that is needed, by the gate and by a drain.
func TestStatsMatcherOfTheDocsLetsThroughWhatIsNeeded(t *testing.T) {
	t.Parallel()
	s := newSite(t, withPlugin(`{"clusters": ["service"], "stale_after": "1s"}`), withConfig(func(c *testbed.Config) {
		c.Set("stats_config", mend(t, "Stats matchers"))
	}))
	s.setServing(1)
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	time.Sleep(1500 * time.Millisecond) // longer than stale_after: there is nothing to wait for, but that nothing happens
	expect(t, "the probe", s.probe(client), 200, "ok\n", nil)
	if stats := s.stats("cluster.service.upstream_"); len(stats) > 0 {
		t.Errorf("the matcher lets through %v", stats)
	}
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s")
	if err != nil || !strings.Contains(out, "no request is left") {
		t.Errorf("the drain ended with %v: %s", err, out)
	}
	expect(t, "the probe of a drain", s.probe(client), 503, "unavailable\n", map[string]string{"x-envoy-immediate-health-check-fail": "true"})
	s.awaitStat("healthgate.default.failed_draining", 1)
}

// Clusters that have hosts only while somebody calls.
func TestClustersWithoutHostsOfTheirOwnNeverPass(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for name, changes := range map[string]string{
		"ORIGINAL_DST": `{"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}`,
		"dynamic_forward_proxy": `{"lb_policy": "CLUSTER_PROVIDED", "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig", "allow_insecure_cluster_options": true,
			"dns_cache_config": {"name": "cache", "dns_lookup_family": "V4_ONLY"}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, backends(0), withConfig(func(c *testbed.Config) {
				for _, key := range []string{"type", "dns_lookup_family", "load_assignment", "health_checks", "common_lb_config"} {
					c.Delete(testbed.Cluster + "." + key)
				}
				for key, value := range parse(changes).(map[string]any) {
					c.Set(testbed.Cluster+"."+key, value)
				}
			}))
			if reply := s.probe(s.client("h2")); reply.status != 503 {
				t.Errorf("the probe is answered with %d, want 503", reply.status)
			}
			s.awaitLog(`"details":"healthgate_cluster_empty"`, settle)
		})
	}
}

// The gauges are of the cluster: a subset of it may have no host at all.
func TestSubsetWithoutAHostIsNotSeen(t *testing.T) {
	t.Parallel()
	s := newSite(t, withConfig(func(c *testbed.Config) {
		stage := func(value string) any {
			return map[string]any{"filter_metadata": map[string]any{"envoy.lb": map[string]any{"stage": value}}}
		}
		c.Set(testbed.Cluster+".lb_subset_config", parse(`{"fallback_policy": "NO_FALLBACK", "subset_selectors": [{"keys": ["stage"]}]}`))
		c.Set(testbed.Routes+".1.route.metadata_match", stage("new"))
	}), func(p *plan) {
		p.configured = append(p.configured, func(p *plan, _ []string) {
			p.config.Set(testbed.Endpoints+".0.metadata", parse(`{"filter_metadata": {"envoy.lb": {"stage": "old"}}}`))
		})
	})
	s.setServing(1)
	expect(t, "the probe", s.probe(s.client("h2")), 200, "ok\n", nil)
	_, err := router.NewRouterClient(s.dialGRPC()).Recommend(t.Context(), &router.RecommendRequest{Points: []*router.Point{{}}})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a call got %v, want Unavailable", err)
	}
	s.awaitLog(`"details":"no_healthy_upstream"`, settle)
}

// Where connections are at their limit, a listener of its own still answers probes.
func TestProbeIsAnsweredAtTheConnectionLimitByAListenerOfItsOwn(t *testing.T) {
	t.Parallel()
	const monitor = "overload_manager.resource_monitors.0.typed_config.max_active_downstream_connections"
	s := newSite(t, withConfig(func(c *testbed.Config) {
		c.Set(monitor, 2)
		probes := c.Part(testbed.Listener)
		probes.Set("name", "probes")
		for key, value := range mend(t, "A listener for probes") {
			probes.Set(key, value)
		}
		c.Set("static_resources.listeners.1", probes.Get(""))
		c.Set("admin.ignore_global_conn_limit", true)
	}))
	s.setServing(1)
	listeners, err := s.envoy.Listeners()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.dialTLS(t.Context(), "http/1.1")
	}
	if reply, err := s.do(s.client("http/1.1"), "GET", "/", nil); err == nil {
		t.Errorf("at the limit the probe is answered with %d", reply.status)
	}
	s.envoy.Ingress = listeners["probes"]
	expect(t, "the probe on its own listener", s.probe(s.client("http/1.1")), 200, "ok\n", nil)
}

// An idle cluster is checked once a minute, which is stale for whoever expects more.
func TestIdleClusterTurnsStaleWithoutTheLines(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for name, status := range map[string]int{"with": 200, "without": 503} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if status == 503 {
				needs(t, testbed.Aging)
			}
			s := newSite(t, withPlugin(`{"clusters": ["service"], "stale_after": "1s"}`), withConfig(func(c *testbed.Config) {
				for key := range mend(t, "An idle cluster") {
					c.Delete(testbed.HealthCheck + "." + key)
					if status == 200 {
						c.Set(testbed.HealthCheck+"."+key, "0.1s")
					}
				}
			}))
			s.setServing(1)
			client := s.client("h2")
			for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
				reply := s.probe(client)
				if reply.status == 503 && status == 503 {
					s.awaitLog(`"details":"healthgate_stale"`, settle)
					return
				}
				if reply.status != 200 {
					t.Fatalf("the probe is answered with %d", reply.status)
				}
			}
			if status == 503 {
				t.Error("the probe was answered with 200 for 3 s, of a cluster that nobody checks")
			}
		})
	}
}

// While a cluster that CDS has changed waits for its first check, the old one serves.
func TestClusterThatWarmsFailsTheProbeUnlessThatIsHeld(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for name, test := range map[string]struct {
		options []option
		status  int
	}{
		"as it is":      {nil, 503},
		"hold":          {[]option{withPlugin(holding(t))}, 200},
		"source: admin": {[]option{adminOnASocket(t), byAdmin()}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// It accepts and says nothing, so that the first check is under way for long.
			silent, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			var cluster *testbed.Config
			s := newSite(t, append(test.options, withCDS(), withConfig(func(c *testbed.Config) {
				cluster = c.Part(testbed.Cluster)
				c.Set(testbed.HCM+".route_config.validate_clusters", false)
			}))...)
			s.setServing(1)
			client := s.client("h2")
			s.awaitProbe(client, 200, settle)
			cluster.Set("load_assignment.endpoints.0.lb_endpoints", []any{testbed.Endpoint(silent.Addr().String())})
			cluster.Set("health_checks.0.timeout", "60s")
			s.writeClusters(cluster.Get(""))
			s.await(settle, func() error {
				if warming := s.stats("cluster_manager.warming_clusters")["cluster_manager.warming_clusters"]; warming != 1 {
					return fmt.Errorf("%d clusters warm", warming)
				}
				return nil
			})
			for until := time.Now().Add(time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
				if reply := s.probe(client); reply.status != test.status {
					t.Fatalf("while the cluster warms the probe is answered with %d, want %d", reply.status, test.status)
				}
			}
			callRouter(t, s)
		})
	}
}

// holding is the plugin's configuration with the lines of docs/envoy-configuration.md.
func holding(t *testing.T) string {
	t.Helper()
	config := mend(t, "A cluster that warms")
	config["clusters"] = []any{"service"}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// byAdmin has the health come from admin, wherever it listens.
func byAdmin() option {
	return withConfig(func(c *testbed.Config) {
		path := c.Get("admin.address.pipe.path").(string)
		c.Set(testbed.PluginConfig, map[string]any{
			"clusters": []any{"service"}, "source": "admin", "admin": map[string]any{"address": "unix://" + path, "interval": "0.1s"},
		})
	})
}

// What envoy.yaml says of healthy_panic_threshold: Envoy's half is of the hosts that it does not exclude.
func TestPanicLeavesOutTheHostsThatEnvoyExcludes(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS())
	client := s.client("h2")
	const panics = "cluster.service.lb_healthy_panic"
	for _, step := range []struct {
		hosts    string // x is DRAINING, u is UNHEALTHY
		excluded uint64
		panics   bool
	}{
		{"hxx", 2, false}, {"huu", 0, true}, {"hxu", 1, false}, {"hxuu", 1, true},
	} {
		s.writeHosts() // Envoy does not look again at a host that turns from DRAINING to UNHEALTHY
		s.writeHosts(hosts(step.hosts)...)
		s.awaitStat("cluster.service.membership_excluded", step.excluded)
		// A worker's hosts follow the gauge.
		s.await(settle, func() error {
			before := s.stats(panics)[panics]
			for range 5 {
				s.mustDo(client, "POST", "/router.Router/None", nil)
			}
			if grew := s.stats(panics)[panics] > before; grew != step.panics {
				return fmt.Errorf("with hosts %q Envoy panics: %v, want %v", step.hosts, grew, step.panics)
			}
			return nil
		})
	}
}
