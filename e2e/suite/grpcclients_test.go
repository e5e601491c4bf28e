package suite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// Other projects' clients of grpc.health.v1.Health, and how they read the gate's answers.

// asks makes a client ask for services. It returns an answer for each: SERVING, NOT_SERVING, SERVICE_UNKNOWN or the code of an error.
type asks func(t *testing.T, s *site, services []string) []string

// secured has an option for each transport of the listener.
var secured = map[string][]option{"TLS": nil, "h2c": {withoutTLS()}}

// isPlain reports whether the listener has no TLS.
func (s *site) isPlain() bool {
	return s.config != nil && !s.config.HasTLS()
}

// dialHealth connects to the listener, with TLS or without.
func (s *site) dialHealth() grpc_health_v1.HealthClient {
	s.t.Helper()
	if s.isPlain() {
		return grpc_health_v1.NewHealthClient(dialPlain(s.t, s.envoy.Ingress))
	}
	return s.health()
}

// answerOf returns an answer of grpc-go as text.
func answerOf(reply *grpc_health_v1.HealthCheckResponse, err error) string {
	switch {
	case status.Code(err) == codes.NotFound:
		return "NOT_FOUND"
	case err != nil:
		return err.Error()
	}
	return reply.Status.String()
}

func goChecks(t *testing.T, s *site, services []string) (all []string) {
	health := s.dialHealth()
	for _, service := range services {
		all = append(all, answerOf(health.Check(t.Context(), asked(service))))
	}
	return all
}

func goWatches(t *testing.T, s *site, services []string) (all []string) {
	health := s.dialHealth()
	for _, service := range services {
		ctx, cancel := context.WithTimeout(t.Context(), 3*settle)
		stream, err := health.Watch(ctx, asked(service))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, answerOf(stream.Recv()))
		cancel()
	}
	return all
}

// grpcHealthProbe runs the program, of the version that the Makefile names. Its exit codes are in its README: 0 serving, 3 the call
// failed, 4 not serving.
func grpcHealthProbe(t *testing.T, s *site, services []string) (all []string) {
	program := filepath.Join(testbed.Root(), "build", "grpc-health-probe")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: make build/grpc-health-probe", err)
	}
	for _, service := range services {
		args := []string{"-addr", s.envoy.Ingress, "-service", service, "-connect-timeout", "60s", "-rpc-timeout", "60s"}
		if !s.isPlain() {
			args = append(args, "-tls", "-tls-ca-cert", s.cert.CertFile, "-tls-server-name", "localhost")
		}
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		var failed *exec.ExitError
		switch {
		case err == nil:
			all = append(all, "SERVING")
		case errors.As(err, &failed) && failed.ExitCode() == 4:
			all = append(all, "NOT_SERVING")
		case errors.As(err, &failed) && failed.ExitCode() == 3 && strings.Contains(string(out), "NotFound"):
			all = append(all, "NOT_FOUND")
		default:
			all = append(all, fmt.Sprintf("%v: %s", err, out))
		}
	}
	return all
}

// pythonsGRPC returns the folder of Python's client, which pip fetches once, with the versions and hashes in python/requirements.txt.
var pythonsGRPC = sync.OnceValues(func() (string, error) {
	folder := filepath.Join(testbed.Root(), "build", "python")
	if _, err := os.Stat(filepath.Join(folder, "grpc_health")); err == nil {
		return folder, nil
	}
	// Fetched elsewhere and then moved, so that a partial one is never used.
	work, err := os.MkdirTemp(filepath.Dir(folder), "python.")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	out, err := exec.Command("python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:",
		"--require-hashes", "--target", work, "--requirement",
		filepath.Join(testbed.Root(), "e2e", "suite", "python", "requirements.txt")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pip cannot fetch Python's gRPC client: %w\n%s", err, out)
	}
	return folder, os.Rename(work, folder)
})

// askPython makes Python's client ask by Check and by Watch, and returns the answers.
func askPython(t *testing.T, s *site, services []string) (checked, watched []string) {
	t.Helper()
	if err := exec.Command("python3", "-m", "pip", "--version").Run(); err != nil {
		t.Skipf("it needs python3 with pip: %v", err)
	}
	folder, err := pythonsGRPC()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(s.envoy.Ingress)
	if err != nil {
		t.Fatal(err)
	}
	ca := s.cert.CertFile
	if s.isPlain() {
		ca = ""
	}
	args := append([]string{filepath.Join(testbed.Root(), "e2e", "suite", "python", "ask.py"), "localhost:" + port, ca}, services...)
	ask := exec.CommandContext(t.Context(), "python3", args...)
	ask.Env = append(os.Environ(), "PYTHONPATH="+folder, "GRPC_VERBOSITY=ERROR", "no_proxy=localhost")
	var said strings.Builder // its errors
	ask.Stderr = &said
	out, err := ask.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, &said)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if answer := fields[len(fields)-1]; fields[0] == "check" {
			checked = append(checked, answer)
		} else {
			watched = append(watched, answer)
		}
	}
	return checked, watched
}

