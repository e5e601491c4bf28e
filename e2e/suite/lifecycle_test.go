package suite

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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

// asInTheImage starts Envoy with the flags in the image, and with Envoy's default drain time.
func asInTheImage(t *testing.T) option {
	t.Helper()
	command := regexp.MustCompile(`(?m)^CMD (\["--config-path.*\])$`).FindStringSubmatch(
		readFile(t, filepath.Join(testbed.Root(), "Dockerfile")))
	if command == nil {
		t.Fatal("the Dockerfile has no CMD that starts Envoy")
	}
	var flags []string
	if err := json.Unmarshal([]byte(command[1]), &flags); err != nil {
		t.Fatal(err)
	}
	flags = slices.DeleteFunc(flags[2:], func(flag string) bool { return flag == "--disable-hot-restart" }) // the testbed has its own
	return func(p *plan) { p.options.Flags, p.options.DrainTime = flags, 600 }
}

// During the drain delay Envoy keeps its connections: a client whose connection is closed would come back to it with another handshake,
// because the load balancer has not noticed yet. After the delay each connection is closed with its next reply.
func TestDrainKeepsConnectionsUntilTheDelayIsOver(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it drains Envoy for good")
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, asInTheImage(t), alone("it drains Envoy for good"))
			s.setServing(1)
			client := s.client(protocol)
			connections := func() uint64 {
				return s.stat("http.ingress.downstream_cx_total")
			}
			call := func() *answer { return s.mustDo(client, http.MethodPost, "/router.Router/None", strings.NewReader("")) }
			call()
			s.post("/healthcheck/fail")
			before := connections()
			for range 25 {
				call()
				if reply := s.probe(client); reply.status != 503 {
					t.Errorf("during the delay the probe is answered with %d, want 503", reply.status)
				}
			}
			if n := connections() - before; n > 0 {
				t.Errorf("50 requests during the delay made %d connections, want 0", n)
			}
			s.post("/drain_listeners?graceful&skip_exit")
			call() // its reply closes the connection
			before = connections()
			call()
			if connections() == before {
				t.Error("after the delay the client still uses its connection")
			}
		})
	}
}

func TestAliveAndDrainReachAdminOnAUnixSocket(t *testing.T) {
	t.Parallel()
	s := newSite(t, adminOnASocket(t), alone("it ends Envoy"))
	s.setServing(1)
	if out, err := s.lifecycle(t.Context(), "alive"); err != nil {
		t.Errorf("it is not alive: %v: %s", err, out)
	}
	s.halfACall()
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=1s")
	if err != nil || !strings.Contains(out, "1 request is left after the timeout of 1s") {
		t.Errorf("the drain ended with %v: %s", err, out)
	}
	if reply := s.probe(s.client("h2")); reply.header.Get("x-envoy-immediate-health-check-fail") != "true" {
		t.Errorf("after the drain the probe gets %d, %v", reply.status, reply.header)
	}
	s.envoy.Kill()
	for _, verb := range []string{"alive", "drain"} {
		out, err := s.lifecycle(t.Context(), verb)
		if err == nil || !strings.Contains(out, "healthgate: "+verb+": admin at unix:///") {
			t.Errorf("without an Envoy, %s ends with %v: %s", verb, err, out)
		}
	}
}

// If the stats exclude requests, the drain waits for all of its timeout, so that it cuts off no request early.
func TestDrainThatSeesNoRequestsWaitsForTheTimeout(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, matcher := range map[string]string{
		"an exclusion list":     `exclusion_list: {patterns: [{prefix: http.}]}`,
		"only admin's requests": `inclusion_list: {patterns: [{prefix: http.admin.}, {prefix: cluster.}, {prefix: server.}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withStatsMatcher(matcher))
			s.setServing(1)
			s.halfACall()
			began := time.Now()
			out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=3s")
			if took := time.Since(began); err != nil || took < 2*time.Second || strings.Contains(out, "no request is left") {
				t.Errorf("the drain ended after %v with %v: %s", took, err, out)
			}
			if n := strings.Count(out, "requests are not visible: no stat"); n != 1 {
				t.Errorf("%d lines say that requests are not visible, want 1: %s", n, out)
			}
		})
	}
}

// A client between two calls has no active request, and would send its next call on a connection that ends.
func TestDrainWaitsUntilOccasionalClientsHaveReconnected(t *testing.T) {
	t.Parallel()
	s := newSite(t, asInTheImage(t), alone("it drains Envoy for good"))
	s.setServing(1)
	client := s.client("http/1.1")
	call := func() { s.mustDo(client, http.MethodPost, "/router.Router/None", strings.NewReader("")) }
	call()
	const total = "http.ingress.downstream_cx_total"
	before := s.stat(total)
	ended := make(chan error, 1)
	go func() {
		out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=10s")
		if err == nil && !strings.Contains(out, "no request is left") {
			err = errors.New(out)
		}
		ended <- err
	}()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			if s.stat(total) == before {
				t.Error("the drain has ended, but the client still has its connection")
			}
			return
		case <-time.After(300 * time.Millisecond):
			call()
		}
	}
}

// Kubernetes drops the output of a preStop hook, but keeps the log of the container's first process.
func TestDrainWritesToTheContainersLog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "CONTAINER_LOG="+log)
	if got := readFile(t, log); err != nil || got != "before\n"+out || strings.Count(out, "healthgate: drain: ") != 3 {
		t.Errorf("it ended with %v; it prints\n%s\nand the log has\n%s", err, out, got)
	}
	// A log that cannot be written is no reason to stop.
	if out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "CONTAINER_LOG=/proc/1/nothing"); err != nil ||
		strings.Contains(out, "nothing") {
		t.Errorf("without a log it ended with %v: %s", err, out)
	}
}

func TestDrainCutsOffRequestsAfterItsTimeout(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	s.halfACall()
	out, err := s.lifecycle(t.Context(), "drain", "DRAIN_DELAY=0s", "DRAIN_TIMEOUT=1s")
	if err != nil || !strings.Contains(out, "1 request is left after the timeout of 1s") {
		t.Errorf("the drain ended with %v: %s", err, out)
	}
	expect(t, "the gate", s.probe(s.client("h2")), 503, "unavailable\n", map[string]string{"x-envoy-immediate-health-check-fail": "true"})
}

// Liveness does not depend on the backends: an Envoy whose backends are all down must not be restarted.
func TestAliveDoesNotDependOnTheBackends(t *testing.T) {
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
		t.Error("it is alive though it was killed")
	}
}
