package suite

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // the clients' own checking
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// healthRoute returns the route on which the filter answers grpc.health.v1.Health.
func healthRoute() *routev3.Route {
	return testbed.Parse[*routev3.Route](`{name: health, match: {prefix: /grpc.health.v1.Health/}, direct_response: {status: 503},
		typed_per_filter_config: {healthgate: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}}`)
}

// overrideHealthRoute overrides the gate on the health service's route.
func overrideHealthRoute(host *routev3.VirtualHost, gate string) {
	for _, route := range host.Routes {
		if route.Name == "health" {
			route.TypedPerFilterConfig = gateOverride(gate)
		}
	}
}

// withHealthService makes the filter answer grpc.health.v1.Health, for router.Router and overall.
func withHealthService() option {
	return withConfig(func(c *testbed.Bootstrap) {
		testbed.PrependRoute(c.VirtualHost(), healthRoute())
		c.SetGateKey("grpc_services", []any{"router.Router"})
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
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService())
	health := s.health()
	for _, up := range []bool{true, false, true} {
		s.setServing(map[bool]int{true: 1}[up])
		want := map[bool]grpc_health_v1.HealthCheckResponse_ServingStatus{true: serving, false: notServing}[up]
		s.stats("healthgate.") // after a sample
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
	if _, err := health.Check(t.Context(), asked("unknown")); status.Code(err) != codes.NotFound {
		t.Errorf("Check of an unknown service: got %v", err)
	}
	err := s.dialGRPC().Invoke(t.Context(), "/grpc.health.v1.Health/Other", asked(""), &grpc_health_v1.HealthCheckResponse{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("another method: got %v", err)
	}
	if got := s.stat("healthgate.default.grpc_check"); got != 10 {
		t.Errorf("grpc_check is %d, want 10", got)
	}
}

func TestWatchersGetChangesAndTheEndOfEnvoy(t *testing.T) {
	t.Parallel()
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	crowd := s.newCrowd(50, s.conns(4)...)
	crowd.await(serving, 1)
	ofUnknown, err := s.health().Watch(t.Context(), asked("unknown"))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := ofUnknown.Recv(); err != nil || reply.Status != unknown {
		t.Errorf("Watch of an unknown service: got %v, %v", reply, err)
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
	if _, err := ofUnknown.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("Watch of an unknown service ends with %v", err)
	}
}

// When its client leaves, a watcher's stream ends.
func TestWatchersOfClosedClientsEnd(t *testing.T) {
	t.Parallel()
	needs(t, testbed.GRPC)
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
	if got := s.stat("healthgate.default.grpc_watch"); got != 250 {
		t.Errorf("grpc_watch is %d, want 250", got)
	}
}

// grpc-go's client-side health checking follows the gate.
func TestClientSideHealthCheckingFollowsTheGate(t *testing.T) {
	t.Parallel()
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	conn := s.dialGRPC(
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "router.Router"}}`))
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

// overrideHealth makes RDS override the gate on the health service's route; "" removes the override.
func (s *site) overrideHealth(gate string) {
	s.t.Helper()
	s.changeRoutes(func(host *routev3.VirtualHost) {
		if gate != "" {
			overrideHealthRoute(host, gate)
		}
	})
}

// awaitCheck waits until a Check is answered with a status.
func (s *site) awaitCheck(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
	s.t.Helper()
	health := s.health()
	s.await(settle, func() error {
		if reply, err := health.Check(s.t.Context(), asked("")); err != nil || reply.Status != want {
			return fmt.Errorf("a Check is answered with %v, %v, want %v", reply.GetStatus(), err, want)
		}
		return nil
	})
}

// mustStay fails if a watcher ends within three seconds more, in which one that is outdated would.
func (c *crowd) mustStay() {
	c.s.t.Helper()
	until := time.Now().Add(3 * time.Second)
	c.s.await(settle, func() error {
		for i, w := range c.watchers {
			if len(w.ended) > 0 {
				c.s.t.Fatalf("watcher %d has ended: %v", i, <-w.ended)
			}
		}
		if left := time.Until(until); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
}

// A Watch ends when a call shows that another configuration answers now, so that Check and Watch agree again.
func TestWatchEndsWithItsOverride(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withRDS())
	s.setServing(1)
	var crowd *crowd
	for i, step := range []struct {
		override string
		want     grpc_health_v1.HealthCheckResponse_ServingStatus
	}{
		{"", serving},
		{`{"clusters": ["missing"]}`, notServing},                 // added
		{`{"clusters": ["service"], "drain": "ignore"}`, serving}, // changed
		{`{"clusters": ["missing"]}`, notServing},                 // changed back
		{"", serving}, // removed
		{`{"clusters": ["missing"]}`, notServing}, // brought back
		{"", serving},
	} {
		if i > 0 {
			s.overrideHealth(step.override)
		}
		s.awaitCheck(step.want)
		if crowd != nil {
			crowd.mustEnd()
		}
		crowd = s.newCrowd(3, s.conns(2)...)
		crowd.await(step.want, 1)
	}
	s.awaitStat("healthgate.default.grpc_watchers", 6)

	// An override under which the gate does not answer calls.
	s.overrideHealth(`{"grpc_services": []}`)
	health := s.health()
	s.await(settle, func() error {
		if reply, err := health.Check(t.Context(), asked("")); status.Code(err) != codes.Unavailable {
			return fmt.Errorf("a Check is answered with %v, %v", reply.GetStatus(), err)
		}
		return nil
	})
	crowd.mustEnd()
	s.awaitStat("healthgate.default.grpc_watchers", 0)
}

// After an update of other routes Envoy builds an unchanged override again, and its watchers stay.
func TestWatchContinuesAfterUpdatesOfOtherRoutes(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withRDS())
	s.setServing(1)
	const override = `{"clusters": ["service", "missing"], "require": "any"}`
	s.overrideHealth(override)
	s.overrideRoute("/other", `{"path": "/other"}`) // removes the health route's override
	s.overrideHealth(override)
	s.await(settle, func() error {
		if reply := s.mustDo(s.client("h2"), "GET", "/other", nil); reply.header.Get("cache-control") != "" {
			return fmt.Errorf("/other is still answered by a gate")
		}
		return nil
	})
	crowd := s.newCrowd(3, s.conns(2)...)
	crowd.await(serving, 1)
	for range 3 {
		updates := s.stat("http.ingress.rds.routes.update_success")
		s.changeRoutes(func(host *routev3.VirtualHost) {
			overrideHealthRoute(host, override)
			addRoute(host, fmt.Sprint("/other", updates), `{"path": "/other"}`)
		})
		s.awaitStat("http.ingress.rds.routes.update_success", updates+1)
		s.awaitCheck(serving)
		crowd.mustStay()
	}
	s.turn(false)
	crowd.await(notServing, 2)
}

// Two routes of a host have different overrides. A Check by one is no sign that the other has changed.
func TestOverridesOfTwoRoutesKeepEachOthersWatchers(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withConfig(func(c *testbed.Bootstrap) {
		route := healthRoute()
		testbed.Patch(route, `match: {headers: [{name: x-side, string_match: {exact: other}}]}`)
		route.TypedPerFilterConfig = gateOverride(`{"clusters": ["missing"]}`)
		testbed.PrependRoute(c.VirtualHost(), route)
	}))
	s.setServing(1)
	health := s.health()
	sides := []context.Context{t.Context(), metadata.AppendToOutgoingContext(t.Context(), "x-side", "other")}
	wants := []grpc_health_v1.HealthCheckResponse_ServingStatus{serving, notServing}
	streams := make([]*watcher, 2)
	open := func(i int) {
		stream, err := health.Watch(sides[i], asked(""))
		if err != nil {
			t.Fatal(err)
		}
		streams[i] = &watcher{ended: make(chan error, 1)}
		go streams[i].take(stream)
	}
	open(0)
	open(1)
	ends, last := 0, time.Now()
	// Clients reconnect after streams that end at first. Then both stay longer than outdated ones would.
	for i := 0; time.Since(last) < 5*time.Second; i++ {
		reply, err := health.Check(sides[i%2], asked(""))
		if err != nil || reply.Status != wants[i%2] {
			t.Fatalf("Check got %v, %v, want %v", reply.GetStatus(), err, wants[i%2])
		}
		for side := range streams {
			select {
			case <-streams[side].ended:
				ends, last = ends+1, time.Now()
				open(side)
			default:
			}
		}
		if ends > 6 {
			t.Fatalf("watchers were ended %d times", ends)
		}
	}
	t.Logf("%d watchers were ended at first", ends)
}

// grpc_max_watchers is exactly the number of calls of Watch that can be open.
func TestWatchersAreLimited(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withConfig(func(c *testbed.Bootstrap) { c.SetGateKey("grpc_max_watchers", 20) }))
	s.setServing(1)
	crowd := s.newCrowd(5, s.conns(4)...)
	crowd.await(serving, 1)
	refused := func(context context.Context) bool {
		stream, err := s.health().Watch(context, asked(""))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := stream.Recv()
		switch {
		case status.Code(err) == codes.ResourceExhausted:
			return true
		case err != nil || reply.Status != serving:
			t.Fatalf("got %v, %v", reply.GetStatus(), err)
		}
		return false
	}
	for range 3 {
		if !refused(t.Context()) {
			t.Fatal("21 calls of Watch are open")
		}
	}
	s.awaitCheck(serving) // which has no limit
	s.awaitStat("healthgate.default.grpc_watchers", 20)
	s.awaitStat("healthgate.default.grpc_watch", 23)
	s.awaitLog(`"details":"healthgate_grpc_resource_exhausted"`, settle)
	crowd.leave()
	s.awaitStat("healthgate.default.grpc_watchers", 0)

	// Of many at once, exactly the limit is open.
	crowd = s.newCrowd(10, s.conns(4)...)
	s.await(settle, func() error {
		open, ended := 0, 0
		for _, w := range crowd.watchers {
			if len(w.ended) > 0 {
				ended++
			} else if w.last.Load() == int32(serving) {
				open++
			}
		}
		if open != 20 || ended != 20 {
			return fmt.Errorf("%d are open and %d were refused, want 20 and 20", open, ended)
		}
		return nil
	})
	for _, w := range crowd.watchers {
		if len(w.ended) > 0 {
			if err := <-w.ended; status.Code(err) != codes.ResourceExhausted {
				t.Errorf("a watcher is refused with %v", err)
			}
		}
	}
	s.awaitStat("healthgate.default.grpc_watchers", 20)
}

// grpc-timeout ends a Watch, even if its client does not.
func TestWatchEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	began := time.Now()
	timeouts := map[string]time.Duration{"1S": time.Second, "1500m": 1500 * time.Millisecond, "3000000u": 3 * time.Second, "1n": 0}
	var ends sync.WaitGroup
	for timeout, atLeast := range timeouts {
		w := s.dialWire()
		t.Cleanup(func() { w.Close() })
		ends.Go(func() {
			began := time.Now()
			w.call(1, "Watch", "application/grpc", "grpc-timeout", timeout)
			w.data(1, true, whole)
			got := w.heard(1)
			if took := time.Since(began); got != "4" || took < atLeast {
				t.Errorf("grpc-timeout %s: got %q after %v", timeout, got, took)
			}
		})
	}
	forever := s.newCrowd(1, s.dialGRPC())
	ends.Wait()
	t.Logf("the longest, of 3 s, took %v", time.Since(began))
	forever.await(serving, 1)
	forever.mustHaveSeen(1)
	s.awaitStat("healthgate.default.grpc_watchers", 1)
}
