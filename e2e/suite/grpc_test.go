package suite

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // the clients' own checking
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	unknown    = grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
)

// servingStatus is a status of grpc.health.v1.Health.
type servingStatus = grpc_health_v1.HealthCheckResponse_ServingStatus

func statusOf(passing bool) servingStatus {
	if passing {
		return serving
	}
	return notServing
}

func asked(service string) *grpc_health_v1.HealthCheckRequest {
	return &grpc_health_v1.HealthCheckRequest{Service: service}
}

// healthRoute returns the route on which the filter answers grpc.health.v1.Health.
func healthRoute() *routev3.Route {
	return testbed.Parse[*routev3.Route](`{name: health, match: {prefix: /grpc.health.v1.Health/}, direct_response: {status: 503},
		typed_per_filter_config: {healthgate: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}}`)
}

// withHealthService makes the filter answer grpc.health.v1.Health, for router.Router and overall.
func withHealthService() option {
	return withConfig(func(c *testbed.Bootstrap) {
		testbed.PrependRoute(c.VirtualHost(), healthRoute())
		c.SetGateKey("grpc_services", []any{"router.Router"})
	})
}

// newHealthSite starts a site whose gate passes and answers grpc.health.v1.Health.
func newHealthSite(t *testing.T, options ...option) *site {
	t.Helper()
	needs(t, testbed.GRPC)
	s := newServingSite(t, append([]option{withHealthService()}, options...)...)
	s.awaitPath("/", 200)
	return s
}

// health returns a client of grpc.health.v1.Health at the listener.
func (s *site) health() grpc_health_v1.HealthClient {
	return grpc_health_v1.NewHealthClient(s.dialGRPC())
}

// mustCheck makes a Check of the overall status.
func mustCheck(t *testing.T, what string, health grpc_health_v1.HealthClient, want servingStatus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*settle)
	defer cancel()
	if reply, err := health.Check(ctx, asked("")); err != nil || reply.Status != want {
		t.Errorf("%s: Check got %v, %v, want %v", what, reply.GetStatus(), err, want)
	}
}

// awaitCheck waits until a Check of the overall status gets a status, or an error with a code.
func (s *site) awaitCheck(want servingStatus, code codes.Code) {
	s.t.Helper()
	health := s.health()
	s.await(settle, func() error {
		if reply, err := health.Check(s.t.Context(), asked("")); status.Code(err) != code || reply.GetStatus() != want {
			return fmt.Errorf("a Check is answered with %v, %v, want %v, %v", reply.GetStatus(), err, want, code)
		}
		return nil
	})
}

func TestHealthServiceAnswersByTheGate(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t)
	health := s.health()
	for _, up := range []int{1, 0, 1} {
		s.setServing(up)
		want := statusOf(up == 1)
		s.awaitSample()
		for _, service := range []string{"", "router.Router"} {
			reply, err := health.Check(t.Context(), asked(service))
			if err != nil || reply.Status != want {
				t.Errorf("%d up, Check of %q: got %v, %v", up, service, reply.GetStatus(), err)
			}
		}
		list, err := health.List(t.Context(), &grpc_health_v1.HealthListRequest{})
		if err != nil || len(list.Statuses) != 2 || list.Statuses[""].GetStatus() != want || list.Statuses["router.Router"].GetStatus() != want {
			t.Errorf("%d up, List: got %v, %v", up, list, err)
		}
	}
	if _, err := health.Check(t.Context(), asked("unknown")); status.Code(err) != codes.NotFound {
		t.Errorf("Check of an unknown service: got %v", err)
	}
	err := s.dialGRPC().Invoke(t.Context(), "/grpc.health.v1.Health/Other", asked(""), &grpc_health_v1.HealthCheckResponse{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("another method: got %v", err)
	}
	s.awaitStat("healthgate.default.grpc_check", 10)
}

// The health service answers NOT_SERVING during a drain, also one from the start.
func TestHealthServiceFollowsADrain(t *testing.T) {
	t.Parallel()
	needs(t, testbed.GRPC)
	s := newServingSite(t, withHealthService(), startedDraining(t))
	crowd := s.newCrowd(1, s.dialGRPC()).first(notServing)
	for i, drain := range []string{"ok", "fail", "ok"} {
		s.post("/healthcheck/" + drain)
		crowd.await(statusOf(drain == "ok"), int64(i)+2)
		mustCheck(t, drain, s.health(), statusOf(drain == "ok"))
	}
	s.mustEndInOrder()
	crowd.mustEnd()
}

