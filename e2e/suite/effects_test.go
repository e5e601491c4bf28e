package suite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// What lint says of a field, Envoy says too, and does not start.
func TestSlipInTheAPIKeepsEnvoyFromStarting(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for name, change := range map[string]func(*testbed.Config){
		"an unknown field":     func(c *testbed.Config) { c.Set(testbed.HCM+".codec_tipe", "AUTO") },
		"a value out of range": func(c *testbed.Config) { c.Set(testbed.Cluster+".connect_timeout", "-1s") },
		"a wrong type":         func(c *testbed.Config) { c.Set(testbed.Cluster+".lb_policy", true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := prepare(t, backends(0), withConfig(change))
			expectLint(t, s.config, "api")
			envoy, err := testbed.LaunchEnvoy(s.dir, p.config, variant.Options(p.options))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(envoy.Kill)
			if err := envoy.Wait(settle); err == nil || strings.Contains(err.Error(), "still running") {
				t.Errorf("envoy ended with %v, want a failure", err)
			}
		})
	}
}

// elsewhere is an address of the namespace that is not on loopback.
const elsewhere = "10.9.8.7"

// inANamespace runs the test again in a network namespace of its own, which has the address elsewhere, and says whether this is
// that run.
func inANamespace(t *testing.T) bool {
	t.Helper()
	const inside = "E2E_IN_A_NAMESPACE"
	if os.Getenv(inside) != "" {
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", elsewhere + "/32", "dev", "lo"}} {
			if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %v: %v: %s", args, err, out)
			}
		}
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("it needs ip (apt-get install iproute2)")
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-variant="+variant.Name())
	again.Env = append(os.Environ(), inside+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := again.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Skip("namespaces are not allowed here: ", err)
	}
	if t.Logf("in the namespace:\n%s", out); err != nil {
		t.Error(err)
	}
	return false
}

// Whoever reaches admin drains Envoy.
func TestAdminOffLoopbackIsReachedFromElsewhere(t *testing.T) {
	skipWherePointed(t, "it needs configurations of its own")
	if !inANamespace(t) {
		return
	}
	for address, rule := range map[string]string{"127.0.0.1": "", "0.0.0.0": "admin-open"} {
		t.Run(address, func(t *testing.T) {
			s := newSite(t, withConfig(func(c *testbed.Config) { c.Set("admin.address.socket_address.address", address) }))
			expectLint(t, s.config, rule)
			s.setServing(1)
			client := s.client("h2")
			s.awaitProbe(client, 200, settle)
			_, port, err := net.SplitHostPort(s.envoy.Admin)
			if err != nil {
				t.Fatal(err)
			}
			reply, err := http.Post("http://"+net.JoinHostPort(elsewhere, port)+"/healthcheck/fail", "", nil)
			if rule == "" {
				if err == nil {
					reply.Body.Close()
					t.Errorf("admin on loopback is reached: %s", reply.Status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			s.awaitProbe(client, 503, settle)
		})
	}
}

// A call with a header like user_id is reset, or arrives without it.
func TestMetadataWithAnUnderscoreIsRefusedWhereLintSaysSo(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for action, code := range map[string]codes.Code{"REJECT_REQUEST": codes.Internal, "DROP_HEADER": codes.OK} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Config) {
				c.Set(testbed.HCM+".common_http_protocol_options.headers_with_underscores_action", action)
				c.Set(testbed.HCM+".access_log.0.typed_config.log_format.json_format.user", "%REQ(user_id)%")
			}))
			expectLint(t, s.config, "underscores")
			s.setServing(1)
			call := func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, settle)
				defer cancel()
				_, err := router.NewRouterClient(s.dialGRPC()).Recommend(ctx, &router.RecommendRequest{Points: []*router.Point{{}}})
				return err
			}
			if err := call(t.Context()); err != nil {
				t.Errorf("a call without it got %v", err)
			}
			err := call(metadata.AppendToOutgoingContext(t.Context(), "user_id", "somebody"))
			if got := status.Code(err); (got == codes.OK) != (code == codes.OK) {
				t.Errorf("a call with user_id got %v, want %v", err, code)
			}
			if strings.Contains(s.envoy.Log(), `"user":"somebody"`) {
				t.Error("the header has arrived")
			}
		})
	}
}

