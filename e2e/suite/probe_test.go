package suite

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

func TestAnswerFollowsTheHealthyHosts(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2))
	clients := map[string]*http.Client{}
	for _, protocol := range protocols {
		clients[protocol] = s.client(protocol)
	}
	for _, step := range []struct{ healthy, status int }{
		{2, 200}, {1, 200}, {0, 503}, {1, 200}, {0, 503}, {2, 200},
	} {
		s.setServing(step.healthy) // returns when Envoy's own gauge says so
		for protocol, client := range clients {
			reply := s.awaitProbe(client, step.status, time.Second)
			if want := map[string]string{"http/1.1": "HTTP/1.1", "h2": "HTTP/2.0"}[protocol]; reply.protocol != want {
				t.Errorf("the probe was answered by %s, want %s", reply.protocol, want)
			}
		}
	}
}

func TestHostsCountAtAnyKindOfAddress(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, address := range map[string]string{
		"IPv4":        "127.0.0.1:0",
		"IPv6":        "[::1]:0",
		"unix socket": "unix:" + filepath.Join(t.TempDir(), "backend.sock"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, backendsAt(address), withCluster(`{type: STATIC, dns_lookup_family: null}`)) // Envoy resolves no name of a unix socket
			client := s.client("h2")
			s.setServing(1)
			s.awaitProbe(client, 200, time.Second)
			s.setServing(0)
			s.awaitProbe(client, 503, time.Second)
		})
	}
}

func TestProbeFailsBeforeTheFirstHealthCheck(t *testing.T) {
	t.Parallel()
	// It accepts and never answers, so the first check does not end.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// Envoy does not serve before the first check of a cluster that it has from the start, so CDS adds this one later.
	var clusters []*clusterv3.Cluster
	s := newSite(t, backends(0), withConfig(func(c *testbed.Bootstrap) {
		c.SetEndpoints(silent.Addr().String())
		c.Patch(c.HealthCheck(), `timeout: 60s`)
	}), clustersByCDS(&clusters), withConfig(func(c *testbed.Bootstrap) { c.StaticResources.Clusters = nil }))
	s.writeClusters(clusters...)
	s.awaitGauges("service", 0, 1)
	reply := s.probe(s.client("h2"))
	if reply.status != 503 {
		t.Errorf("a host that was never checked gives %d, want 503", reply.status)
	}
	if stats := s.stats("cluster.service.health_check."); stats["cluster.service.health_check.success"] != 0 {
		t.Errorf("a health check has passed, so this shows nothing: %v", stats)
	}
}

func TestProbeFailsIfTheNameDoesNotResolve(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(0), withConfig(func(c *testbed.Bootstrap) { c.SetEndpoints("service.invalid:8080") }))
	reply := s.probe(s.client("http/1.1"))
	if reply.status != 503 {
		t.Errorf("a cluster without hosts gives %d, want 503", reply.status)
	}
	s.awaitLog("healthgate_cluster_empty", settle) // in the access log too
}

func TestReplyHasStatusBodyAndHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.client("h2")
	s.setServing(1)

	reply := s.awaitProbe(client, 200, time.Second)
	expect(t, "a passing probe", reply, 200, "ok\n", map[string]string{
		"content-type": "text/plain", "cache-control": "no-store", "content-length": "3",
		"x-envoy-immediate-health-check-fail": "", "x-envoy-degraded": "",
	})
	s.setServing(0)
	reply = s.awaitProbe(client, 503, time.Second)
	expect(t, "a failing probe", reply, 503, "unavailable\n", map[string]string{
		"content-type": "text/plain", "cache-control": "no-store", "content-length": "12",
		"x-envoy-immediate-health-check-fail": "", "x-envoy-degraded": "",
	})
}

