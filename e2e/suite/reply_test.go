package suite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
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
	skipWithRunningEnvoy(t, "it changes the configuration")
	for _, code := range []int{204, 205} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			s := newSite(t, withGate(fmt.Sprintf(`{"clusters": ["service"], "response": {"healthy": {"status": %d}, "details": true}}`, code)))
			s.setServing(1)
			for _, protocol := range protocols {
				client := s.client(protocol)
				for range 3 {
					expect(t, protocol, s.probe(client), code, "", map[string]string{"content-type": "", "cache-control": "no-store"})
					expect(t, protocol+" with a report", s.mustDo(client, "GET", "/", nil, "accept", "application/json"), code, "", nil)
					expect(t, protocol+" HEAD", s.mustDo(client, "HEAD", "/", nil), code, "", nil)
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
			send(t, conn, strings.Repeat("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", probes))
			reader := bufio.NewReader(conn)
			for i := range probes {
				line, err := reader.ReadString('\n')
				if err != nil || !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", code)) {
					t.Fatalf("reply %d begins with %q, %v", i, line, err)
				}
				for line != "\r\n" {
					if line, err = reader.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// grpcProbe probes like a load balancer that checks by gRPC: it calls a method and reads the status.
func (s *site) grpcProbe(conn *grpc.ClientConn, method string) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), settle)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatal(err)
	}
	_ = stream.CloseSend()
	return stream.RecvMsg(&emptypb.Empty{})
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
		err := s.grpcProbe(conn, method)
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

// Envoy excludes hosts that it has not yet checked from its panic threshold. A gate can do the same.
func TestExcludedHostsCountUnlessIgnored(t *testing.T) {
	t.Parallel()
	var unchecked []string
	for range 3 {
		silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers, so the first check does not end
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		unchecked = append(unchecked, silent.Addr().String())
	}
	const rule = `{"clusters": [{"name": "service", "min_healthy_percent": 50, "excluded": "%s"}], "path": "%s", "stat_prefix": "%s"}`
	s := newSite(t, withEDS(), withGate(fmt.Sprintf(rule, "count", "/", "counting")),
		withRoute("/ignoring", fmt.Sprintf(rule, "ignore", "/ignoring", "ignoring")), withConfig(func(c *testbed.Bootstrap) {
			c.Patch(c.Cluster(), `common_lb_config: {ignore_new_hosts_until_first_hc: true}`)
			c.Cluster().HealthChecks = readConfig(t, "envoy/envoy.yaml").Cluster().HealthChecks
			c.CheckEvery("0.1s")
			c.Patch(c.HealthCheck(), `timeout: 60s`)
		}))
	backend, err := testbed.StartBackend(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Kill)
	place := func(addresses ...string) {
		cluster := &clusterv3.Cluster{Name: "service"}
		testbed.SetEndpoints(cluster, addresses...)
		s.write("eds", cluster.LoadAssignment)
		s.awaitGauges("service", 1, uint64(len(addresses)))
	}
	client := s.client("h2")
	ask := func(when string, counting, ignoring int) {
		t.Helper()
		expect(t, when+", counting", s.probe(client), counting, map[int]string{200: "ok\n", 503: "unavailable\n"}[counting], nil)
		expect(t, when+", ignoring", s.mustDo(client, "GET", "/ignoring", nil), ignoring,
			map[int]string{200: "ok\n", 503: "unavailable\n"}[ignoring], nil)
	}
	place(backend.Address)
	ask("one host", 200, 200)
	place(append(unchecked, backend.Address)...)
	s.awaitStat("cluster.service.membership_excluded", 3)
	ask("scaled up", 503, 200)
}

// The module knows which clusters Envoy has, and logs that one is missing.
func TestUnknownClusterIsLogged(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withGate(`{"clusters": [{"name": "missing", "min_healthy": 0}]}`))
	s.setServing(1)
	expect(t, "the first probe", s.probe(s.client("h2")), 503, "unavailable\n", nil)
	s.awaitLog(`"details":"healthgate_cluster_unknown"`, settle)
	s.awaitLines(`healthgate: gate default: Envoy has no cluster "missing", so it fails: /clusters on Envoy's admin port lists all names`,
		1, 45*time.Second)
}

// Hosts that are never checked count as healthy, or as stale; both are logged.
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
			s.awaitProbe(s.client("h2"), test.status, settle)
			for _, want := range test.want {
				s.awaitLines(want, 1, 45*time.Second)
			}
		})
	}
}

// The Envoy of the tests is a supported one, so nothing is logged about its version.
func TestSupportedEnvoyCausesNoWarning(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it reads Envoy's log"))
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, time.Second)
	if version := s.stat("server.version"); version == 0 {
		t.Error("Envoy has no stat server.version, so this shows nothing")
	}
	if strings.Contains(s.envoy.Log(), "this plugin was built for") {
		t.Error("the log has a warning about Envoy's version")
	}
}
