package suite

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // the clients' own checking
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// healthRoute is the route on which the filter answers grpc.health.v1.Health.
var healthRoute = map[string]any{
	"match":           map[string]any{"prefix": "/grpc.health.v1.Health/"},
	"direct_response": map[string]any{"status": 503},
	"typed_per_filter_config": map[string]any{
		"healthgate": map[string]any{"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": map[string]any{}},
	},
}

// withHealthService has the filter answer grpc.health.v1.Health, for the service and for all.
func withHealthService() option {
	return withConfig(func(c *bed.Config) {
		routes := c.Get(bed.Routes).([]any)
		c.Set(bed.Routes, slices.Insert(routes, 1, any(healthRoute)))
		c.Set(door.PluginConfig+".grpc_services", []any{"router.Router"})
	})
}

func (s *site) health() grpc_health_v1.HealthClient {
	return grpc_health_v1.NewHealthClient(s.dialGRPC())
}

func asked(service string) *grpc_health_v1.HealthCheckRequest {
	return &grpc_health_v1.HealthCheckRequest{Service: service}
}

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	unknown    = grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
)

func TestHealthServiceAnswersByTheGate(t *testing.T) {
	t.Parallel()
	needs(t, door.GRPC)
	s := newSite(t, withHealthService())
	health := s.health()
	for _, up := range []bool{true, false, true} {
		s.setServing(map[bool]int{true: 1}[up])
		want := map[bool]grpc_health_v1.HealthCheckResponse_ServingStatus{true: serving, false: notServing}[up]
		s.stats("healthgate.") // after a look
		for _, service := range []string{"", "router.Router"} {
			reply, err := health.Check(t.Context(), asked(service))
			if err != nil || reply.Status != want {
				t.Errorf("up %v, Check of %q: got %v, %v", up, service, reply.GetStatus(), err)
			}
		}
		list, err := health.List(t.Context(), &grpc_health_v1.HealthListRequest{})
		if err != nil || len(list.Statuses) != 2 || list.Statuses[""].GetStatus() != want || list.Statuses["router.Router"].GetStatus() != want {
			t.Errorf("up %v, List: got %v, %v", up, list, err)
		}
	}
	if _, err := health.Check(t.Context(), asked("nobody")); status.Code(err) != codes.NotFound {
		t.Errorf("Check of nobody: got %v", err)
	}
	if err := s.dialGRPC().Invoke(t.Context(), "/grpc.health.v1.Health/Other", asked(""), &grpc_health_v1.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("another method: got %v", err)
	}
	if got := s.stats("healthgate.default.grpc_")["healthgate.default.grpc_check"]; got != 10 {
		t.Errorf("grpc_check is %d, want 10", got)
	}
}

func TestWatchersSeeChangesAndTheEndOfEnvoy(t *testing.T) {
	t.Parallel()
	needs(t, door.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	crowd := s.newCrowd(50, s.conns(4)...)
	crowd.await(serving, 1)
	stranger, err := s.health().Watch(t.Context(), asked("nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := stranger.Recv(); err != nil || reply.Status != unknown {
		t.Errorf("Watch of nobody: got %v, %v", reply, err)
	}
	s.awaitStat("healthgate.default.grpc_watchers", 201)
	for i := range 4 {
		s.setServing(i % 2)
		crowd.await(statusOf(i%2 == 1), int64(i)+2)
	}
	crowd.mustHaveSeen(5)
	if err := s.envoy.Stop(); err != nil {
		t.Error(err)
	}
	crowd.mustEnd()
	if _, err := stranger.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("Watch of nobody ends with %v", err)
	}
}

// A watcher's stream ends with its client, and nothing of it stays.
func TestWatchersThatGoLeaveNothing(t *testing.T) {
	t.Parallel()
	needs(t, door.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	health := s.health()
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		for range 50 {
			stream, err := health.Watch(ctx, asked(""))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		s.awaitStat("healthgate.default.grpc_watchers", 0)
	}
	if got := s.stats("healthgate.default.grpc_")["healthgate.default.grpc_watch"]; got != 250 {
		t.Errorf("grpc_watch is %d, want 250", got)
	}
}

// grpc-go's own health checking, in its load balancer, takes the Envoy out and back in.
func TestClientsOwnHealthCheckingGoesByTheGate(t *testing.T) {
	t.Parallel()
	needs(t, door.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	conn := s.dialGRPC(grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "router.Router"}}`))
	call := func() error {
		return conn.Invoke(t.Context(), "/router.Router/Nothing", asked(""), &grpc_health_v1.HealthCheckResponse{})
	}
	reached := func(want bool) {
		t.Helper()
		s.await(settle, func() error {
			err := call()
			if got := status.Code(err) == codes.Unimplemented; got != want { // by the backend, which has no such method
				return fmt.Errorf("the backend is reached: %v (%v), want %v", got, err, want)
			}
			return nil
		})
	}
	reached(true)
	s.setServing(0)
	reached(false)
	s.setServing(1)
	reached(true)
}
