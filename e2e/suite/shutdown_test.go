package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// lifecycle runs what Kubernetes runs beside an Envoy: healthgate alive, or healthgate drain.
func (s *site) lifecycle(ctx context.Context, command string, env ...string) (string, error) {
	admin := s.envoy.Admin
	if path, unix := strings.CutPrefix(admin, "unix:"); unix {
		admin = "unix://" + path
	}
	cmd := exec.CommandContext(ctx, filepath.Join(testbed.Root(), "build", "healthgate"), command)
	cmd.Env = append(append(os.Environ(), "ADMIN_ADDRESS="+admin, "CONTAINER_LOG=/dev/null"), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// balancer sends to the Envoys whose probes pass, as a load balancer does: one is out after two failures in a row, and in
// after one success.
type balancer struct {
	sites []*site
	conns []*grpc.ClientConn
	in    []atomic.Bool
	next  atomic.Uint64
}

const (
	probeInterval = 200 * time.Millisecond
	// What a client goes on with a stream for, once its Envoy is out: longer than the notice of the test's drain.
	lastWork = 1500 * time.Millisecond
)

func newBalancer(ctx context.Context, running *sync.WaitGroup, sites ...*site) *balancer {
	b := &balancer{sites: sites, in: make([]atomic.Bool, len(sites))}
	for i, s := range sites {
		b.conns = append(b.conns, s.dialGRPC())
		client := s.client("h2")
		running.Go(func() {
			failures := 0
			tick := time.NewTicker(probeInterval)
			defer tick.Stop()
			for ctx.Err() == nil {
				reply, err := s.do(client, http.MethodGet, "/", nil)
				if err == nil && reply.status == 200 {
					failures = 0
					b.in[i].Store(true)
				} else if failures++; failures >= 2 {
					b.in[i].Store(false)
				}
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	return b
}

// pick returns an Envoy to send to, or -1.
func (b *balancer) pick() int {
	for range b.sites {
		if i := int(b.next.Add(1) % uint64(len(b.sites))); b.in[i].Load() {
			return i
		}
	}
	return -1
}

// With streams open and calls flowing, one of two Envoys is drained and ended as Kubernetes does it: not a call fails.
// Without streams there is nothing but the notice that keeps Envoy from ending too early.
func TestShutdownLosesNoCall(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs an Envoy of its own")
	for _, streams := range []int{0, 10} {
		t.Run(fmt.Sprint(streams, " streams"), func(t *testing.T) {
			t.Parallel()
			shutDownUnderLoad(t, streams)
		})
	}
}

func shutDownUnderLoad(t *testing.T, streams int) {
	health := withConfig(func(c *testbed.Config) {
		c.Set(testbed.Routes+".2", map[string]any{
			"match": map[string]any{"prefix": "/grpc.health.v1.Health/"}, "route": map[string]any{"cluster": "service", "timeout": "0s"},
		})
	})
	sites := []*site{newSite(t, backends(2), health), newSite(t, backends(2), health)}
	for _, s := range sites {
		s.setServing(2)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := &balancedLoad{failures: make(chan error, 100)}
	l.balancer = newBalancer(ctx, &l.running, sites...)
	sites[0].await(settle, func() error {
		if !l.balancer.in[0].Load() || !l.balancer.in[1].Load() {
			return errors.New("the balancer has not found both")
		}
		return nil
	})
	for range streams {
		l.openStream(ctx, t)
	}
	l.running.Go(func() { l.call(ctx) })
	l.awaitCalls(sites[0], 0, 100)
	l.awaitCalls(sites[0], 1, 100)

	// What Kubernetes does: preStop, then SIGTERM.
	out, err := sites[0].lifecycle(ctx, "drain", "DRAIN_DELAY=1s", "DRAIN_TIMEOUT=10s")
	if err != nil || !strings.Contains(out, "no request is left") {
		t.Errorf("the drain ended with %v: %s", err, out)
	}
	if l.balancer.in[0].Load() {
		t.Error("the balancer has not taken the drained Envoy out")
	}
	if err := sites[0].envoy.Stop(); err != nil {
		t.Errorf("the drained Envoy ended with %v, want 0", err)
	}
	l.open.Wait()
	l.awaitCalls(sites[1], 1, l.through[1].Load()+100)
	cancel()
	l.running.Wait()
	close(l.failures)
	for err := range l.failures {
		t.Error(err)
	}
}

// balancedLoad is streams and calls by way of a balancer.
type balancedLoad struct {
	balancer      *balancer
	running, open sync.WaitGroup // calls, streams
	through       [2]atomic.Int64
	failures      chan error // the first of them
}

func (l *balancedLoad) fail(err error) {
	select {
	case l.failures <- err:
	default:
	}
}

// openStream opens a stream through the first Envoy. The balancer tells nobody when it takes that out; the client comes to its
// own end a while after.
func (l *balancedLoad) openStream(ctx context.Context, t *testing.T) {
	t.Helper()
	streamCtx, end := context.WithCancel(ctx)
	stream, err := grpc_health_v1.NewHealthClient(l.balancer.conns[0]).Watch(streamCtx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	l.open.Go(func() {
		defer end()
		broken := make(chan error, 1)
		go func() {
			_, err := stream.Recv()
			broken <- err
		}()
		until := time.Time{}
		for until.IsZero() || time.Now().Before(until) {
			if until.IsZero() && !l.balancer.in[0].Load() {
				until = time.Now().Add(lastWork)
			}
			select {
			case err := <-broken:
				l.fail(fmt.Errorf("a stream was cut off: %w", err))
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

// call makes 200 calls a second, until ctx ends.
func (l *balancedLoad) call(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		i := l.balancer.pick()
		if i < 0 {
			l.fail(errors.New("no Envoy is in"))
			continue
		}
		l.running.Go(func() {
			callCtx, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer done()
			request := &router.RecommendRequest{Points: []*router.Point{{}}}
			if _, err := router.NewRouterClient(l.balancer.conns[i]).Recommend(callCtx, request); err != nil {
				l.fail(fmt.Errorf("a call through envoy %d: %w", i, err))
			}
			l.through[i].Add(1)
		})
	}
}

// awaitCalls waits until so many calls went through an Envoy.
func (l *balancedLoad) awaitCalls(s *site, envoy int, calls int64) {
	s.t.Helper()
	s.await(settle, func() error {
		if n := l.through[envoy].Load(); n < calls {
			return fmt.Errorf("%d calls went through envoy %d, want %d", n, envoy, calls)
		}
		return nil
	})
}

func TestDrainCutsOffWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	conn := s.dialTLS(t.Context(), "http/1.1")
	send(t, conn, "POST /router.Router/Recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\ncontent-length: 10\r\n\r\nhalf")
	s.await(settle, func() error {
		if n := s.stats("http.ingress.downstream_rq_active")["http.ingress.downstream_rq_active"]; n != 1 {
			return fmt.Errorf("%d requests are active", n)
		}
		return nil
	})
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=1s")
	if err != nil || !strings.Contains(out, "1 request is left after the timeout of 1s") {
		t.Errorf("the drain ended with %v: %s", err, out)
	}
	expect(t, "the gate", s.probe(s.client("h2")), 503, "unavailable\n", map[string]string{"x-envoy-immediate-health-check-fail": "true"})
}

// Liveness asks nothing about the backends: an Envoy whose backends are all down must not be restarted.
func TestAliveWhateverTheBackendsSay(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it ends Envoy"))
	client := s.client("h2")
	for _, serving := range []int{1, 0} {
		s.setServing(serving)
		s.awaitProbe(client, map[int]int{1: 200, 0: 503}[serving], time.Second)
		if out, err := s.lifecycle(t.Context(), "alive"); err != nil {
			t.Errorf("with %d backends it is not alive: %v: %s", serving, err, out)
		}
	}
	s.post("/healthcheck/fail")
	if out, err := s.lifecycle(t.Context(), "alive"); err != nil {
		t.Errorf("while draining it is not alive: %v: %s", err, out)
	}
	t.Run("not while the main thread hangs", func(t *testing.T) {
		s := s.in(t)
		hung := s.hang(8)
		s.await(settle, func() error {
			if _, err := s.lifecycle(t.Context(), "alive"); err == nil {
				return errors.New("it is alive though its main thread hangs")
			}
			return nil
		})
		if err := <-hung; err != nil {
			t.Fatal(err)
		}
	})
	s.envoy.Kill()
	if _, err := s.lifecycle(t.Context(), "alive"); err == nil {
		t.Error("it is alive though it has gone")
	}
}
