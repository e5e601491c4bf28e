package suite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"healthgate/e2e/testbed"
)

func dialPlain(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestSIGTERMUnderLoadEndsEnvoyWell(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it ends Envoy"))
	s.setServing(1)
	load := s.probeUntilStopped(16)
	s.await(settle, func() error {
		if load.sofar(200) < 500 {
			return errors.New("the load is not there yet")
		}
		return nil
	})
	if err := s.envoy.Stop(); err != nil {
		t.Errorf("envoy ended with %v on SIGTERM, want 0", err)
	}
	// A client may find nobody there; whoever was answered was answered well.
	if answers, _ := load.end(); len(answers) != 1 {
		t.Errorf("the answers were %v, want 200 alone", answers)
	}
}

// Two workers, a collection at every few probes, and clients of which one in eight hangs up at some point.
func TestFiftyThousandProbesWithAbortsAndGarbage(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEnv("GOGC=10"), func(p *plan) { p.options.Workers = 2 })
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, time.Second)
	const probes, clients = 50_000, 16
	var load sync.WaitGroup
	var answered, aborted atomic.Int64
	failures := make(chan error, clients)
	for i := range clients {
		client := s.client(protocols[i%2])
		random := rand.New(rand.NewPCG(1, uint64(i)))
		load.Go(func() {
			for range probes / clients {
				abort := random.IntN(8) == 0
				ctx, cancel := context.WithCancel(t.Context())
				if abort {
					time.AfterFunc(time.Duration(random.IntN(2000))*time.Microsecond, cancel)
				}
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.envoy.Ingress+"/", nil)
				if err != nil {
					failures <- err
					cancel()
					return
				}
				reply, err := client.Do(request)
				switch {
				case err == nil && reply.StatusCode != 200:
					err = fmt.Errorf("a probe was answered with %d", reply.StatusCode)
				case err == nil:
					reply.Body.Close()
					answered.Add(1)
				case abort:
					aborted.Add(1)
					err = nil
				}
				cancel()
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	load.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if aborted.Load() < 100 || answered.Load() < probes/2 {
		t.Errorf("%d answered and %d aborted, too few to show anything", answered.Load(), aborted.Load())
	}
	expect(t, "a probe afterwards", s.probe(s.client("h2")), 200, "ok\n", nil)
	// What is not answered is finalized by the collector too.
	s.awaitFreed("requests", 2000, func(h testbed.Held) int { return h.Requests })
}

// A metric call that fails as it does when Envoy has dropped the configuration panics in the SDK, inside the filter.
func TestPanicInTheFilterIsA503AndEnvoyLives(t *testing.T) {
	t.Parallel()
	needs(t, testbed.LosingStats)
	s := newSite(t, alone("it breaks the plugin"))
	client := s.client("h2")
	s.setServing(1)
	expect(t, "before", s.awaitProbe(client, 200, time.Second), 200, "ok\n", nil)
	s.loseMetrics(true)
	for range 10 {
		expect(t, "a probe that panics", s.probe(client), 503, "unavailable\n", map[string]string{"cache-control": "no-store"})
	}
	s.awaitLog(`"details":"healthgate_error"`, settle)
	s.awaitLog("healthgate: panic", settle)
	s.loseMetrics(false)
	expect(t, "after", s.probe(client), 200, "ok\n", nil)
	if err := s.envoy.Stop(); err != nil {
		t.Errorf("envoy ended with %v, want 0", err)
	}
}

func TestBackendsThatDieAreNoticed(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2), alone("it ends the backends"))
	client := s.client("http/1.1")
	s.setServing(2)
	s.awaitProbe(client, 200, time.Second)
	for _, backend := range s.backends {
		backend.Kill()
	}
	s.awaitHealthy(map[*testbed.Backend]bool{s.backends[0]: false, s.backends[1]: false})
	s.awaitProbe(client, 503, time.Second)
	if err := syscall.Kill(s.envoy.Pid(), 0); err != nil {
		t.Errorf("envoy: %v", err)
	}
}
