package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// standalone is a standalone Envoy Gateway with its Envoy.
type standalone struct {
	*tools
	dir    string // of this run
	server *exec.Cmd
	ended  chan struct{}
	pid    int    // of its Envoy
	admin  string // where its Envoy's admin listens
}

// startLoopback brings up lo, which is down in a new network namespace.
func startLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo)
}

// prepare writes Envoy Gateway's configuration, and puts the Envoy to run where Envoy Gateway looks for that version.
//
// Envoy Gateway's Envoy ends with Envoy Gateway here: a parent's death signal, which either of them asks for, and a log that no process
// reads. A shell between the two keeps it alive, because in Kubernetes they are two pods.
func (s *standalone) prepare() error {
	bin := filepath.Join(s.dir, "data", "envoy-versions", s.envoyVersion, "bin")
	for _, folder := range []string{bin, s.resources()} {
		if err := os.MkdirAll(folder, 0o750); err != nil {
			return err
		}
	}
	between := fmt.Sprintf(`#!/bin/sh
{
  '%s' --disable-hot-restart "$@" >> '%s' 2>&1 &
  { echo $!; printf '%%s\n' "$@"; } > '%[3]s.next'
  mv '%[3]s.next' '%[3]s'
  wait
} &
wait
`, s.envoy, s.envoyLog(), s.startedFile())
	if err := os.WriteFile(filepath.Join(bin, "envoy"), []byte(between), 0o700); err != nil {
		return err
	}
	config := fmt.Sprintf(`apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
provider:
  type: Custom
  custom:
    resource: {type: File, file: {paths: [%s]}}
    infrastructure: {type: Host, host: {configHome: %[2]s/config, dataHome: %[2]s/data, stateHome: %[2]s/state, runtimeDir: %[2]s/runtime}}
logging: {level: {default: warn}}
extensionApis: {enableBackend: true, enableEnvoyPatchPolicy: true}
`, s.resources(), s.dir)
	if err := os.WriteFile(s.configFile(), []byte(config), 0o600); err != nil {
		return err
	}
	out, err := exec.Command(s.tools.server, "certgen", "--local", "--config-home", filepath.Join(s.dir, "config")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy-gateway certgen: %w: %s", err, out)
	}
	return nil
}

func (s *standalone) resources() string  { return filepath.Join(s.dir, "resources") }
func (s *standalone) configFile() string { return filepath.Join(s.dir, "envoy-gateway.yaml") }
func (s *standalone) serverLog() string  { return filepath.Join(s.dir, "envoy-gateway.log") }
func (s *standalone) envoyLog() string   { return filepath.Join(s.dir, "envoy.log") }

// startedFile has the process id of the last Envoy that was started, and its flags, one a line.
func (s *standalone) startedFile() string { return filepath.Join(s.dir, "started") }

// read returns the text of one of the files of this run, or why there is none.
func read(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// apply replaces the file that Envoy Gateway watches.
func (s *standalone) apply(objects overlay) error {
	text, err := objects.yaml()
	if err != nil {
		return err
	}
	next := filepath.Join(s.dir, "next.yaml")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(s.resources(), "overlay.yaml"))
}

