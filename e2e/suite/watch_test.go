package suite

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

var long = flag.Bool("long", false, "do what takes minutes as often as docs/failure-modes.md says")

// times returns the first number, or the second with -long.
func times(seldom, often int) int {
	if *long {
		return often
	}
	return seldom
}

// watcher is a call of Watch with the updates that it got.
type watcher struct {
	last     atomic.Int32 // the status; -1 before the first
	changes  atomic.Int64 // the first among them
	repeated atomic.Int64 // updates without a change
	ended    chan error
}

func (w *watcher) receive(stream grpc_health_v1.Health_WatchClient) {
	for {
		reply, err := stream.Recv()
		if err != nil {
			w.ended <- err
			return
		}
		// No other goroutine writes them.
		if w.last.Swap(int32(reply.Status)) == int32(reply.Status) {
			w.repeated.Add(1)
		} else {
			w.changes.Add(1)
		}
	}
}

// crowd is many watchers.
type crowd struct {
	s        *site
	watchers []*watcher
	leave    context.CancelFunc
	began    time.Time
}

// newCrowd opens calls of Watch of router.Router, so many on each connection.
func (s *site) newCrowd(each int, conns ...*grpc.ClientConn) *crowd {
	s.t.Helper()
	return s.newCrowdOf("router.Router", each, conns...)
}

func (s *site) newCrowdOf(service string, each int, conns ...*grpc.ClientConn) *crowd {
	s.t.Helper()
	ctx, leave := context.WithCancel(s.t.Context())
	c := &crowd{s: s, leave: leave, began: time.Now()}
	s.t.Cleanup(leave)
	var opening sync.WaitGroup
	for _, conn := range conns {
		for range each {
			w := &watcher{ended: make(chan error, 1)}
			w.last.Store(-1)
			c.watchers = append(c.watchers, w)
			opening.Go(func() {
				stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, asked(service))
				if err != nil {
					w.ended <- err
					return
				}
				go w.receive(stream)
			})
		}
	}
	opening.Wait()
	return c
}

// conns opens n connections.
func (s *site) conns(n int) (all []*grpc.ClientConn) {
	for range n {
		all = append(all, s.dialGRPC())
	}
	return all
}

// await waits until a status is the last that each watcher got, after at least so many changes.
func (c *crowd) await(want servingStatus, changes int64) {
	c.s.t.Helper()
	c.s.await(3*settle, func() error {
		for i, w := range c.watchers {
			if got, n := w.last.Load(), w.changes.Load(); got != int32(want) || n < changes {
				return fmt.Errorf("watcher %d of %d was sent %d after %d changes, want %v after %d", i, len(c.watchers), got, n, want, changes)
			}
		}
		return nil
	})
}

// first waits until a status is the first that each watcher got, and returns the crowd.
func (c *crowd) first(want servingStatus) *crowd {
	c.s.t.Helper()
	c.await(want, 1)
	return c
}

// ended returns how many streams have ended.
func (c *crowd) ended() (n int) {
	for _, w := range c.watchers {
		n += len(w.ended)
	}
	return n
}

// mustHaveSeenAtMost fails if a watcher got more changes, more than one update without a change in 30 s, or has ended.
func (c *crowd) mustHaveSeenAtMost(changes int64) {
	c.s.t.Helper()
	repeats := int64(time.Since(c.began) / (30 * time.Second))
	for i, w := range c.watchers {
		if n, r := w.changes.Load(), w.repeated.Load(); n > changes || r > repeats {
			c.s.t.Fatalf("watcher %d was sent %d changes and %d repeats, of %d and %d", i, n, r, changes, repeats)
		}
		if len(w.ended) > 0 {
			c.s.t.Fatalf("watcher %d has ended: %v", i, <-w.ended)
		}
	}
}

// mustStay fails if a watcher ends within three seconds more, in which one that is outdated would.
func (c *crowd) mustStay() {
	c.s.t.Helper()
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		c.mustHaveSeenAtMost(math.MaxInt64)
	}
}

