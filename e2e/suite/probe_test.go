package suite

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/testbed"
)

func TestAnswerFollowsTheHealthyHosts(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2))
	clients := map[string]*http.Client{"HTTP/1.1": s.client("http/1.1"), "HTTP/2.0": s.client("h2")}
	for _, step := range []struct{ healthy, status int }{
		{2, 200}, {1, 200}, {0, 503}, {1, 200}, {0, 503}, {2, 200},
	} {
		s.setServing(step.healthy) // returns when Envoy's own gauge says so
		for protocol, client := range clients {
			if reply := s.awaitProbe(client, step.status, time.Second); reply.protocol != protocol {
				t.Errorf("the probe was answered by %s, want %s", reply.protocol, protocol)
			}
		}
	}
}

// The script that Healthgate replaces counts IPv4 hosts alone.
func TestHostsCountAtAnyKindOfAddress(t *testing.T) {
	addresses := map[string]string{"IPv6": "[::1]:0", "a unix socket": "unix:" + filepath.Join(t.TempDir(), "backend.sock")}
	subtests(t, addresses, func(t *testing.T, address string) {
		// Envoy resolves no name of a unix socket.
		s := newSite(t, func(p *plan) { p.addresses = []string{address} }, withCluster(`{type: STATIC, dns_lookup_family: null}`))
		for _, healthy := range []int{1, 0, 1} {
			s.setServing(healthy)
			s.awaitProbe(s.client("h2"), map[int]int{1: 200, 0: 503}[healthy], settle)
		}
	})
}

func TestProbeFailsBeforeTheFirstHealthCheck(t *testing.T) {
	t.Parallel()
	silent := silentBackend(t)
	// Envoy does not serve before the first check of a cluster that it has from the start, so CDS adds this one later.
	var clusters []*clusterv3.Cluster
	s := newSite(t, backends(0), withConfig(func(c *testbed.Bootstrap) {
		c.SetEndpoints(silent)
		c.Patch(c.HealthCheck(), `timeout: 60s`)
	}), clustersByCDS(&clusters), withConfig(func(c *testbed.Bootstrap) { c.StaticResources.Clusters = nil }))
	s.writeClusters(clusters...)
	s.awaitGauges("service", 0, 1)
	expect(t, "a host that was never checked", s.path("/"), 503, "unavailable\n", nil)
	s.awaitStat("cluster.service.health_check.success", 0) // otherwise this shows nothing
}

func TestProbeFailsIfTheNameDoesNotResolve(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(0), withConfig(func(c *testbed.Bootstrap) { c.SetEndpoints("service.invalid:8080") }))
	expect(t, "a cluster without hosts", s.path("/"), 503, "unavailable\n", nil)
	s.awaitDetails("healthgate_cluster_empty")
}

func TestReplyHasStatusBodyAndHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.client("h2")
	for up, want := range []struct {
		status           int
		body, grpcStatus string
	}{{503, "unavailable\n", "14"}, {200, "ok\n", "0"}} {
		s.setServing(up)
		reply := s.awaitProbe(client, want.status, time.Second)
		expect(t, "a probe", reply, want.status, want.body, map[string]string{
			"content-type": "text/plain", "cache-control": "no-store", "content-length": fmt.Sprint(len(want.body)),
			"x-envoy-immediate-health-check-fail": "", "x-envoy-degraded": "",
		})
		reply = s.mustDo(client, "GET", "/", nil, "content-type", "application/grpc")
		if got := reply.header.Get("grpc-status"); reply.status != 200 || got != want.grpcStatus {
			t.Errorf("as gRPC it got %d and grpc-status %q, want 200 and %q", reply.status, got, want.grpcStatus)
		}
	}
}

