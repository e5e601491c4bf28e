package suite

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// adminAddress returns the address of admin as the command takes it.
func (s *site) adminAddress() string {
	if path, unix := strings.CutPrefix(s.envoy.Admin, "unix:"); unix {
		return "unix://" + path
	}
	return s.envoy.Admin
}

// lifecycle runs `healthgate alive` or `healthgate drain`, as Kubernetes does.
func (s *site) lifecycle(ctx context.Context, command string, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(testbed.Root(), "build", "healthgate"), command)
	cmd.Env = append(append(os.Environ(), "ADMIN_ADDRESS="+s.adminAddress(), "CONTAINER_LOG=/dev/null"), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *site) mustBeAlive(when string) {
	s.t.Helper()
	if out, err := s.lifecycle(s.t.Context(), "alive"); err != nil {
		s.t.Errorf("%s it is not alive: %v: %s", when, err, out)
	}
}

// mustDrain runs `healthgate drain` without a delay, and returns its output.
func (s *site) mustDrain(env ...string) string {
	s.t.Helper()
	out, err := s.lifecycle(s.t.Context(), "drain", append(env, "DRAIN_DELAY=0s")...)
	if err != nil {
		s.t.Errorf("the drain ended with %v: %s", err, out)
	}
	return out
}

// mustCutOffACall drains Envoy while a call is active, after whose timeout the gate fails.
func (s *site) mustCutOffACall() {
	s.t.Helper()
	s.halfACall()
	if out := s.mustDrain("DRAIN_TIMEOUT=1s"); !strings.Contains(out, "1 request is left after the timeout of 1s") {
		s.t.Errorf("the drain prints %s", out)
	}
	expect(s.t, "the gate", s.path("/"), 503, "unavailable\n", draining)
}

// asInTheImage starts Envoy with the flags in the image, and with Envoy's default drain time.
func asInTheImage(t *testing.T) option {
	t.Helper()
	command := regexp.MustCompile(`(?m)^CMD (\["--config-path.*\])$`).FindStringSubmatch(
		readFile(t, filepath.Join(testbed.Root(), "Dockerfile")))
	if command == nil {
		t.Fatal("the Dockerfile has no CMD that starts Envoy")
	}
	var flags []string
	mustSucceed(t, json.Unmarshal([]byte(command[1]), &flags))
	flags = slices.DeleteFunc(flags[2:], func(flag string) bool { return flag == "--disable-hot-restart" }) // the testbed has its own
	return func(p *plan) { p.options.Flags, p.options.DrainTime = flags, 600 }
}

// callNothing makes a call that the backend does not have.
func (s *site) callNothing(client *http.Client) {
	s.t.Helper()
	s.mustDo(client, http.MethodPost, "/router.Router/None", strings.NewReader(""))
}

// During the drain delay Envoy keeps its connections: a client whose connection is closed would come back to it with another handshake,
// because the load balancer has not noticed yet. After the delay each connection is closed with its next reply.
func TestDrainKeepsConnectionsUntilTheDelayIsOver(t *testing.T) {
	subtests(t, map[string]string{"http/1.1": "http/1.1", "h2": "h2"}, func(t *testing.T, protocol string) {
		s := newServingSite(t, asInTheImage(t))
		client := s.client(protocol)
		connections := func() uint64 { return s.stat("http.ingress.downstream_cx_total") }
		s.callNothing(client)
		s.post("/healthcheck/fail")
		before := connections()
		for range 25 {
			s.callNothing(client)
			if reply := s.probe(client); reply.status != 503 {
				t.Errorf("during the delay the probe is answered with %d, want 503", reply.status)
			}
		}
		if n := connections() - before; n > 0 {
			t.Errorf("50 requests during the delay made %d connections, want 0", n)
		}
		s.post("/drain_listeners?graceful&skip_exit")
		s.callNothing(client) // its reply closes the connection
		before = connections()
		s.callNothing(client)
		if connections() == before {
			t.Error("after the delay the client still uses its connection")
		}
	})
}

func TestAliveAndDrainReachAdminOnAUnixSocket(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, adminOnASocket(t))
	s.mustBeAlive("at the start")
	s.mustCutOffACall()
	s.envoy.Kill()
	for _, verb := range []string{"alive", "drain"} {
		out, err := s.lifecycle(t.Context(), verb)
		if err == nil || !strings.Contains(out, "healthgate: "+verb+": admin at unix:///") {
			t.Errorf("without an Envoy, %s ends with %v: %s", verb, err, out)
		}
	}
}

func TestDrainCutsOffRequestsAfterItsTimeout(t *testing.T) {
	t.Parallel()
	s := newServingSite(t)
	s.mustCutOffACall()
}