func TestGetAndHeadOnThePathAreProbes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	for _, protocol := range protocols {
		client := s.client(protocol)
		for _, path := range []string{"/", "/?x=1", "/?", "/?/x"} {
			expect(t, protocol+" GET "+path, s.mustDo(client, "GET", path, nil), 200, "ok\n", nil)
			expect(t, protocol+" HEAD "+path, s.mustDo(client, "HEAD", path, nil), 200, "", map[string]string{
				"content-type": "text/plain", "content-length": "3", "cache-control": "no-store",
			})
		}
	}
}

// Other requests pass as without the filter, whether it is enabled on the probe's route only or on every route.
func TestOtherRequestsPassAsWithoutTheFilter(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]option{
		"disabled by default": nil,
		"on every route":      {onEveryRoute()},
		"without the filter":  {withConfig((*testbed.Bootstrap).RemoveGate)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, options...)
			s.setServing(1)
			for _, protocol := range protocols {
				client := s.client(protocol)
				for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
					expect(t, method+" /", s.mustDo(client, method, "/", strings.NewReader("body")), 503, "", map[string]string{
						"cache-control": "", // the route's own direct_response, not the filter's
					})
				}
				for _, path := range []string{"/x", "//x", "/x?/", "/%2F", "/index.html"} {
					expect(t, "GET "+path, s.mustDo(client, "GET", path, nil), 404, "", nil)
				}
			}
			callRouter(t, s)
		})
	}
}

// The reference configuration has no route to the backend's health service; the backend itself answers it.
func TestBackendServesTheStandardHealthService(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it ends the backend"))
	conn := dialPlain(t, s.backends[0].Address)
	health := grpc_health_v1.NewHealthClient(conn)
	for _, service := range []string{"", "router.Router"} {
		watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		for _, serving := range []bool{true, false, true} {
			if err := s.backends[0].SetServing(serving); err != nil {
				t.Fatal(err)
			}
			want := grpc_health_v1.HealthCheckResponse_NOT_SERVING
			if serving {
				want = grpc_health_v1.HealthCheckResponse_SERVING
			}
			if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
				t.Fatalf("Watch of %q got %v, %v, want %v", service, got.GetStatus(), err, want)
			}
			if got, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service}); err != nil || got.GetStatus() != want {
				t.Fatalf("Check of %q got %v, %v, want %v", service, got.GetStatus(), err, want)
			}
		}
	}
	_, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "other.Service"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("Check of an unknown service got %v, want NotFound", err)
	}

	// On SIGTERM it first sends NOT_SERVING.
	watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("Watch got %v, %v, want SERVING", got.GetStatus(), err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.backends[0].Stop() }()
	if got, err := watch.Recv(); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("Watch got %v, %v on SIGTERM, want NOT_SERVING", got.GetStatus(), err)
	}
	conn.Close()
	if err := <-stopped; err != nil {
		t.Errorf("the backend ended with %v on SIGTERM, want 0", err)
	}
}

func TestProbeWithABodyOrTrailersIsAnsweredAtItsEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	for _, protocol := range protocols {
		client := s.client(protocol)
		for _, size := range []int{0, 1, 100, 1 << 20} {
			// Of unknown length, so that it is sent chunked, or in frames after the headers.
			body := io.MultiReader(strings.NewReader(strings.Repeat("x", size)))
			expect(t, fmt.Sprintf("%s GET with %d bytes", protocol, size), s.mustDo(client, "GET", "/", body), 200, "ok\n", nil)
		}

		request, err := http.NewRequest("GET", "https://"+s.envoy.Ingress+"/", io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		request.Trailer = http.Header{"X-Checksum": {"1"}}
		reply, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s GET with trailers: %v", protocol, err)
		}
		reply.Body.Close()
		if reply.StatusCode != 200 {
			t.Errorf("%s GET with trailers got %d, want 200", protocol, reply.StatusCode)
		}
	}

	// Not before its end: the first half alone gets no answer.
	conn := s.dialTLS(t.Context(), "http/1.1")
	send(t, conn, "GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nx")
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatalf("half a probe was answered with %d bytes", n)
	}
	if err := conn.SetReadDeadline(time.Now().Add(settle)); err != nil {
		t.Fatal(err)
	}
	send(t, conn, "x")
	line := make([]byte, len("HTTP/1.1 200 OK"))
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.1 200 OK" {
		t.Errorf("the whole probe got %q, %v", line, err)
	}
}

func TestClosedClientsLeaveNoActiveRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	for _, start := range []string{
		"GET / HTTP/1.1\r\nhost: localhost\r\n",                               // in the headers
		"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf", // in the body
		"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",                           // before the answer
	} {
		for range 50 {
			conn := s.dialTLS(t.Context(), "http/1.1")
			send(t, conn, start)
			conn.Close()
		}
	}
	s.awaitStat("http.ingress.downstream_rq_active", 0)
	expect(t, "a probe afterwards", s.probe(s.client("h2")), 200, "ok\n", nil)
}

func TestAThousandProbesAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, withHCM(`http2_protocol_options: {max_concurrent_streams: 1000}`))
	s.setServing(1)
	for _, protocol := range protocols {
		client := s.client(protocol)
		client.Timeout = 60 * time.Second
		// Each waits with half a body until all are there.
		var waiting, done sync.WaitGroup
		failures := make(chan error, 1000)
		all := make(chan struct{})
		for range 1000 {
			waiting.Add(1)
			done.Add(1)
			go func() {
				defer done.Done()
				reader, writer := io.Pipe()
				go func() {
					_, _ = io.WriteString(writer, "half")
					waiting.Done()
					<-all
					writer.Close()
				}()
				reply, err := s.do(client, "GET", "/", reader)
				if err == nil && reply.status != 200 {
					err = fmt.Errorf("got %d", reply.status)
				}
				if err != nil {
					failures <- err
				}
			}()
		}
		waiting.Wait()
		close(all)
		done.Wait()
		close(failures)
		for err := range failures {
			t.Errorf("%s: %v", protocol, err)
		}
	}
	if !s.envoy.Alive() {
		t.Fatal("envoy has ended")
	}
}

func TestProbeWithAGRPCContentTypeGetsAGRPCStatus(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.client("h2")
	for _, step := range []struct {
		serving int
		status  string
	}{{1, "0"}, {0, "14"}} {
		s.setServing(step.serving)
		reply := s.mustDo(client, "GET", "/", nil, "content-type", "application/grpc")
		if got := reply.header.Get("grpc-status"); reply.status != 200 || got != step.status {
			t.Errorf("with %d hosts it got %d and grpc-status %q, want 200 and %q", step.serving, reply.status, got, step.status)
		}
	}
}

func TestDrainingFailsTheProbe(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, test := range map[string]struct {
		plugin string
		status int
		header string
	}{
		"drain by default": {`{"clusters": ["service"]}`, 503, "true"},
		"drain: fail":      {`{"clusters": ["service"], "drain": "fail"}`, 503, "true"},
		"drain: ignore":    {`{"clusters": ["service"], "drain": "ignore"}`, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, withGate(test.plugin))
			client := s.client("h2")
			s.setServing(1)
			// The drain begins before the first probe.
			s.post("/healthcheck/fail")
			expect(t, "while draining", s.probe(client), test.status, map[int]string{200: "ok\n", 503: "unavailable\n"}[test.status],
				map[string]string{"x-envoy-immediate-health-check-fail": test.header, "cache-control": "no-store"})
			s.post("/healthcheck/ok")
			expect(t, "afterwards", s.probe(client), 200, "ok\n", map[string]string{"x-envoy-immediate-health-check-fail": ""})
		})
	}
}

func TestConfigurationAddedDuringADrainFailsTheProbe(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS())
	client := s.client("h2")
	s.setServing(1)
	s.post("/healthcheck/fail")
	s.reload(`{"clusters": ["service"], "stat_prefix": "second"}`)
	reply := s.awaitProbe(client, 503, settle)
	if got := reply.header.Get("x-envoy-immediate-health-check-fail"); got != "true" {
		t.Errorf("got x-envoy-immediate-health-check-fail: %q, want true", got)
	}
	s.awaitStat("healthgate.second.failed_draining", 1)
}
