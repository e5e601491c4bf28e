package suite

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
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

func (w *watcher) take(stream grpc_health_v1.Health_WatchClient) {
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

// newCrowd opens calls of Watch, so many on each connection.
func (s *site) newCrowd(each int, conns ...*grpc.ClientConn) *crowd {
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
				stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, asked("router.Router"))
				if err != nil {
					w.ended <- err
					return
				}
				go w.take(stream)
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
func (c *crowd) await(want grpc_health_v1.HealthCheckResponse_ServingStatus, changes int64) {
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

// mustHaveSeen fails if a watcher got more changes, more than one update without a change in 30 s, or has ended.
func (c *crowd) mustHaveSeen(changes int64) {
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

// mustEnd fails unless each watcher's stream ends with UNAVAILABLE.
func (c *crowd) mustEnd() {
	c.s.t.Helper()
	late := time.After(settle)
	for i, w := range c.watchers {
		select {
		case err := <-w.ended:
			if status.Code(err) != codes.Unavailable {
				c.s.t.Errorf("watcher %d ends with %v", i, err)
			}
		case <-late:
			c.s.t.Fatalf("watcher %d has not ended", i)
		}
	}
}

// turn makes the gate pass or fail, and does not wait for it.
func (s *site) turn(passing bool) {
	s.t.Helper()
	path := map[bool]string{true: "/healthcheck/ok", false: "/healthcheck/fail"}[passing]
	if _, err := s.envoy.Ask(http.MethodPost, path); err != nil {
		s.t.Fatal(err)
	}
}

func statusOf(passing bool) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if passing {
		return serving
	}
	return notServing
}

// Each of 1,000 watchers gets every slow change, and the last of many fast ones.
func TestAThousandWatchersGetEachChange(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService())
	s.setServing(1)
	changes := int64(times(20, 100))
	var before float64
	for round := range times(2, 3) {
		crowd := s.newCrowd(50, s.conns(20)...)
		crowd.await(serving, 1)
		s.awaitStat("healthgate.default.grpc_watchers", 1000)
		began := time.Now()
		for i := range changes {
			s.turn(i%2 == 1)
			crowd.await(statusOf(i%2 == 1), i+2)
		}
		took := time.Since(began)
		crowd.mustHaveSeen(changes + 1)
		for range changes / 2 { // faster than watchers can follow
			s.turn(false)
			s.turn(true)
		}
		s.turn(false)
		crowd.await(notServing, changes+2)
		crowd.mustHaveSeen(2*changes + 2)
		s.turn(true)
		crowd.await(serving, changes+3)
		crowd.leave()
		s.awaitStat("healthgate.default.grpc_watchers", 0)
		after := s.residentMiB()
		t.Logf("round %d: %d changes, each seen by all, in %v; %.1f MiB", round, changes, took, after)
		if round > 0 && after > before+16 {
			t.Errorf("envoy has grown by %.1f MiB", after-before)
		}
		before = after
	}
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
	s.t.Helper()
	slow := &pausing{}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			controlled := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
			if controlled != nil {
				return controlled
			}
			return err
		}}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		slow.Conn = conn
		return slow, err
	}
	conn, err := grpc.NewClient("passthrough:///"+s.envoy.Ingress, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn, slow
}

// While a client does not read, nothing is buffered for its watchers, and all others get their updates. When it reads again, it gets the
// current status.
func TestSlowWatchersDoNotDelayOthers(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withoutTLS(), withSmallBuffers())
	s.setServing(1)
	conn, reader := s.slowClient()
	slow := s.newCrowd(90, conn) // of the 100 streams that a connection may have
	slow.await(serving, 1)
	prompt := s.newCrowd(10, dialPlain(t, s.envoy.Ingress), dialPlain(t, s.envoy.Ingress))
	prompt.await(serving, 1)

	reader.reads.Lock()
	const changes = 80
	for i := range int64(changes) {
		s.turn(i%2 == 1)
		prompt.await(statusOf(i%2 == 1), i+2)
	}
	s.turn(false)
	prompt.await(notServing, changes+2)
	if probe := s.probePlain(); probe != 503 {
		t.Errorf("a probe is answered with %d", probe)
	}
	reader.reads.Unlock()
	// Its answer follows all that is buffered for the connection.
	ctx, cancel := context.WithTimeout(t.Context(), 3*settle)
	defer cancel()
	if reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, asked("")); err != nil || reply.Status != notServing {
		t.Errorf("a slow client's Check: got %v, %v", reply.GetStatus(), err)
	}
	slow.await(notServing, 2)
	var sent int64
	for _, w := range slow.watchers {
		sent += w.changes.Load()
	}
	t.Logf("the slow ones were sent %d of %d changes", sent, 90*(changes+2))
	if sent >= 90*(changes+2) {
		t.Error("each change was buffered for them")
	}
	prompt.mustHaveSeen(changes + 2)
	slow.mustHaveSeen(changes + 2)
	s.turn(true)
	slow.await(serving, 3)
	slow.leave()
	prompt.leave()
	s.awaitStat("healthgate.default.grpc_watchers", 0)
}