// start starts Envoy Gateway, and returns once its Envoy is live.
func (s *standalone) start(ctx context.Context, what string) error {
	s.admin = ""
	_ = os.Remove(s.startedFile())
	s.server = exec.Command(s.tools.server, "server", "--config-path", s.configFile())
	s.server.Env = append(os.Environ(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+filepath.Dir(s.module))
	log, err := os.OpenFile(s.serverLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.server.Stdout, s.server.Stderr = log, log
	if err := s.server.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		_ = s.server.Wait()
		close(s.ended)
	}()
	return s.await(ctx, time.Minute, what, func() error {
		select {
		case <-s.ended:
			return errors.New("envoy-gateway has ended")
		default:
		}
		started, err := os.ReadFile(s.startedFile())
		if err != nil {
			return err
		}
		words := strings.Split(strings.TrimSpace(string(started)), "\n")
		at := slices.Index(words, "--admin-address-path")
		if at < 0 || at+1 == len(words) {
			return fmt.Errorf("Envoy was started without --admin-address-path: %q", words)
		}
		address, err := os.ReadFile(words[at+1])
		if err != nil {
			return err
		}
		s.pid, _ = strconv.Atoi(words[0])
		s.admin = strings.TrimSpace(string(address))
		_, err = s.ask("/ready")
		return err
	})
}

// kill ends Envoy Gateway at once, and leaves its Envoy running.
func (s *standalone) kill() {
	_ = s.server.Process.Kill()
	<-s.ended
}

// end ends both.
func (s *standalone) end() {
	if s.server != nil {
		s.kill()
	}
	if s.pid != 0 {
		_ = syscall.Kill(s.pid, syscall.SIGKILL)
	}
}

// await waits until ready returns nil, and prints how long that took.
func (s *standalone) await(ctx context.Context, atMost time.Duration, what string, ready func() error) error {
	begun := time.Now()
	if err := testbed.WaitFor(ctx, atMost, ready); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	passed(what, begun)
	return nil
}

// ask asks Envoy's admin.
func (s *standalone) ask(path string) (string, error) {
	return testbed.EnvoyAt("", s.admin, nil).Get(path)
}

// listener returns where Envoy listens for a listener of the Gateway.
func (s *standalone) listener(name string) (string, error) {
	listeners, err := testbed.EnvoyAt("", s.admin, nil).Listeners()
	if err != nil {
		return "", err
	}
	address, ok := listeners["default/envoy/"+name]
	if !ok {
		return "", fmt.Errorf("there is no listener %s", name)
	}
	_, port, err := net.SplitHostPort(address)
	return net.JoinHostPort("127.0.0.1", port), err
}

// probe sends a probe, as a load balancer does, and returns the status and the reason.
func (s *standalone) probe() (status int, err error) {
	address, err := s.listener("probe")
	if err != nil {
		return 0, err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Get("http://" + address + "/")
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, reply.Body)
	return reply.StatusCode, err
}

// expect returns a check that the probe gets a status, and that explain names the reason.
func (s *standalone) expect(status int, reason string) func() error {
	return func() error {
		got, err := s.probe()
		if err != nil {
			return err
		}
		if got != status {
			return fmt.Errorf("the probe gets %d, want %d", got, status)
		}
		report, err := s.explain()
		if err != nil {
			return err
		}
		if len(report.Gates) != 1 || report.Gates[0].Answer.Details != reason {
			return fmt.Errorf("explain reports %+v, want %s", report.Gates, reason)
		}
		return nil
	}
}

// report is a part of the report of explain.
type report struct {
	Problems []struct{ What string }
	Gates    []struct{ Answer struct{ Details string } }
}

func (s *standalone) explain() (*report, error) {
	out, _, err := s.healthgate("explain", "--admin", s.admin, "--output", "json")
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal([]byte(out), r); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return r, nil
}

// healthgate runs the command and returns its output and its exit code. Exit code 1, for problems found, is no error.
func (s *standalone) healthgate(args ...string) (out string, code int, err error) {
	text, err := exec.Command(s.command, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() <= 1 {
		return string(text), exit.ExitCode(), nil
	}
	return string(text), 0, err
}

// lint lints a text, and fails unless it finds a rule.
func (s *standalone) lint(text []byte, rule string) error {
	file := filepath.Join(s.dir, "lint.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	out, code, err := s.healthgate("lint", file)
	if err == nil && (code != 1 || !strings.Contains(out, "["+rule+"]")) {
		err = fmt.Errorf("lint does not find %s: %s", rule, out)
	}
	return err
}

// callService calls the service by the Gateway's listener https, as a gRPC client does.
func (s *standalone) callService(ctx context.Context, certificate *testbed.Certificate) error {
	conn, err := s.dial("https", credentials.NewTLS(&tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = router.Recommend(ctx, conn, router.Point{Latitude: 48.137, Longitude: 11.575})
	return err
}

// checkHealth asks grpc.health.v1.Health at the probe's listener.
func (s *standalone) checkHealth(ctx context.Context, service string) error {
	conn, err := s.dial("probe", insecure.NewCredentials())
	if err != nil {
		return err
	}
	defer conn.Close()
	reply, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err == nil && reply.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		err = fmt.Errorf("%q is %v", service, reply.GetStatus())
	}
	return err
}

func (s *standalone) dial(listener string, by credentials.TransportCredentials) (*grpc.ClientConn, error) {
	address, err := s.listener(listener)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(by))
}
