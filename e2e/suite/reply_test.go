package suite

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"healthgate/e2e/testbed"
)

// A body after a status that allows none would be the beginning of the next reply over HTTP/1.1, and a protocol error over HTTP/2.
func TestStatusThatAllowsNoBodyHasNone(t *testing.T) {
	t.Parallel()
	const gate = `{path: %s, stat_prefix: gate%d, clusters: [service], response: {healthy: {status: %[2]d}, details: true}}`
	s := newServingSite(t, withGate(fmt.Sprintf(gate, "/", 204)), withRoute("/205", fmt.Sprintf(gate, "/205", 205)))
	for path, code := range map[string]int{"/": 204, "/205": 205} {
		for _, protocol := range protocols {
			client := s.client(protocol)
			for range 3 {
				expect(t, protocol, s.mustDo(client, "GET", path, nil), code, "", map[string]string{"content-type": "", "cache-control": "no-store"})
				expect(t, protocol+" with a report", s.mustDo(client, "GET", path, nil, "accept", "application/json"), code, "", nil)
				expect(t, protocol+" HEAD", s.mustDo(client, "HEAD", path, nil), code, "", nil)
			}
		}
		// Pipelined: each reply begins where the one before it ends.
		conn := s.dialTLS(t.Context(), "http/1.1")
		if err := conn.SetDeadline(time.Now().Add(settle)); err != nil {
			t.Fatal(err)
		}
		probes := 5
		if variant.Can(testbed.Pipelining) != nil {
			probes = 2
		}
		send(t, conn, strings.Repeat("GET "+path+" HTTP/1.1\r\nhost: localhost\r\n\r\n", probes))
		reader := bufio.NewReader(conn)
		for i := range probes {
			reply, err := http.ReadResponse(reader, nil)
			if err != nil || reply.StatusCode != code {
				t.Fatalf("reply %d is %+v, %v", i, reply, err)
			}
			if body, err := io.ReadAll(reply.Body); err != nil || len(body) > 0 {
				t.Errorf("reply %d has the body %q, %v", i, body, err)
			}
		}
	}
}

func TestGRPCCallToThePathIsAProbe(t *testing.T) {
	t.Parallel()
	const method = "/AWS.ALB/healthcheck"
	s := newSite(t, withGate(`{"clusters": ["service"], "path": "`+method+`"}`), withConfig(func(c *testbed.Bootstrap) {
		c.ProbeRoute().Match.PathSpecifier = &routev3.RouteMatch_Path{Path: method}
	}))
	conn, client := s.dialGRPC(), s.client("h2")
	for _, step := range []struct {
		serving int
		drain   string
		want    codes.Code
	}{{1, "ok", codes.OK}, {0, "ok", codes.Unavailable}, {1, "fail", codes.Unavailable}, {1, "ok", codes.OK}} {
		s.setServing(step.serving)
		s.post("/healthcheck/" + step.drain)
		// Like a load balancer that checks by gRPC: it calls a method and reads the status.
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
		if err == nil {
			_ = stream.SendMsg(&emptypb.Empty{})
			err = stream.RecvMsg(&emptypb.Empty{})
		}
		if errors.Is(err, io.EOF) {
			err = nil // the stream has ended with OK, without a message
		}
		if got := status.Code(err); got != step.want {
			t.Errorf("%+v: got %v, %v", step, got, err)
		}
		for _, contentType := range []string{"application/grpc", "application/grpc+proto"} {
			reply := s.mustDo(client, "POST", method, strings.NewReader("\x00\x00\x00\x00\x00"), "content-type", contentType)
			if got := reply.header.Get("grpc-status"); reply.status != 200 || got != fmt.Sprint(int(step.want)) {
				t.Errorf("%+v, %s: got %d and grpc-status %q", step, contentType, reply.status, got)
			}
		}
	}
	for _, contentType := range []string{"", "application/json", "application/grpc-web"} {
		reply := s.mustDo(client, http.MethodPost, method, nil, "content-type", contentType)
		expect(t, "POST with "+contentType, reply, 503, "", map[string]string{"cache-control": "", "grpc-status": ""})
	}
}

// The module knows which clusters Envoy has, and logs that one is missing.
func TestUnknownClusterIsLogged(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newServingSite(t, withGate(`{"clusters": [{"name": "missing", "min_healthy": 0}]}`))
	expect(t, "the first probe", s.probe(s.client("h2")), 503, "unavailable\n", nil)
	s.awaitLog(`"details":"healthgate_cluster_unknown"`, settle)
	s.awaitLines(`healthgate: gate default: Envoy has no cluster "missing", so it fails: /clusters on Envoy's admin port lists all names`,
		1, 45*time.Second)
}

// Hosts that are never checked count as healthy although none runs, or as stale; both are logged, and lint reports them.
func TestUncheckedClusterIsLogged(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, test := range map[string]struct {
		plugin string
		status int
		want   []string
	}{
		"each host counts": {`{"clusters": ["service"]}`, 200,
			[]string{`healthgate: gate default: cluster "service" has hosts, and Envoy has checked none of them: each counts as healthy`,
				"Set health_checks on the cluster"}},
		"the cluster is stale": {`{"clusters": ["service"], "stale_after": "1s"}`, 503,
			[]string{`healthgate: gate default: cluster "service" fails because of stale_after (1s)`, "no_traffic_interval (60s by default)",
				"cluster.service.health_check.attempt"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.status == 503 {
				needs(t, testbed.CheckAge)
			}
			s := newSite(t, withGate(test.plugin), withCluster(`health_checks: null`))
			expectLint(t, s.config, "unchecked")
			s.backends[0].Kill()
			client := s.client("h2")
			s.awaitUnavailable(client)
			s.awaitProbe(client, test.status, settle)
			for _, want := range test.want {
				s.awaitLines(want, 1, 45*time.Second)
			}
		})
	}
}

// awaitUnavailable waits until a call of the service fails because its host is not reached.
func (s *site) awaitUnavailable(client *http.Client) {
	s.t.Helper()
	s.await(settle, func() error {
		reply := s.mustDo(client, http.MethodPost, "/router.Router/None", nil, "content-type", "application/grpc")
		if reply.header.Get("grpc-status") != "14" {
			return fmt.Errorf("a call got %v", reply.header)
		}
		return nil
	})
}
