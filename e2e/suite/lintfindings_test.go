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

	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// Envoy does not start with a field that lint reports by its rule api.
func TestEnvoyRefusesInvalidFieldsThatLintReports(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for name, field := range map[string][2]string{
		"an unknown field":     {`"codec_type":`, `"codec_tipe":`},
		"a value out of range": {`"connect_timeout": "0.250s"`, `"connect_timeout": "-1s"`},
		"a wrong type":         {`"dns_lookup_family": "V4_PREFERRED"`, `"dns_lookup_family": true`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := prepare(t, backends(0), withHCM(`codec_type: HTTP2`))
			spoil := func(c *testbed.Bootstrap) testbed.RawJSON {
				text := string(c.JSON())
				if !strings.Contains(text, field[0]) {
					t.Fatalf("the configuration has no %s", field[0])
				}
				return testbed.RawJSON(strings.Replace(text, field[0], field[1], 1))
			}
			expectLint(t, spoil(s.config), "api")
			refuses(t, s.dir, spoil(p.config), p.options)
		})
	}
}

// elsewhere is an address in the namespace that is not loopback.
const elsewhere = "10.9.8.7"

// inANamespace runs the test again in another network namespace, which has the address elsewhere, and returns true in that run.
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

// A client that reaches admin can drain Envoy.
func TestAdminOffLoopbackIsReachableFromOutside(t *testing.T) {
	skipWithRunningEnvoy(t, "it changes the configuration")
	if !inANamespace(t) {
		return
	}
	for address, rule := range map[string]string{"127.0.0.1": "", "0.0.0.0": "admin-open"} {
		t.Run(address, func(t *testing.T) {
			s := newSite(t, withConfig(func(c *testbed.Bootstrap) { c.Admin.Address.GetSocketAddress().Address = address }))
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

// With headers_with_underscores_action a call with a header like user_id is reset, or arrives without it. lint reports the action.
func TestUnderscoreActionThatLintReportsBreaksMetadata(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for action, code := range map[string]codes.Code{"REJECT_REQUEST": codes.Internal, "DROP_HEADER": codes.OK} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withConfig(func(c *testbed.Bootstrap) {
				c.Patch(c.HCM(), "common_http_protocol_options: {headers_with_underscores_action: "+action+"}")
				logUserID(c)
			}))
			expectLint(t, s.config, "underscores")
			s.setServing(1)
			call := func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, settle)
				defer cancel()
				_, err := router.Recommend(ctx, s.dialGRPC(), router.Point{})
				return err
			}
			if err := call(t.Context()); err != nil {
				t.Errorf("a call without it got %v", err)
			}
			err := call(metadata.AppendToOutgoingContext(t.Context(), "user_id", "alice"))
			if got := status.Code(err); (got == codes.OK) != (code == codes.OK) {
				t.Errorf("a call with user_id got %v, want %v", err, code)
			}
			if strings.Contains(s.envoy.Log(), `"user":"alice"`) {
				t.Error("the header arrived")
			}
		})
	}
}

// If the healthy percentage is between the gate's minimum and Envoy's panic threshold, the gate passes, and calls go to dead hosts.
func TestGateBelowThePanicThresholdPassesWhileCallsFail(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	for percent, test := range map[int]struct {
		rule   string
		status int
	}{30: {"panic", 200}, 50: {"", 503}} {
		t.Run(fmt.Sprint(percent, " %"), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, backends(3),
				withGate(fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy_percent": %d}], "response": {"details": true}}`, percent)))
			expectLint(t, s.config, test.rule)
			s.setServing(3)
			for _, backend := range s.backends[1:] {
				backend.Kill()
			}
			s.awaitHealthy(map[*testbed.Backend]bool{s.backends[0]: true, s.backends[1]: false, s.backends[2]: false})
			client := s.client("h2")
			s.awaitProbe(client, test.status, settle)
			s.await(settle, func() error { // two of three calls go to a dead host
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

// The golang extension finds a route's plugin by its name, and of two libraries with that name takes the one loaded last. The merged
// configuration is then one of another library, which the filter cannot use.
func TestOverrideIsNotUsedWithTwoLibraries(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.CountMerges) // the contrib host, which finds plugins as the golang extension does
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
				written := s.config.GateFilterOf(s.config.StaticResources.Listeners[1]).(*golangv3.Config)
				written.LibraryId, written.LibraryPath = "healthgate-2", "/etc/envoy/healthgate-2.so"
				started := p.config.GateFilterOf(p.config.StaticResources.Listeners[1]).(*modulev3.DynamicModuleFilter)
				started.FilterName = "healthgate@healthgate-2@" + other
			}
			expectLint(t, s.config, rule)
			s.start(p)
			s.setServing(1)
			client := s.client("h2")
			s.awaitProbe(client, 200, settle) // the extension finds the filter itself by its library
			reply, err := s.do(client, http.MethodGet, "/readyz", nil)
			if passes := err == nil && reply.status == 200; passes != (rule == "") {
				t.Errorf("the route's probe got %+v, %v", reply, err)
			}
		})
	}
}

// If terminationGracePeriodSeconds is too short, the kubelet ends Envoy during the drain delay, and the calls with it.
func TestEnvoyThatIsKilledDuringTheDrainDelayCutsOffItsCalls(t *testing.T) {
	t.Parallel()
	s := newSite(t, alone("it ends Envoy"))
	s.setServing(1)
	conn := s.halfACall()
	drain := exec.CommandContext(t.Context(), filepath.Join(testbed.Root(), "build", "healthgate"), "drain",
		"--admin", s.adminAddress(), "--delay", "600s")
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