// withSmallBuffers limits how much Envoy and the kernel buffer for a client that does not read.
func withSmallBuffers() option {
	return withConfig(func(c *testbed.Bootstrap) {
		c.Patch(c.Listener(), fmt.Sprintf(`{per_connection_buffer_limit_bytes: 4096,
			socket_options: [{level: %d, name: %d, int_value: 4096, state: STATE_PREBIND}]}`, syscall.SOL_SOCKET, syscall.SO_SNDBUF))
	})
}

// A Watch that begins on a connection with full buffers gets nothing until its client reads.
func TestWatchThatStartsOnABlockedConnectionWaits(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), withoutTLS(), withSmallBuffers())
	s.setServing(1)
	conn, reader := s.slowClient()
	early := s.newCrowd(80, conn)
	early.await(serving, 1)
	prompt := s.newCrowd(1, dialPlain(t, s.envoy.Ingress))
	prompt.await(serving, 1)

	reader.reads.Lock()
	const changes = 40
	for i := range int64(changes) {
		s.turn(i%2 == 1)
		prompt.await(statusOf(i%2 == 1), i+2)
	}
	late := s.newCrowd(10, conn)
	s.awaitStat("healthgate.default.grpc_watchers", 91)
	for i := range int64(changes) {
		s.turn(i%2 == 1)
		prompt.await(statusOf(i%2 == 1), changes+i+2)
	}
	s.turn(false)
	prompt.await(notServing, 2*changes+2)
	reader.reads.Unlock()
	late.await(notServing, 1)
	for i, w := range late.watchers {
		if n := w.changes.Load(); n != 1 {
			t.Errorf("late watcher %d was sent %d updates", i, n)
		}
	}
	early.await(notServing, 2)
	s.turn(true)
	late.await(serving, 2)
}

// probePlain returns the status of a probe without TLS on a new connection.
func (s *site) probePlain() int {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.envoy.Ingress)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	status, err := ask(conn, "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

// An update every 30 s prevents idle timeouts. filter/dynamicmodule tests the update itself, with its own clock.
func TestIdleWatchSurvivesTheIdleTimeout(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	if !*long {
		t.Skip("it takes a minute: -long")
	}
	s := newSite(t, withHealthService(), withHCM(`stream_idle_timeout: 45s`))
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	crowd := s.newCrowd(10, s.dialGRPC())
	crowd.await(serving, 1)
	s.await(90*time.Second, func() error {
		for _, w := range crowd.watchers {
			if len(w.ended) > 0 {
				t.Fatalf("an idle watcher has ended after %v: %v", time.Since(crowd.began), <-w.ended)
			}
			if n := w.repeated.Load(); n < 2 {
				return fmt.Errorf("a watcher got %d updates without a change", n)
			}
		}
		return nil
	})
	if took := time.Since(crowd.began); took < 60*time.Second {
		t.Errorf("two updates came within %v", took)
	}
	crowd.mustHaveSeen(1)
}

// The health service answers NOT_SERVING during a drain, also one from the start.
func TestHealthServiceFollowsADrain(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	s := newSite(t, withHealthService(), startedDraining(t))
	s.setServing(1)
	crowd := s.newCrowd(1, s.dialGRPC())
	crowd.await(notServing, 1)
	for i, passing := range []bool{true, false, true} {
		s.post(map[bool]string{true: "/healthcheck/ok", false: "/healthcheck/fail"}[passing])
		crowd.await(statusOf(passing), int64(i)+2)
		if reply, err := s.health().Check(t.Context(), asked("")); err != nil || reply.Status != statusOf(passing) {
			t.Errorf("passing %v: Check got %v, %v", passing, reply.GetStatus(), err)
		}
	}
	if err := s.envoy.Stop(); err != nil {
		t.Error(err)
	}
	crowd.mustEnd()
}