// Between the gate's percentage and Envoy's threshold the gate passes, and calls go to hosts that are gone.
func TestGateBelowThePanicThresholdPassesWhileCallsFail(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	for percent, test := range map[int]struct {
		rule   string
		status int
	}{30: {"panic", 200}, 50: {"", 503}} {
		t.Run(fmt.Sprint(percent, " %"), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, backends(3), withPlugin(fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy_percent": %d}], "response": {"details": true}}`, percent)))
			expectLint(t, s.config, test.rule)
			s.setServing(3)
			for _, backend := range s.backends[1:] {
				backend.Kill()
			}
			s.awaitHealthy(map[*testbed.Backend]bool{s.backends[0]: true, s.backends[1]: false, s.backends[2]: false})
			client := s.client("h2")
			s.awaitProbe(client, test.status, settle)
			s.await(settle, func() error { // two of three calls go to a host that is gone
				reply := s.mustDo(client, http.MethodPost, "/router.Router/None", nil, "content-type", "application/grpc")
				if reply.header.Get("grpc-status") != "14" {
					return fmt.Errorf("a call got %v", reply.header)
				}
				return nil
			})
			if reply := s.probe(client); reply.status != test.status {
				t.Errorf("while calls fail the probe is answered with %d, want %d", reply.status, test.status)
			}
		})
	}
}

// A route finds its plugin by the name, which is that of the library loaded last: its configuration is laid over another's there, and
// means nothing to the filter that is asked.
func TestRouteOfTwoLibrariesIsNotAnswered(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	needs(t, testbed.Merging) // by the contrib host, which finds plugins as the golang extension does
	const second = "static_resources.listeners.1.filter_chains.0.filters.0.typed_config.http_filters.0.typed_config."
	for name, rule := range map[string]string{"one": "", "two": "two-libraries"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := prepare(t, withRoute("/readyz", `{"path": "/readyz"}`),
				withSecondListener(`{"clusters": [{"name": "service", "min_healthy": 5}], "stat_prefix": "second"}`))
			if rule != "" {
				other := filepath.Join(s.dir, "other.so")
				if err := os.WriteFile(other, []byte(readFile(t, variant.Object())), 0o700); err != nil {
					t.Fatal(err)
				}
				s.config.Set(second+"library_id", "healthgate-2")
				s.config.Set(second+"library_path", "/etc/envoy/healthgate-2.so")
				p.config.Set(second+"filter_name", "healthgate@healthgate-2@"+other)
			}
			expectLint(t, s.config, rule)
			envoy, err := testbed.StartEnvoy(t.Context(), s.dir, p.config, variant.Options(p.options))
			if err != nil {
				t.Fatal(err)
			}
			s.use(envoy)
			s.setServing(1)
			client := s.client("h2")
			s.awaitProbe(client, 200, settle) // the filter itself is found by its library
			reply, err := s.do(client, http.MethodGet, "/readyz", nil)
			if passes := err == nil && reply.status == 200; passes != (rule == "") {
				t.Errorf("the route's probe got %+v, %v", reply, err)
			}
		})
	}
}

// What a grace that is too short does: the kubelet ends Envoy before the notice is over, and the calls with it.
func TestEnvoyThatIsKilledInItsNoticeCutsOffItsCalls(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it ends Envoy"))
	s.setServing(1)
	conn := s.dialTLS(t.Context(), "http/1.1")
	send(t, conn, "POST /router.Router/Recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\ncontent-length: 10\r\n\r\nhalf")
	admin := s.envoy.Admin
	if path, unix := strings.CutPrefix(admin, "unix:"); unix {
		admin = "unix://" + path
	}
	drain := exec.CommandContext(t.Context(), filepath.Join(testbed.Root(), "build", "healthgate"), "drain", "--admin", admin, "--delay", "600s")
	if err := drain.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = drain.Process.Kill()
		_ = drain.Wait()
	})
	s.awaitProbe(s.client("h2"), 503, settle)
	s.envoy.Kill() // the end of terminationGracePeriodSeconds
	if err := conn.SetReadDeadline(time.Now().Add(settle)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the call got %d bytes, %v", n, err)
	}
}
