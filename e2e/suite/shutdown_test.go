package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// balancer is a load balancer: it sends to the Envoys whose probes pass. An Envoy is out after two failures in a row, and in after a
// success.
type balancer struct {
	sites []*site
	conns []*grpc.ClientConn
	in    []atomic.Bool
	next  atomic.Uint64
}

const (
	probeInterval = 200 * time.Millisecond
	// How long a client continues a stream after its Envoy is out: longer than the drain delay in the test.
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

// pick returns an Envoy that is in, or -1.
func (b *balancer) pick() int {
	for range b.sites {
		if i := int(b.next.Add(1) % uint64(len(b.sites))); b.in[i].Load() {
			return i
		}
	}
	return -1
}

// One of two Envoys is drained and ended as by Kubernetes, with open streams and calls, and no call fails. Without streams only the drain
// delay keeps Envoy from ending too early.
func TestShutdownFailsNoCall(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it starts an Envoy")
	for _, streams := range []int{0, 10} {
		t.Run(fmt.Sprint(streams, " streams"), func(t *testing.T) {
			t.Parallel()
			shutDownUnderLoad(t, streams)
		})
	}
}

func shutDownUnderLoad(t *testing.T, streams int) {
	health := withConfig(func(c *testbed.Bootstrap) {
		testbed.PrependRoute(c.VirtualHost(),
			testbed.Parse[*routev3.Route](`{match: {prefix: /grpc.health.v1.Health/}, route: {cluster: service, timeout: 0s}}`))
	})
	sites := []*site{newSite(t, backends(2), health), newSite(t, backends(2), health)}
	for _, s := range sites {
		s.setServing(2)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := &balancedLoad{broken: make(chan error, 100)}
	l.balancer = newBalancer(ctx, &l.probing, sites...)
	sites[0].await(settle, func() error {
		if !l.balancer.in[0].Load() || !l.balancer.in[1].Load() {
			return errors.New("the balancer does not use both Envoys yet")
		}
		return nil
	})
	for range streams {
		l.openStream(ctx, t)
	}
	l.calls = testbed.StartLoad(testbed.Pace{Clients: 16, PerSecond: 200}, func(int) string { return l.call() })
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
	l.streams.Wait()
	l.awaitCalls(sites[1], 1, 100)
	outcome, _ := l.calls.Stop() // a load of our own calls has no error
	for answer, n := range outcome.Answers {
		if answer != through(0) && answer != through(1) {
			t.Errorf("%d calls: %s", n, answer)
		}
	}
	cancel()
	l.probing.Wait()
	close(l.broken)
	for err := range l.broken {
		t.Error(err)
	}
}

// balancedLoad is streams and calls through a balancer.
type balancedLoad struct {
	balancer         *balancer
	calls            *testbed.Load
	probing, streams sync.WaitGroup
	broken           chan error // streams
}

// openStream opens a stream through the first Envoy. The client does not know when the balancer takes that out; it ends the stream a
// while later.
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
	l.streams.Go(func() {
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
				l.broken <- fmt.Errorf("a stream was cut off: %w", err)
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

// through is the answer to a call through an Envoy.
func through(envoy int) string { return fmt.Sprint("through envoy ", envoy) }

// call makes a call through an Envoy that is in.
func (l *balancedLoad) call() string {
	i := l.balancer.pick()
	if i < 0 {
		return "no Envoy is in"
	}
	ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	if _, err := router.Recommend(ctx, l.balancer.conns[i], router.Point{}); err != nil {
		return fmt.Sprintf("through envoy %d: %v", i, err)
	}
	return through(i)
}

// awaitCalls waits until so many more calls went through an Envoy.
func (l *balancedLoad) awaitCalls(s *site, envoy int, calls int64) {
	s.t.Helper()
	before := l.calls.Answers()[through(envoy)]
	s.await(settle, func() error {
		if n := l.calls.Answers()[through(envoy)] - before; n < calls {
			return fmt.Errorf("%d calls went through envoy %d, want %d", n, envoy, calls)
		}
		return nil
	})
}