// mustEnd fails unless each watcher's stream ends with UNAVAILABLE.
func (c *crowd) mustEnd() {
	c.s.t.Helper()
	c.s.await(settle, func() error {
		if n := c.ended(); n < len(c.watchers) {
			return fmt.Errorf("%d of %d watchers have ended", n, len(c.watchers))
		}
		return nil
	})
	c.mustHaveEndedWith(codes.Unavailable)
}

// mustHaveEndedWith fails if a stream has ended with another code.
func (c *crowd) mustHaveEndedWith(code codes.Code) {
	c.s.t.Helper()
	for i, w := range c.watchers {
		select {
		case err := <-w.ended:
			if status.Code(err) != code {
				c.s.t.Errorf("watcher %d ends with %v", i, err)
			}
		default:
		}
	}
}

// mustLeave ends all calls, after which Envoy has none of any crowd.
func (c *crowd) mustLeave() {
	c.s.t.Helper()
	c.leave()
	c.s.awaitStat("healthgate.default.grpc_watchers", 0)
}

// setPassing makes the gate pass or fail, and does not wait for it.
func (s *site) setPassing(passing bool) {
	s.t.Helper()
	path := map[bool]string{true: "/healthcheck/ok", false: "/healthcheck/fail"}[passing]
	_, err := s.envoy.Ask(http.MethodPost, path)
	mustSucceed(s.t, err)
}

// change makes the gate fail and pass in turn, so many times. The crowd, which has seen some changes before, must get each.
func (c *crowd) change(changes, seen int64) {
	c.s.t.Helper()
	for i := range changes {
		c.s.setPassing(i%2 == 1)
		c.await(statusOf(i%2 == 1), seen+i+1)
	}
}

func TestWatchersGetChangesAndTheEndOfEnvoy(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t)
	conns := s.conns(4)
	s.newCrowd(50, conns...).first(serving).mustLeave()
	crowd := s.newCrowd(50, conns...).first(serving)
	ofUnknown := s.newCrowdOf("unknown", 1, s.dialGRPC()).first(unknown)
	s.awaitStats("healthgate.default.", map[string]uint64{"grpc_watchers": 201, "grpc_watch": 401})
	for i := range 4 {
		s.setServing(i % 2)
		crowd.await(statusOf(i%2 == 1), int64(i)+2)
	}
	crowd.mustHaveSeenAtMost(5)
	s.mustEndInOrder()
	crowd.mustEnd()
	ofUnknown.mustEnd()
}

// grpc_max_watchers is exactly the number of calls of Watch that can be open.
func TestWatchersAreLimited(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t, withConfig(func(c *testbed.Bootstrap) { c.SetGateKey("grpc_max_watchers", 20) }))
	crowd := s.newCrowd(5, s.conns(4)...).first(serving)
	refused := s.newCrowd(3, s.dialGRPC())
	s.awaitCount("calls are refused", 3, refused.ended)
	refused.mustHaveEndedWith(codes.ResourceExhausted)
	mustCheck(t, "without a limit", s.health(), serving)
	s.awaitStats("healthgate.default.", map[string]uint64{"grpc_watchers": 20, "grpc_watch": 23})
	s.awaitDetails("healthgate_grpc_resource_exhausted")
	crowd.mustLeave()

	// Of many at once, exactly the limit is open.
	crowd = s.newCrowd(10, s.conns(4)...)
	s.await(settle, func() error {
		open := 0
		for _, w := range crowd.watchers {
			if len(w.ended) == 0 && w.last.Load() == int32(serving) {
				open++
			}
		}
		if ended := crowd.ended(); open != 20 || ended != 20 {
			return fmt.Errorf("%d are open and %d were refused, want 20 and 20", open, ended)
		}
		return nil
	})
	crowd.mustHaveEndedWith(codes.ResourceExhausted)
	s.awaitStat("healthgate.default.grpc_watchers", 20)
}

