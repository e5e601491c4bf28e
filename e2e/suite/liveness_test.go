package suite

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// alive asks as the kubelet does by the module component's livenessProbe: 2xx and 3xx pass.
func (s *site) alive() error {
	s.t.Helper()
	probe := envoysDeployment(s.t, "module").Spec.Template.Spec.Containers[0].LivenessProbe
	if reply := s.plain(probe.HTTPGet.Port.StrVal, http.MethodGet, probe.HTTPGet.Path); reply.status < 200 || reply.status >= 400 {
		return fmt.Errorf("liveness is answered with %d %q", reply.status, reply.body)
	}
	return nil
}

// Of the configuration that ships, in each state in which readiness fails, and in some more.
func TestLivenessPassesWhateverTheClustersAndADrainSay(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")), backends(2), withCDS(), withConfig(func(c *testbed.Config) {
		c.Set(routeConfiguration+".validate_clusters", false)
		c.Set("overload_manager.resource_monitors.0.typed_config.max_active_downstream_connections", 2)
	}))
	clusters := s.config.Part("static_resources.clusters").Get("").([]any)
	client := s.client("h2")
	s.setServing(2)
	for _, state := range []struct {
		name  string
		enter func()
		ready int // how the gate answers, 0 where nobody can ask
	}{
		{"a backend is down", func() { s.setServing(1) }, 200},
		{"all backends are down", func() { s.setServing(0) }, 503},
		{"the cluster is removed", func() { s.writeClusters() }, 503},
		{"the cluster is back", func() { s.writeClusters(clusters...); s.setServing(2) }, 200},
		{"it has all its connections", func() { s.dialTLS(t.Context(), "h2") }, 0},
		{"it drains", func() { s.post("/healthcheck/fail") }, 0},
		{"its clients are let go", func() { s.post("/drain_listeners?graceful&skip_exit") }, 0},
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

// What the gate reads of others is nothing: no stat that is left out fails it.
func TestLivenessNeedsNoStats(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")), withConfig(func(c *testbed.Config) {
		c.Set("stats_config", map[string]any{"stats_matcher": map[string]any{"reject_all": true}})
	}))
	s.awaitProbe(s.client("h2"), 503, settle)
	if err := s.alive(); err != nil {
		t.Error(err)
	}
}

// By either variant's command too: an Envoy that has all the connections that it may have is busy, and not to be restarted.
func TestAliveAtTheConnectionLimit(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs a configuration of its own")
	s := newSite(t, withConfig(func(c *testbed.Config) {
		c.Set("overload_manager.resource_monitors.0.typed_config.max_active_downstream_connections", 1)
	}))
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

// refusesConnections says whether a new connection to the listener ends before it is one.
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

func TestLivenessFailsOnAMainThreadThatHangs(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Hanging, testbed.Liveness)
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")))
	s.setServing(1)
	if err := s.alive(); err != nil {
		t.Fatal(err)
	}
	address := s.at("alive").envoy.Ingress // admin can't be asked while it hangs
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
		t.Errorf("it failed after %v: a busy main thread is no hanging one", took)
	}
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	awaitStatus(200)
}
