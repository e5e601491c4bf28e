package suite

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

func TestSIGTERMUnderLoadEndsEnvoyInOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it ends Envoy"))
	s.setServing(1)
	load := s.probeUntilStopped(16)
	load.awaitAnswers(200, 500, settle)
	if err := s.envoy.Stop(); err != nil {
		t.Errorf("envoy ended with %v on SIGTERM, want 0", err)
	}
	// Probes may find no Envoy, but those that are answered get the right answer.
	if answers, _ := load.end(); len(answers) != 1 {
		t.Errorf("the answers were %v, want only 200", answers)
	}
}

// Two workers, frequent garbage collections, and one in eight probes is cancelled.
func TestFiftyThousandProbesWithCancellationsAndCollections(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEnv("GOGC=10"), func(p *plan) { p.options.Workers = 2 })
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, time.Second)
	const probes, clients = 50_000, 16
	var all [clients]*http.Client
	var random [clients]*rand.Rand
	for i := range clients {
		all[i], random[i] = s.client(protocols[i%2]), rand.New(rand.NewPCG(1, uint64(i)))
	}
	outcome, err := testbed.StartLoad(testbed.Pace{Clients: clients, Requests: probes}, func(i int) string {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		aborts := random[i].IntN(8) == 0
		if aborts {
			time.AfterFunc(time.Duration(random[i].IntN(2000))*time.Microsecond, cancel)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/"), nil)
		if err != nil {
			return err.Error()
		}
		reply, err := all[i].Do(request)
		switch {
		case err == nil:
			reply.Body.Close()
			return strconv.Itoa(reply.StatusCode)
		case aborts:
			return "cancelled"
		}
		return err.Error()
	}).Wait()
	answers := outcome.Answers
	if err != nil || answers["cancelled"] < 100 || answers["200"] < probes/2 || answers["200"]+answers["cancelled"] != probes {
		t.Errorf("the answers were %v, %v", answers, err)
	}
	expect(t, "a probe afterwards", s.probe(s.client("h2")), 200, "ok\n", nil)
	// Go frees unanswered requests, too.
	s.awaitFreed("requests", 2000, func(h testbed.LiveObjects) int { return h.Requests })
}

// A call for a metric panics inside the filter if Envoy has dropped the configuration. The test makes such calls fail.
func TestPanicInTheFilterFailsTheProbe(t *testing.T) {
	t.Parallel()
	needs(t, testbed.LoseMetrics)
	s := newSite(t, alone("it makes the plugin fail"))
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

func TestProbeFailsAfterTheBackendsWereKilled(t *testing.T) {
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