// grpc-timeout ends a Watch, even if its client does not.
func TestWatchEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t)
	timeouts := map[string]time.Duration{"1S": time.Second, "1500m": 1500 * time.Millisecond, "3000000u": 3 * time.Second, "1n": 0}
	var ends sync.WaitGroup
	for timeout, atLeast := range timeouts {
		w := s.mustDialWire()
		t.Cleanup(func() { w.Close() })
		ends.Go(func() {
			began := time.Now()
			w.call(1, "Watch", "application/grpc", "grpc-timeout", timeout)
			w.data(1, true, whole)
			got := w.outcome(1)
			if took := time.Since(began); got != "4" || took < atLeast {
				t.Errorf("grpc-timeout %s: got %q after %v", timeout, got, took)
			}
		})
	}
	forever := s.newCrowd(1, s.dialGRPC())
	ends.Wait()
	forever.await(serving, 1)
	forever.mustHaveSeenAtMost(1)
	s.awaitStat("healthgate.default.grpc_watchers", 1)
}

// Each of 1,000 watchers gets every slow change, and the last of many fast ones.
func TestAThousandWatchersGetEachChange(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t)
	changes := int64(times(20, 100))
	// The first round is a warm-up.
	s.mustNotGrow(16*float64(times(1, 2)), 1, times(1, 2), func(int) {
		crowd := s.newCrowd(50, s.conns(20)...).first(serving)
		s.awaitStat("healthgate.default.grpc_watchers", 1000)
		crowd.change(changes, 1)
		crowd.mustHaveSeenAtMost(changes + 1)
		for range changes / 2 { // faster than watchers can follow
			s.setPassing(false)
			s.setPassing(true)
		}
		s.setPassing(false)
		crowd.await(notServing, changes+2)
		crowd.mustHaveSeenAtMost(2*changes + 2)
		s.setPassing(true)
		crowd.await(serving, changes+3)
		crowd.mustLeave()
	})
}

// pausing is a connection on which a client can stop reading.
type pausing struct {
	net.Conn
	reads sync.Mutex // locked while it is stopped; a read that waits already still gets the next bytes
}

func (p *pausing) Read(b []byte) (int, error) {
	p.reads.Lock()
	p.reads.Unlock() //nolint:staticcheck // it waits, and guards nothing
	return p.Conn.Read(b)
}

// slowClient opens a connection with a small receive buffer, whose reading can be stopped.
func (s *site) slowClient() (*grpc.ClientConn, *pausing) {
	slow := &pausing{}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlled := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		if controlled != nil {
			return controlled
		}
		return err
	}}
	return s.dialGRPC(grpc.WithContextDialer(func(ctx context.Context, address string) (_ net.Conn, err error) {
		slow.Conn, err = dialer.DialContext(ctx, "tcp", address)
		return slow, err
	})), slow
}

// While a client does not read, nothing is buffered for its watchers, nor for those that begin meanwhile, and all others get their
// updates. When it reads again, it gets the current status.
func TestSlowWatchersDoNotDelayOthers(t *testing.T) {
	t.Parallel()
	// Envoy and the kernel buffer little for a client that does not read.
	s := newHealthSite(t, withoutTLS(), withConfig(func(c *testbed.Bootstrap) {
		c.Patch(c.Listener(), fmt.Sprintf(`{per_connection_buffer_limit_bytes: 4096,
			socket_options: [{level: %d, name: %d, int_value: 4096, state: STATE_PREBIND}]}`, syscall.SOL_SOCKET, syscall.SO_SNDBUF))
	}))
	conn, reader := s.slowClient()
	slow := s.newCrowd(80, conn).first(serving) // of the 100 streams that a connection may have
	prompt := s.newCrowd(10, s.conns(2)...).first(serving)

	reader.reads.Lock()
	const changes = 40
	prompt.change(changes, 1)
	late := s.newCrowd(10, conn)
	s.awaitStat("healthgate.default.grpc_watchers", 110)
	prompt.change(changes, changes+1)
	s.setPassing(false)
	prompt.await(notServing, 2*changes+2)
	expect(t, "a probe", s.path("/"), 503, "unavailable\n", nil)
	reader.reads.Unlock()
	// Its answer follows all that is buffered for the connection.
	mustCheck(t, "a slow client", grpc_health_v1.NewHealthClient(conn), notServing)
	slow.await(notServing, 2)
	late.await(notServing, 1)
	late.mustHaveSeenAtMost(1)
	var sent int64
	for _, w := range slow.watchers {
		sent += w.changes.Load()
	}
	t.Logf("the slow ones were sent %d of %d changes", sent, 80*(2*changes+2))
	if sent >= 80*(2*changes+2) {
		t.Error("each change was buffered for them")
	}
	prompt.mustHaveSeenAtMost(2*changes + 2)
	slow.mustHaveSeenAtMost(2*changes + 2)
	s.setPassing(true)
	slow.await(serving, 3)
	late.await(serving, 2)
	slow.leave()
	late.leave()
	prompt.mustLeave()
}

