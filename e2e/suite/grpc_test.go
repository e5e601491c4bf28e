package suite

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // the clients' own checking
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// healthRoute is the route on which the filter answers grpc.health.v1.Health.
var healthRoute = map[string]any{
	"match":           map[string]any{"prefix": "/grpc.health.v1.Health/"},
	"direct_response": map[string]any{"status": 503},
	"typed_per_filter_config": map[string]any{
		"healthgate": map[string]any{"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": map[string]any{}},
	},
}

// withHealthService makes the filter answer grpc.health.v1.Health, for the service and for all.
func withHealthService() option {
	return withConfig(func(c *testbed.Config) {
		routes := c.Get(testbed.Routes).([]any)
		c.Set(testbed.Routes, slices.Insert(routes, 1, testbed.Tree(healthRoute).Clone().Get("")))
		c.Set(testbed.PluginConfig+".grpc_services", []any{"router.Router"})
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
	if err := s.dialGRPC().Invoke(t.Context(), "/grpc.health.v1.Health/Other", asked(""), &grpc_health_v1.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("another method: got %v", err)
	}
	if got := s.stats("healthgate.default.grpc_")["healthgate.default.grpc_check"]; got != 10 {
		t.Errorf("grpc_check is %d, want 10", got)
	}
}

func TestWatchersSeeChangesAndTheEndOfEnvoy(t *testing.T) {
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

// A watcher's stream ends with its client, and nothing of it stays.
func TestWatchersThatGoLeaveNothing(t *testing.T) {
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
	if got := s.stats("healthgate.default.grpc_")["healthgate.default.grpc_watch"]; got != 250 {
		t.Errorf("grpc_watch is %d, want 250", got)
	}
}

// grpc-go's own health checking, in its load balancer, takes the Envoy out and back in.
func TestClientsOwnHealthCheckingGoesByTheGate(t *testing.T) {
	t.Parallel()
	needs(t, testbed.GRPC)
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

// overrideHealth makes RDS override the filter's configuration on the health service's route; "" removes the override.
func (s *site) overrideHealth(plugin string) {
	s.t.Helper()
	routes := s.routes.Clone()
	if plugin != "" {
		routes.Set("virtual_hosts.0.routes.1.typed_per_filter_config.healthgate", forRoute(plugin))
	}
	s.writeRoutes(routes)
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

// A Watch ends once a call shows that another configuration answers in its place, and Check and Watch agree again.
func TestWatchEndsWithItsOverride(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withRDS())
	s.setServing(1)
	var crowd *crowd
	for i, step := range []struct {
		override string
		want     grpc_health_v1.HealthCheckResponse_ServingStatus
	}{
		{"", serving},
		{`{"clusters": ["nobody"]}`, notServing},                  // added
		{`{"clusters": ["service"], "drain": "ignore"}`, serving}, // changed
		{`{"clusters": ["nobody"]}`, notServing},                  // changed back
		{"", serving},                                             // removed
		{`{"clusters": ["nobody"]}`, notServing},                  // brought back
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

// An update of the routes that leaves the override as it is makes it anew. Its watchers see nothing of that.
func TestWatchOutlastsUpdatesOfOtherRoutes(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withRDS())
	s.setServing(1)
	const override = `{"clusters": ["service", "nobody"], "require": "any"}`
	s.overrideHealth(override)
	s.overrideRoute("/other", `{"path": "/other"}`) // which takes the health service's away
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
		updates := s.stats("http.ingress.rds.routes.update_success")["http.ingress.rds.routes.update_success"]
		routes := s.routes.Clone()
		routes.Set("virtual_hosts.0.routes.1.typed_per_filter_config.healthgate", forRoute(override))
		addRoute(routes, "virtual_hosts.0.routes", fmt.Sprint("/other", updates), `{"path": "/other"}`)
		s.writeRoutes(routes)
		s.awaitStat("http.ingress.rds.routes.update_success", updates+1)
		s.awaitCheck(serving)
		crowd.mustStay()
	}
	s.turn(false)
	crowd.await(notServing, 2)
}

// Two routes of one host have different overrides. A Check of the one is no sign that the other has changed.
func TestOverridesBesideEachOtherLeaveEachOthersWatchers(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withConfig(func(c *testbed.Config) {
		route := testbed.Tree(healthRoute).Clone()
		route.Set("match.headers", []any{map[string]any{"name": "x-side", "string_match": map[string]any{"exact": "other"}}})
		route.Set("typed_per_filter_config.healthgate", forRoute(`{"clusters": ["nobody"]}`))
		c.Set(testbed.Routes, slices.Insert(c.Get(testbed.Routes).([]any), 0, route.Get("")))
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
	// Clients whose calls are ended at first come back. Then both stay, for longer than an outdated one would.
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

// grpc_max_watchers bounds how many calls of Watch there are at a time, exactly.
func TestWatchersAreLimited(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs a configuration of its own")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withConfig(func(c *testbed.Config) { c.Set(testbed.PluginConfig+".grpc_max_watchers", 20) }))
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
	s.awaitCheck(serving) // of which there is no limit
	s.awaitStat("healthgate.default.grpc_watchers", 20)
	s.awaitStat("healthgate.default.grpc_watch", 23)
	s.awaitLog(`"details":"healthgate_grpc_resource_exhausted"`, settle)
	crowd.leave()
	s.awaitStat("healthgate.default.grpc_watchers", 0)

	// Many at once: as many as there is room for are open, and no more.
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

// grpc-timeout ends a Watch, whose client may have forgotten it.
func TestWatchEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs a configuration of its own")
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