// callByWeb makes a gRPC-Web call, and returns the gRPC status, from headers or trailers, and the message.
func (s *site) callByWeb(client *http.Client, path, body string) (grpcStatus, message string, header http.Header) {
	s.t.Helper()
	const contentType = "application/grpc-web+proto"
	reply := s.mustDo(client, "POST", path, strings.NewReader(body), "content-type", contentType, "accept", contentType, "x-grpc-web", "1")
	if reply.status != 200 || !strings.HasPrefix(reply.header.Get("content-type"), "application/grpc-web") {
		s.t.Fatalf("%s: got %d %v", path, reply.status, reply.header)
	}
	if grpcStatus = reply.header.Get("grpc-status"); grpcStatus != "" { // headers alone
		text, err := url.PathUnescape(reply.header.Get("grpc-message"))
		if err != nil || reply.body != "" {
			s.t.Errorf("%s: the body is %q; %v", path, reply.body, err)
		}
		return grpcStatus, text, reply.header
	}
	for frames := []byte(reply.body); len(frames) >= 5; {
		length := 5 + int(binary.BigEndian.Uint32(frames[1:]))
		if payload := string(frames[5:length]); frames[0] == 0 {
			message += payload
		} else if _, rest, found := strings.Cut(payload, "grpc-status:"); found { // trailers
			grpcStatus, _, _ = strings.Cut(rest, "\r\n")
		}
		frames = frames[length:]
	}
	return grpcStatus, message, reply.header
}

// webCall is a gRPC-Web call and its expected answer. The message of an error is text, any other is protobuf.
type webCall struct{ path, body, status, message, details string }

// mustBeAnswered makes each call over each protocol.
func (s *site) mustBeAnswered(calls ...webCall) (header http.Header) {
	s.t.Helper()
	s.awaitSample()
	for _, protocol := range protocols {
		client := s.client(protocol)
		for _, call := range calls {
			var status, message string
			if status, message, header = s.callByWeb(client, call.path, call.body); status != call.status || message != call.message {
				s.t.Errorf("%s: got %s %q for %+v", protocol, status, message, call)
			}
		}
	}
	for _, call := range calls {
		if call.details != "" {
			s.awaitDetails(call.details)
		}
	}
	return header
}

// With grpc_web before the gate each answer keeps its status, and the access log has its details.
func TestAnswersKeepTheirStatusThroughGRPCWeb(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t, withConfig(func(c *testbed.Bootstrap) {
		c.SetGateKey("grpc_max_watchers", 1)
		c.SetGateKey("response", map[string]any{"unhealthy": map[string]any{"body": "50 % of\nthe hösts~"}})
		c.HCM().AccessLog[0].Filter = nil
	}), withFilter(true, // before the gate
		`{name: envoy.filters.http.grpc_web, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}}`))
	s.newCrowd(1, s.dialGRPC()).await(serving, 1)
	const health = "/grpc.health.v1.Health/"
	s.mustBeAnswered(
		webCall{health + "Check", known, "0", "\x08\x01", ""},
		webCall{health + "Check", "\x00\x00\x00\x00\x03\x0a\x01x", "5", "unknown service", "healthgate_grpc_not_found"},
		webCall{health + "Check", known[:10], "3", "the request is not one whole message", "healthgate_grpc_invalid_argument"},
		webCall{health + "Other", known, "12", "unknown method of grpc.health.v1.Health", "healthgate_grpc_unimplemented"},
		webCall{health + "Watch", known, "8", "too many calls of Watch", "healthgate_grpc_resource_exhausted"},
		webCall{"/", whole, "0", "ok\n", "healthgate_ok"},
	)
	s.setServing(0)
	header := s.mustBeAnswered(
		webCall{health + "Check", known, "0", "\x08\x02", ""},
		webCall{"/", whole, "14", "50 % of\nthe hösts~", "healthgate_cluster_unhealthy"},
	)
	if header.Get("cache-control") != "no-store" {
		t.Errorf("the gate's headers are %v", header)
	}
	s.post("/healthcheck/fail")
	header = s.mustBeAnswered(webCall{"/", whole, "14", "50 % of\nthe hösts~", "healthgate_draining"})
	if header.Get("x-envoy-immediate-health-check-fail") != "true" {
		t.Errorf("the gate's headers while it drains are %v", header)
	}
}