// An update every 30 s prevents idle timeouts. filter/dynamicmodule tests the update itself, with its own clock.
func TestIdleWatchSurvivesTheIdleTimeout(t *testing.T) {
	t.Parallel()
	needs(t, testbed.GRPC)
	skipWithRunningEnvoy(t, "it changes the configuration")
	if !*long {
		t.Skip("it takes a minute: -long")
	}
	s := newHealthSite(t, withHCM(`stream_idle_timeout: 45s`))
	crowd := s.newCrowd(10, s.dialGRPC()).first(serving)
	s.await(90*time.Second, func() error {
		crowd.mustHaveSeenAtMost(1)
		for _, w := range crowd.watchers {
			if n := w.repeated.Load(); n < 2 {
				return fmt.Errorf("a watcher got %d updates without a change", n)
			}
		}
		return nil
	})
	if took := time.Since(crowd.began); took < 60*time.Second {
		t.Errorf("two updates came within %v", took)
	}
}

// overrideHealthRoute overrides the gate on the health service's route; "" changes nothing.
func overrideHealthRoute(host *routev3.VirtualHost, gate string) {
	for _, route := range host.Routes {
		if route.Name == "health" && gate != "" {
			route.TypedPerFilterConfig = gateOverride(gate)
		}
	}
}

// overrideHealth makes RDS override the gate on the health service's route; "" removes the override.
func (s *site) overrideHealth(gate string) {
	s.t.Helper()
	s.changeRoutes(func(host *routev3.VirtualHost) { overrideHealthRoute(host, gate) })
}

// A Watch ends when a call shows that another configuration answers now, so that Check and Watch agree again.
func TestWatchEndsWithItsOverride(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t, withRDS())
	crowd := s.newCrowd(3, s.conns(2)...).first(serving)
	const missing, either = `{"clusters": ["missing"]}`, `{"clusters": ["service", "missing"], "require": "any"}`
	for _, step := range []struct {
		override string
		want     servingStatus
	}{
		{missing, notServing}, // added
		{`{"clusters": ["service"], "drain": "ignore"}`, serving}, // changed
		{missing, notServing}, // changed back
		{"", serving},         // removed
		{missing, notServing}, // brought back
		{either, serving},
	} {
		s.overrideHealth(step.override)
		s.awaitCheck(step.want, codes.OK)
		crowd.mustEnd()
		crowd = s.newCrowd(3, s.conns(2)...).first(step.want)
	}
	s.awaitStat("healthgate.default.grpc_watchers", 6)

	// After an update of other routes Envoy builds an unchanged override again, and its watchers stay.
	for range 3 {
		updates := s.stat("http.ingress.rds.routes.update_success")
		s.changeRoutes(func(host *routev3.VirtualHost) {
			overrideHealthRoute(host, either)
			addRoute(host, fmt.Sprint("/other", updates), `{"path": "/other"}`)
		})
		s.awaitStat("http.ingress.rds.routes.update_success", updates+1)
		s.awaitCheck(serving, codes.OK)
		crowd.mustStay()
	}
	s.setPassing(false)
	crowd.await(notServing, 2)
	s.setPassing(true)
	crowd.await(serving, 3)

	// An override under which the gate does not answer calls.
	s.overrideHealth(`{"grpc_services": []}`)
	s.awaitCheck(0, codes.Unavailable)
	crowd.mustEnd()
	s.awaitStat("healthgate.default.grpc_watchers", 0)
}