func TestOtherProjectsClientsAgree(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	for name, options := range secured {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(options, withHealthService())...)
			services := []string{"", "router.Router", "unknown"}
			for _, state := range []struct {
				name    string
				up      int
				drained bool
				want    string
			}{{"down", 0, false, "NOT_SERVING"}, {"up", 1, false, "SERVING"}, {"drained", 1, true, "NOT_SERVING"}} {
				s.setServing(state.up)
				if state.drained {
					s.post("/healthcheck/fail")
				}
				s.stats("healthgate.") // after a sample
				checked := fmt.Sprint([]string{state.want, state.want, "NOT_FOUND"})
				watched := fmt.Sprint([]string{state.want, state.want, "SERVICE_UNKNOWN"})
				for client, ask := range map[string]asks{"grpc-go's Check": goChecks, "grpc_health_probe": grpcHealthProbe} {
					if got := fmt.Sprint(ask(t, s, services)); got != checked {
						t.Errorf("%s: %s gets %v, want %v", state.name, client, got, checked)
					}
				}
				if got := fmt.Sprint(goWatches(t, s, services)); got != watched {
					t.Errorf("%s: grpc-go's Watch gets %v, want %v", state.name, got, watched)
				}
				t.Run("Python "+state.name, func(t *testing.T) {
					c, w := askPython(t, s, services)
					if fmt.Sprint(c) != checked || fmt.Sprint(w) != watched {
						t.Errorf("Python gets %v by Check and %v by Watch, want %v and %v", c, w, checked, watched)
					}
				})
			}
		})
	}
}

// Another Envoy checks the gate by grpc_health_check, as the host of its cluster, and its gate follows.
func TestEnvoysGRPCHealthCheckAgrees(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	for name, options := range secured {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append(options, withHealthService())...)
			front := newSite(t, backends(0), withConfig(func(c *testbed.Bootstrap) {
				c.SetEndpoints(s.envoy.Ingress)
				if s.isPlain() {
					return
				}
				c.Patch(c.Cluster(), fmt.Sprintf(`transport_socket: {name: envoy.transport_sockets.tls, typed_config: {
					"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: localhost,
					common_tls_context: {alpn_protocols: [h2], validation_context: {trusted_ca: {filename: %q}}}}}`, s.cert.CertFile))
			}))
			client := front.client("h2")
			for _, up := range []int{1, 0, 1} {
				s.setServing(up)
				front.awaitGauges("service", uint64(up), 1)
				front.awaitProbe(client, map[int]int{1: 200, 0: 503}[up], settle)
			}
			s.post("/healthcheck/fail")
			front.awaitProbe(client, 503, settle)
		})
	}
}

// reached returns how many calls an Envoy has sent to its backends.
func (s *site) reached() uint64 {
	const sent = "cluster.service.upstream_rq_total"
	return s.stat(sent)
}

// With client-side health checking grpc-go's load balancer sends calls only to the Envoys whose gates pass.
func TestClientSideLoadBalancerSkipsTheFailingEnvoy(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	needs(t, testbed.GRPC)
	var sites []*site
	var addresses []resolver.Address
	for range 2 {
		s := newSite(t, withHealthService(), withoutTLS())
		s.setServing(1)
		sites = append(sites, s)
		addresses = append(addresses, resolver.Address{Addr: s.envoy.Ingress})
	}
	names := manual.NewBuilderWithScheme("envoys")
	names.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient("envoys:///all", grpc.WithResolvers(names), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "router.Router"}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// goTo waits until calls reach exactly these Envoys.
	goTo := func(want ...bool) {
		t.Helper()
		sites[0].await(3*settle, func() error {
			before := []uint64{sites[0].reached(), sites[1].reached()}
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), settle)
				err := conn.Invoke(ctx, "/router.Router/Nothing", asked(""), &grpc_health_v1.HealthCheckResponse{},
					grpc.WaitForReady(want[0] || want[1]))
				cancel()
				if code := status.Code(err); code != codes.Unimplemented && code != codes.Unavailable { // the backend's answer, or no Envoy
					return err
				}
			}
			for i := range sites {
				if n := sites[i].reached() - before[i]; (n > 0) != want[i] {
					return fmt.Errorf("%d of 20 calls went to Envoy %d", n, i)
				}
			}
			return nil
		})
	}
	goTo(true, true)
	sites[0].post("/healthcheck/fail")
	goTo(false, true)
	sites[1].setServing(0)
	goTo(false, false)
	sites[0].post("/healthcheck/ok")
	goTo(true, false)
	sites[1].setServing(1)
	goTo(true, true)
}