// Other projects' clients of grpc.health.v1.Health, and how they read the gate's answers.

// secured has an option for each transport of the listener.
var secured = map[string][]option{"TLS": nil, "h2c": {withoutTLS()}}

// askPython makes Python's client ask for services, and returns a line for each answer: check or watch, the service and the answer.
func askPython(t *testing.T, s *site, services ...string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.envoy.Ingress)
	mustSucceed(t, err)
	ca := s.cert.CertFile
	if s.isPlain() {
		ca = ""
	}
	args := append([]string{filepath.Join(testbed.Root(), "e2e", "suite", "python", "ask.py"), "localhost:" + port, ca}, services...)
	ask := exec.CommandContext(t.Context(), "python3", args...)
	packages := filepath.Join(testbed.Root(), "build", "python")
	ask.Env = append(os.Environ(), "PYTHONPATH="+packages, "GRPC_VERBOSITY=ERROR", "no_proxy=localhost")
	var errs strings.Builder
	ask.Stderr = &errs
	out, err := ask.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, &errs)
	}
	return string(out)
}

// Python's client reads the same from the gate as grpc-go, with which the other tests ask.
func TestPythonsClientAgrees(t *testing.T) {
	needs(t, testbed.GRPC)
	if _, err := os.Stat(filepath.Join(testbed.Root(), "build", "python")); err != nil {
		t.Skipf("%v: make build/python", err)
	}
	subtests(t, secured, func(t *testing.T, options []option) {
		s := newHealthSite(t, options...)
		for _, state := range []struct {
			name  string
			up    int
			drain string
			want  string
		}{{"down", 0, "ok", "NOT_SERVING"}, {"up", 1, "ok", "SERVING"}, {"drained", 1, "fail", "NOT_SERVING"}} {
			s.setServing(state.up)
			s.post("/healthcheck/" + state.drain)
			want := fmt.Sprintf("check '' %[1]s\ncheck 'router.Router' %[1]s\ncheck 'unknown' NOT_FOUND\n"+
				"watch '' %[1]s\nwatch 'router.Router' %[1]s\nwatch 'unknown' SERVICE_UNKNOWN\n", state.want)
			if got := askPython(t, s, "", "router.Router", "unknown"); got != want {
				t.Errorf("%s: Python gets %s, want %s", state.name, got, want)
			}
		}
	})
}

// Another Envoy checks the gate by grpc_health_check, as the host of its cluster, and its gate follows.
func TestEnvoysGRPCHealthCheckAgrees(t *testing.T) {
	needs(t, testbed.GRPC)
	subtests(t, secured, func(t *testing.T, options []option) {
		s := newHealthSite(t, options...)
		front := newSite(t, backends(0), withConfig(func(c *testbed.Bootstrap) {
			c.SetEndpoints(s.envoy.Ingress)
			if s.isPlain() {
				return
			}
			c.Patch(c.Cluster(), fmt.Sprintf(`transport_socket: {name: envoy.transport_sockets.tls, typed_config: {
				"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: localhost,
				common_tls_context: {alpn_protocols: [h2], validation_context: {trusted_ca: {filename: %q}}}}}`, s.cert.CertFile))
		}))
		client := front.client("h2")
		for _, up := range []int{1, 0, 1} {
			s.setServing(up)
			front.awaitGauges("service", uint64(up), 1)
			front.awaitProbe(client, map[int]int{1: 200, 0: 503}[up], settle)
		}
		s.post("/healthcheck/fail")
		front.awaitProbe(client, 503, settle)
	})
}

// grpc-go's client-side health checking sends calls only while the gate passes.
func TestClientSideHealthCheckingFollowsTheGate(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t)
	conn := s.dialGRPC(
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "router.Router"}}`))
	for _, up := range []int{1, 0, 1} {
		s.setServing(up)
		want := map[int]codes.Code{1: codes.Unimplemented, 0: codes.Unavailable}[up] // by the backend, which has no such method, or by grpc-go
		s.await(settle, func() error {
			err := conn.Invoke(t.Context(), "/router.Router/Nothing", asked(""), &grpc_health_v1.HealthCheckResponse{})
			if status.Code(err) != want {
				return fmt.Errorf("%d up: a call got %v, want %v", up, err, want)
			}
			return nil
		})
	}
}