// Two routes of a host have different overrides. A Check by one is no sign that the other has changed.
func TestOverridesOfTwoRoutesKeepEachOthersWatchers(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t, withConfig(func(c *testbed.Bootstrap) {
		route := healthRoute()
		testbed.Patch(route, `match: {headers: [{name: user-agent, string_match: {prefix: other}}]}`)
		route.TypedPerFilterConfig = gateOverride(`{"clusters": ["missing"]}`)
		testbed.PrependRoute(c.VirtualHost(), route)
	}))
	sides := []struct {
		conn  *grpc.ClientConn
		want  servingStatus
		crowd *crowd
	}{{s.dialGRPC(), serving, nil}, {s.dialGRPC(grpc.WithUserAgent("other")), notServing, nil}}
	// Clients reconnect after streams that end at first. Then both stay longer than outdated ones would.
	opened := 0
	for last := time.Now(); time.Since(last) < 5*time.Second; {
		for i := range sides {
			side := &sides[i]
			if side.crowd == nil || side.crowd.ended() > 0 {
				side.crowd = s.newCrowd(1, side.conn)
				opened, last = opened+1, time.Now()
			}
			reply, err := grpc_health_v1.NewHealthClient(side.conn).Check(t.Context(), asked(""))
			if err != nil || reply.Status != side.want {
				t.Fatalf("Check got %v, %v, want %v", reply.GetStatus(), err, side.want)
			}
		}
		if opened > 8 {
			t.Fatalf("watchers were ended %d times", opened-2)
		}
	}
	t.Logf("%d watchers were ended at first", opened-2)
}

// A Watch ends when its filter's configuration is replaced, by ECDS on a connection that stays or by LDS on one that drains. Its client
// reconnects to the new one, and Check and Watch agree.
func TestWatchEndsWithItsFiltersConfiguration(t *testing.T) {
	needs(t, testbed.GRPC)
	type update func(cluster string)
	subtests(t, map[string]func(t *testing.T) (*site, update){
		"ECDS": func(t *testing.T) (*site, update) {
			s, p := prepare(t, withHealthService())
			update := func(cluster string) {
				next := s.config.Clone()
				next.SetGateKey("clusters", []any{cluster})
				s.write("ecds", &corev3.TypedExtensionConfig{Name: "healthgate", TypedConfig: next.For(variant).GateFilter().GetTypedConfig()})
			}
			update("service")
			p.config.Patch(p.config.GateFilter(), `config_discovery: {config_source: `+s.fromFile("ecds")+`,
				type_urls: [type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter]}`)
			p.config.Node = node()
			s.start(p)
			return s, update
		},
		"LDS": func(t *testing.T) (*site, update) {
			s := newSite(t, withHealthService(), withLDS())
			return s, func(cluster string) {
				s.mustReload(`{"clusters": ["`+cluster+`"], "grpc_services": ["router.Router"]}`, func(c *testbed.Bootstrap) {
					testbed.PrependRoute(c.VirtualHost(), healthRoute())
				})
			}
		},
	}, func(t *testing.T, start func(t *testing.T) (*site, update)) {
		s, update := start(t)
		s.setServing(1)
		crowd := s.newCrowd(3, s.conns(2)...).first(serving)
		for _, cluster := range []string{"missing", "service", "missing", "service"} {
			update(cluster)
			crowd.mustEnd() // no call is needed
			crowd = s.newCrowd(3, s.conns(2)...).first(statusOf(cluster == "service"))
			s.awaitCheck(statusOf(cluster == "service"), codes.OK)
			crowd.mustStay()
		}
	})
}
