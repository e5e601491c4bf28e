package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"healthgate/e2e/testbed"
)

// standalone is a standalone Envoy Gateway with its Envoy.
type standalone struct {
	ctx          context.Context
	tools        string // the folder of egctl and envoy-gateway
	dir          string // of this run
	envoyVersion string
	server       *exec.Cmd
	pid          int            // of its Envoy
	envoy        *testbed.Envoy // its admin
}

func built(name string) string { return filepath.Join(testbed.Root(), "build", name) }

func (s *standalone) file(name string) string { return filepath.Join(s.dir, name) }

// write replaces a file of this run at once, and returns its path.
func (s *standalone) write(name, text string) (string, error) {
	next := s.file("next")
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return "", err
	}
	return s.file(name), os.Rename(next, s.file(name))
}

// read returns the text of a file of this run, or why there is none.
func (s *standalone) read(name string) string {
	text, err := os.ReadFile(s.file(name))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// prepare writes Envoy Gateway's configuration, and puts the Envoy to run where Envoy Gateway looks for that version.
//
// Envoy Gateway's Envoy ends with Envoy Gateway here: a parent's death signal, which either of them asks for, and a log that no process
// reads. A shell between the two keeps it alive, because in Kubernetes they are two pods. It writes the process id of the Envoy and its
// flags, one a line, into the file started.
func (s *standalone) prepare() error {
	envoy, err := testbed.EnvoyPath()
	if err != nil {
		return err
	}
	bin := s.file(filepath.Join("data", "envoy-versions", s.envoyVersion, "bin"))
	for _, folder := range []string{bin, s.file("resources")} {
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
`, envoy, s.file("envoy.log"), s.file("started"))
	if err := os.WriteFile(filepath.Join(bin, "envoy"), []byte(between), 0o700); err != nil {
		return err
	}
	if _, err := s.write("envoy-gateway.yaml", fmt.Sprintf(`apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
provider:
  type: Custom
  custom:
    resource: {type: File, file: {paths: [%[1]s/resources]}}
    infrastructure: {type: Host, host: {configHome: %[1]s/config, dataHome: %[1]s/data, stateHome: %[1]s/state, runtimeDir: %[1]s/runtime}}
logging: {level: {default: warn}}
extensionApis: {enableBackend: true, enableEnvoyPatchPolicy: true}
`, s.dir)); err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(s.tools, "envoy-gateway"), "certgen", "--local", "--config-home", s.file("config")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy-gateway certgen: %w: %s", err, out)
	}
	return nil
}

// apply replaces the file that Envoy Gateway watches.
func (s *standalone) apply(objects overlay) error {
	_, err := s.write("resources/overlay.yaml", objects.yaml())
	return err
}

// start starts Envoy Gateway, which starts its Envoy.
func (s *standalone) start() error {
	_ = os.Remove(s.file("started"))
	log, err := os.OpenFile(s.file("envoy-gateway.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.server = exec.Command(filepath.Join(s.tools, "envoy-gateway"), "server", "--config-path", s.file("envoy-gateway.yaml"))
	s.server.Env = append(os.Environ(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+built(""))
	s.server.Stdout, s.server.Stderr = log, log
	return s.server.Start()
}

// isLive returns an error until Envoy is live, and finds its admin.
func (s *standalone) isLive() error {
	words := strings.Split(s.read("started"), "\n")
	at := slices.Index(words, "--admin-address-path")
	if at < 0 {
		return fmt.Errorf("Envoy was not started with --admin-address-path: %q", words)
	}
	address, err := os.ReadFile(words[at+1])
	if err != nil {
		return err
	}
	s.pid, _ = strconv.Atoi(words[0])
	s.envoy = testbed.EnvoyAt("", strings.TrimSpace(string(address)), nil)
	_, err = s.envoy.Get("/ready")
	return err
}

// kill ends Envoy Gateway at once, and leaves its Envoy running.
func (s *standalone) kill() error {
	err := s.server.Process.Kill()
	_ = s.server.Wait()
	return err
}

// restart ends both, and starts them again.
func (s *standalone) restart() error {
	if err := s.kill(); err != nil {
		return err
	}
	if err := syscall.Kill(s.pid, syscall.SIGKILL); err != nil {
		return err
	}
	return s.start()
}

// listener returns where Envoy listens for a listener of the Gateway.
func (s *standalone) listener(name string) (string, error) {
	listeners, err := s.envoy.Listeners()
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listeners["default/envoy/"+name])
	if err != nil {
		return "", fmt.Errorf("there is no listener %s: %w", name, err)
	}
	return net.JoinHostPort("127.0.0.1", port), nil
}

// client is a load balancer's: it sends each probe on a new connection.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// probe sends a probe, and returns the status.
func (s *standalone) probe() (status int, err error) {
	address, err := s.listener("probe")
	if err != nil {
		return 0, err
	}
	reply, err := client.Get("http://" + address + "/")
	if err != nil {
		return 0, err
	}
	return reply.StatusCode, reply.Body.Close()
}

// expect returns a check that the probe gets a status, and that explain names the reason.
func (s *standalone) expect(status int, reason string) func() error {
	return func() error {
		got, err := s.probe()
		if err == nil && got != status {
			err = fmt.Errorf("the probe gets %d, want %d", got, status)
		}
		if err != nil {
			return err
		}
		return s.explains(fmt.Sprintf(`\n  answers %d %s `, status, reason))
	}
}

// explains fails unless explain reports a pattern.
func (s *standalone) explains(pattern string) error {
	return reports(pattern, "explain", "--admin", s.envoy.Admin)
}

// lints fails unless lint finds a rule in a text.
func (s *standalone) lints(rule, text string) error {
	file, err := s.write("lint.yaml", text)
	if err != nil {
		return err
	}
	return reports(`\[`+rule+`\]`, "lint", file)
}

// reports fails unless a pattern is in what the command prints.
func reports(pattern string, args ...string) error {
	out, err := exec.Command(built("healthgate"), args...).Output()
	if !regexp.MustCompile(pattern).Match(out) {
		return fmt.Errorf("healthgate %s does not report %s: %s (%v)", args[0], pattern, out, err)
	}
	return nil
}
