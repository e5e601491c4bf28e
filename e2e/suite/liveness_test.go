package suite

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"healthgate/e2e/testbed"
)

// alive probes like the kubelet with the module component's livenessProbe: 2xx and 3xx pass.
func (s *site) alive() error {
	s.t.Helper()
	probe := envoysDeployment(s.t, "module").Spec.Template.Spec.Containers[0].LivenessProbe
	if reply := s.plain(probe.HTTPGet.Port.StrVal, http.MethodGet, probe.HTTPGet.Path); reply.status < 200 || reply.status >= 400 {
		return fmt.Errorf("liveness is answered with %d %q", reply.status, reply.body)
	}
	return nil
}

// The shipped configuration's liveness passes in each state in which readiness fails, and in some more.
func TestLivenessIgnoresClustersDrainsAndConnectionLimits(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var clusters []*clusterv3.Cluster
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")), backends(2), clustersByCDS(&clusters),
		withConfig(func(c *testbed.Bootstrap) { c.ConnectionLimit().MaxActiveDownstreamConnections = 2 }))
	client := s.client("h2")
	s.setServing(2)
	for _, state := range []struct {
		name  string
		enter func()
		ready int // the answer of the gate; 0 if no probe can reach it
	}{
		{"a backend is down", func() { s.setServing(1) }, 200},
		{"all backends are down", func() { s.setServing(0) }, 503},
		{"the cluster is removed", func() { s.writeClusters() }, 503},
		{"the cluster is back", func() { s.writeClusters(clusters...); s.setServing(2) }, 200},
		{"the connection limit is reached", func() { s.dialTLS(t.Context(), "h2") }, 0},
		{"it drains", func() { s.post("/healthcheck/fail") }, 0},
		{"its connections are closed", func() { s.post("/drain_listeners?graceful&skip_exit") }, 0},
	} {
		state.enter()
		if state.ready != 0 {
			s.awaitProbe(client, state.ready, settle)
		}
		if err := s.alive(); err != nil {
			t.Errorf("%s: %v", state.name, err)
		}
	}
}

// The liveness gate reads no stats, so excluding all of them does not fail it.
func TestLivenessNeedsNoStats(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")), withoutStats())
	s.awaitProbe(s.client("h2"), 503, settle)
	if err := s.alive(); err != nil {
		t.Error(err)
	}
}

// An Envoy that has reached its connection limit is busy, and must not be restarted: `healthgate alive` passes.
func TestAliveAtTheConnectionLimit(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	s := newSite(t, withConfig(func(c *testbed.Bootstrap) { c.ConnectionLimit().MaxActiveDownstreamConnections = 1 }))
	s.dialTLS(t.Context(), "h2")
	s.await(settle, func() error {
		if s.refusesConnections() {
			return nil
		}
		return errors.New("it takes connections beyond its limit")
	})
	if out, err := s.lifecycle(t.Context(), "alive"); err != nil {
		t.Errorf("it is not alive: %v: %s", err, out)
	}
}

// refusesConnections reports whether the listener closes a new connection during its handshake.
func (s *site) refusesConnections() bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), settle)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: s.cert.Pool, ServerName: "localhost"}}
	conn, err := dialer.DialContext(ctx, "tcp", s.envoy.Ingress)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

func TestLivenessFailsWhileTheMainThreadHangs(t *testing.T) {
	t.Parallel()
	needs(t, testbed.HangMainThread, testbed.Liveness)
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")))
	s.setServing(1)
	if err := s.alive(); err != nil {
		t.Fatal(err)
	}
	address := s.at("alive").envoy.Ingress // admin does not answer while it hangs
	ask := func() (int, error) {
		reply, err := (&http.Client{Timeout: settle, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + address)
		if err != nil {
			return 0, err
		}
		return reply.StatusCode, reply.Body.Close()
	}
	awaitStatus := func(want int) {
		s.await(settle, func() error {
			if got, err := ask(); err != nil || got != want {
				return fmt.Errorf("liveness is answered with %d, %v, want %d", got, err, want)
			}
			return nil
		})
	}
	began := time.Now()
	hung := s.hang(12)
	awaitStatus(503)
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("it failed after %v: a busy main thread does not hang", took)
	}
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	awaitStatus(200)
}