// If the stats exclude requests, the drain waits for all of its timeout, so that it cuts off no request early.
func TestDrainThatSeesNoRequestsWaitsForTheTimeout(t *testing.T) {
	t.Parallel()
	// With admin's own requests alone.
	s := newServingSite(t, withStatsMatcher(`inclusion_list: {patterns: [{prefix: http.admin.}, {prefix: cluster.}, {prefix: server.}]}`))
	s.halfACall()
	began := time.Now()
	out := s.mustDrain("DRAIN_TIMEOUT=3s")
	if took := time.Since(began); took < 2*time.Second || strings.Contains(out, "no request is left") {
		t.Errorf("the drain ended after %v: %s", took, out)
	}
	if n := strings.Count(out, "requests are not visible: no stat"); n != 1 {
		t.Errorf("%d lines report that requests are not visible, want 1: %s", n, out)
	}
}

// A client between two calls has no active request, and would send its next call on a connection that ends.
func TestDrainWaitsUntilOccasionalClientsHaveReconnected(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, asInTheImage(t), alone("it drains Envoy for good"))
	client := s.client("http/1.1")
	s.callNothing(client)
	const total = "http.ingress.downstream_cx_total"
	before := s.stat(total)
	ended := make(chan string, 1)
	go func() { ended <- s.mustDrain("DRAIN_TIMEOUT=10s") }()
	for {
		select {
		case out := <-ended:
			if !strings.Contains(out, "no request is left") {
				t.Error(out)
			}
			if s.stat(total) == before {
				t.Error("the drain has ended, but the client still has its connection")
			}
			return
		case <-time.After(300 * time.Millisecond):
			s.callNothing(client)
		}
	}
}

// An Envoy must not be restarted because its backends are down, it drains or it has reached its connection limit, for it is busy.
func TestAliveFailsOnlyWhileTheMainThreadHangs(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withConfig(func(c *testbed.Bootstrap) { c.ConnectionLimit().MaxActiveDownstreamConnections = 1 }))
	client := s.client("h2")
	s.awaitProbe(client, 200, time.Second)
	s.mustBeAlive("with a backend")
	s.setServing(0)
	s.awaitProbe(client, 503, time.Second)
	s.mustBeAlive("without a backend")
	s.post("/healthcheck/fail")
	s.mustBeAlive("while draining")
	s.await(settle, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), settle)
		defer cancel()
		conn, err := (&tls.Dialer{Config: s.tlsConfig()}).DialContext(ctx, "tcp", s.envoy.Ingress)
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("it takes connections beyond its limit")
	})
	s.mustBeAlive("at the connection limit")
	t.Run("the main thread hangs", func(t *testing.T) {
		s := s.in(t)
		s.whileHanging(8, func() {
			s.await(settle, func() error {
				if _, err := s.lifecycle(t.Context(), "alive"); err == nil {
					return errors.New("it is alive though its main thread hangs")
				}
				return nil
			})
		})
	})
}

// liveness returns a probe like the kubelet's with the module component's livenessProbe: 2xx and 3xx pass.
func (s *site) liveness() (probe func() error) {
	s.t.Helper()
	get := envoysDeployment(s.t, "module").Spec.Template.Spec.Containers[0].LivenessProbe.HTTPGet
	url := "http://" + s.at(get.Port.StrVal).envoy.Ingress + get.Path
	client := &http.Client{Timeout: settle, Transport: &http.Transport{DisableKeepAlives: true}}
	return func() error {
		reply, err := client.Get(url)
		if err != nil {
			return err
		}
		if reply.StatusCode < 200 || reply.StatusCode >= 400 {
			err = fmt.Errorf("liveness is answered with %d", reply.StatusCode)
		}
		return errors.Join(err, reply.Body.Close())
	}
}

// The shipped configuration's liveness passes in each state in which readiness fails, and in some more, but not while the main thread
// hangs.
func TestLivenessFailsOnlyWhileTheMainThreadHangs(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var clusters []*clusterv3.Cluster
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")), backends(2), clustersByCDS(&clusters),
		withConfig(func(c *testbed.Bootstrap) { c.ConnectionLimit().MaxActiveDownstreamConnections = 2 }))
	client, alive := s.client("h2"), s.liveness()
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
		if err := alive(); err != nil {
			t.Errorf("%s: %v", state.name, err)
		}
	}
	t.Run("the main thread hangs", func(t *testing.T) {
		s := s.in(t)
		began := time.Now()
		s.whileHanging(12, func() {
			s.await(settle, func() error {
				if alive() == nil {
					return errors.New("it is alive")
				}
				return nil
			})
			if took := time.Since(began); took < 4*time.Second {
				t.Errorf("it failed after %v: a busy main thread does not hang", took)
			}
		})
		s.await(settle, alive)
	})
}