func TestGetAndHeadOnThePathAreProbes(t *testing.T) {
	t.Parallel()
	s := newServingSite(t)
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
	subtests(t, map[string][]option{
		"disabled by default": nil,
		"on every route":      {onEveryRoute()},
		"without the filter":  {withConfig((*testbed.Bootstrap).RemoveGate)},
	}, func(t *testing.T, options []option) {
		s := newServingSite(t, options...)
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

// The backend of the tests answers grpc.health.v1.Health itself. On SIGTERM it first sends NOT_SERVING.
func TestBackendServesTheStandardHealthService(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, alone("it ends the backend"))
	conn := dialPlain(t, s.backends[0].Address)
	crowd := s.newCrowd(1, conn)
	for changes, up := range []bool{true, false, true} {
		s.setBackend(0, up)
		crowd.await(statusOf(up), int64(changes)+1)
		mustCheck(t, "the backend", grpc_health_v1.NewHealthClient(conn), statusOf(up))
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.backends[0].Stop() }()
	crowd.await(notServing, 4)
	conn.Close()
	mustSucceed(t, <-stopped)
}

func TestProbeWithABodyOrTrailersIsAnsweredAtItsEnd(t *testing.T) {
	t.Parallel()
	s := newServingSite(t)
	for _, protocol := range protocols {
		client := s.client(protocol)
		for _, size := range []int{0, 1, 100, 1 << 20} {
			// Of unknown length, so that it is sent chunked, or in frames after the headers.
			body := io.MultiReader(strings.NewReader(strings.Repeat("x", size)))
			expect(t, fmt.Sprintf("%s GET with %d bytes", protocol, size), s.mustDo(client, "GET", "/", body), 200, "ok\n", nil)
		}
		request, err := http.NewRequest("GET", s.url("/"), io.MultiReader(strings.NewReader("body")))
		mustSucceed(t, err)
		request.Trailer = http.Header{"X-Checksum": {"1"}}
		reply, err := sendRequest(client, request)
		if err != nil {
			t.Fatalf("%s GET with trailers: %v", protocol, err)
		}
		expect(t, protocol+" GET with trailers", reply, 200, "ok\n", nil)
	}

	// Not before its end: the first half alone gets no answer.
	conn := s.dialTLS(t.Context(), "http/1.1")
	answered := func(within time.Duration) string {
		_ = conn.SetReadDeadline(time.Now().Add(within)) // an error shows in the answer
		line := make([]byte, len("HTTP/1.1 200 OK"))
		n, _ := io.ReadFull(conn, line)
		return string(line[:n])
	}
	send(t, conn, "GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nx")
	if got := answered(300 * time.Millisecond); got != "" {
		t.Fatalf("half a probe got %q", got)
	}
	send(t, conn, "x")
	if got := answered(settle); got != "HTTP/1.1 200 OK" {
		t.Errorf("the whole probe got %q", got)
	}
}

func TestClosedClientsLeaveNoActiveRequests(t *testing.T) {
	t.Parallel()
	s := newServingSite(t)
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
	expect(t, "a probe afterwards", s.path("/"), 200, "ok\n", nil)
}

// barrier is the end of many bodies: it is reached by all together.
type barrier struct{ sync.WaitGroup }

func (b *barrier) Read([]byte) (int, error) {
	b.Done()
	b.Wait()
	return 0, io.EOF
}

func TestAThousandProbesAtOnce(t *testing.T) {
	t.Parallel()
	const probes = 1000
	s := newServingSite(t, withHCM(`http2_protocol_options: {max_concurrent_streams: 1000}`))
	for _, protocol := range protocols {
		client := s.client(protocol)
		client.Timeout = 60 * time.Second
		// Each waits with half a body until all are there.
		var end barrier
		var clients sync.WaitGroup
		end.Add(probes)
		for range probes {
			clients.Go(func() {
				if reply, err := s.do(client, "GET", "/", io.MultiReader(strings.NewReader("half"), &end)); err != nil || reply.status != 200 {
					t.Errorf("%s: got %+v, %v", protocol, reply, err)
				}
			})
		}
		clients.Wait()
	}
}