// The liveness gate reads no stats, so excluding all of them does not fail it.
func TestLivenessNeedsNoStats(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, asDeployed(t, envoysDeployment(t, "module")), withoutStats())
	s.awaitProbe(s.client("h2"), 503, settle)
	if err := s.liveness()(); err != nil {
		t.Error(err)
	}
}

// balancer sends calls to the Envoys whose probes pass. An Envoy is out after two failures in a row, and in after a success.
type balancer struct {
	conns []*grpc.ClientConn
	in    []atomic.Bool
	next  atomic.Int64
}

func newBalancer(t *testing.T, sites ...*site) *balancer {
	b := &balancer{in: make([]atomic.Bool, len(sites))}
	clients, failures := make([]*http.Client, len(sites)), make([]int, len(sites))
	for i, s := range sites {
		b.conns = append(b.conns, s.dialGRPC())
		clients[i] = s.client("h2")
	}
	probes := testbed.StartLoad(testbed.Pace{Clients: len(sites), PerSecond: 5 * float64(len(sites))}, func(i int) string {
		if reply, err := sites[i].do(clients[i], http.MethodGet, "/", nil); err == nil && reply.status == 200 {
			failures[i] = 0
			b.in[i].Store(true)
		} else if failures[i]++; failures[i] >= 2 {
			b.in[i].Store(false)
		}
		return ""
	})
	t.Cleanup(func() { _, _ = probes.Stop() })
	return b
}

// through is the answer to a call through an Envoy.
func through(envoy int) string { return fmt.Sprint("through envoy ", envoy) }

// call makes a call through an Envoy that is in.
func (b *balancer) call() string {
	first := int(b.next.Add(1))
	for k := range b.conns {
		i := (first + k) % len(b.conns)
		if !b.in[i].Load() {
			continue
		}
		ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
		defer done()
		if _, err := router.Recommend(ctx, b.conns[i], &router.Point{}); err != nil {
			return fmt.Sprintf("through envoy %d: %v", i, err)
		}
		return through(i)
	}
	return "no Envoy is in"
}

// One of two Envoys is drained and ended as by Kubernetes, with open streams and calls, and no call fails. Without streams only the drain
// delay keeps Envoy from ending too early.
func TestShutdownFailsNoCall(t *testing.T) {
	subtests(t, map[string]int{"0 streams": 0, "10 streams": 10}, func(t *testing.T, streams int) {
		health := withConfig(func(c *testbed.Bootstrap) { // the backend's own
			testbed.PrependRoute(c.VirtualHost(),
				testbed.Parse[*routev3.Route](`{match: {prefix: /grpc.health.v1.Health/}, route: {cluster: service, timeout: 0s}}`))
		})
		first, second := newSite(t, backends(2), health), newSite(t, backends(2), health)
		first.setServing(2)
		second.setServing(2)
		b := newBalancer(t, first, second)
		first.await(settle, func() error {
			if !b.in[0].Load() || !b.in[1].Load() {
				return errors.New("the balancer does not use both Envoys yet")
			}
			return nil
		})
		crowd := first.newCrowd(streams, b.conns[0]).first(serving)
		calls := testbed.StartLoad(testbed.Pace{Clients: 16, PerSecond: 200}, func(int) string { return b.call() })
		awaitCalls := func(envoy int) {
			count := func() int { return int(calls.Answers()[through(envoy)]) }
			first.awaitCount("calls "+through(envoy), count()+100, count)
		}
		awaitCalls(0)
		awaitCalls(1)

		// Clients end their streams a while after the Envoy is out: later than after the drain delay.
		cutOff := make(chan int, 1)
		go func() {
			for b.in[0].Load() {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(1500 * time.Millisecond)
			cutOff <- crowd.ended()
			crowd.leave()
		}()
		// What Kubernetes does: preStop, then SIGTERM.
		out, err := first.lifecycle(t.Context(), "drain", "DRAIN_DELAY=1s", "DRAIN_TIMEOUT=10s")
		if err != nil || !strings.Contains(out, "no request is left") {
			t.Errorf("the drain ended with %v: %s", err, out)
		}
		if b.in[0].Load() {
			t.Error("the balancer has not taken the drained Envoy out")
		}
		first.mustEndInOrder()
		if n := <-cutOff; n > 0 {
			t.Errorf("%d streams were cut off", n)
		}
		awaitCalls(1)
		outcome, _ := calls.Stop() // a load of our own calls has no error
		if outcome.Answers[through(0)]+outcome.Answers[through(1)] != outcome.Requests {
			t.Errorf("the calls ended with %v", outcome.Answers)
		}
	})
}
