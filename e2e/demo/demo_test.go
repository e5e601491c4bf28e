package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// running is the demo command, as make starts it.
type running struct {
	*exec.Cmd
	t   *testing.T
	tmp string // its TMPDIR
	out string // the file with its output
}

// begin starts build/demo.
func begin(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{Cmd: exec.CommandContext(t.Context(), filepath.Join(testbed.Root(), "build", "demo"), args...), t: t, tmp: t.TempDir()}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r.out, r.Dir, r.Stdout, r.Stderr = out.Name(), testbed.Root(), out, out
	r.Env = append(os.Environ(), "TMPDIR="+r.tmp)
	r.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.Start(); err != nil {
		t.Fatalf("%v; make build/demo builds it", err)
	}
	return r
}

func (r *running) printed() string { return read(r.t, r.out) }

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// await waits until a pattern matches the output, and returns the match.
func (r *running) await(pattern string) []string {
	r.t.Helper()
	var found []string
	err := testbed.WaitFor(r.t.Context(), time.Minute, func() error {
		if found = regexp.MustCompile(pattern).FindStringSubmatch(r.printed()); found == nil {
			return fmt.Errorf("it has not printed %q", pattern)
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("%v; it printed:\n%s", err, r.printed())
	}
	return found
}

// end waits until the demo ends, and compares its result and its output with patterns.
func (r *running) end(passes bool, patterns ...string) {
	r.t.Helper()
	defer time.AfterFunc(2*time.Minute, func() { _ = r.Process.Kill() }).Stop()
	if err := r.Wait(); (err == nil) != passes {
		r.t.Errorf("it ended with %v: %s", err, r.printed())
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(r.printed()) {
			r.t.Errorf("it does not print %q:\n%s", pattern, r.printed())
		}
	}
}

// leftNothing checks that the demo has removed its files.
func (r *running) leftNothing() {
	r.t.Helper()
	if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
		r.t.Errorf("it left %v (%v)", left, err)
	}
}

// hasNoKey checks that no file has the key of the certificate.
func (r *running) hasNoKey() {
	r.t.Helper()
	if keys, err := filepath.Glob(filepath.Join(r.tmp, "*", "*.key")); err != nil || len(keys) > 0 {
		r.t.Errorf("there are %v (%v)", keys, err)
	}
}

// usedPort returns a port that is in use.
func usedPort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

func TestPortsInUseAreReportedBeforeAnythingStarts(t *testing.T) {
	https, admin := fmt.Sprint(usedPort(t)), fmt.Sprint(usedPort(t))
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"admin": {[]string{"-https-port", "0", "-admin-port", admin},
			`^demo: port ` + admin + ` \(admin\) is in use; try: make run ADMIN_PORT=\d+\n$`},
		"both, of the dynamic module": {[]string{"-variant", "module", "-https-port", https, "-admin-port", admin},
			`^demo: port ` + https + ` \(https\) is in use, port ` + admin + ` \(admin\) is in use; ` +
				`try: make run VARIANT=module HTTPS_PORT=\d+ ADMIN_PORT=\d+\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, append([]string{"run"}, test.args...)...)
			r.end(false, test.want)
			r.leftNothing()
		})
	}
}

func TestFailedStartLeavesTheLogAndNoKey(t *testing.T) {
	envoy := filepath.Join(t.TempDir(), "envoy")
	program := "#!/bin/sh\n[ \"$1\" != --version ] || exit 0\necho out of order\nexit 1\n"
	if err := os.WriteFile(envoy, []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ENVOY", envoy)
	r := begin(t, "run", "-https-port", "0", "-admin-port", "0")
	r.end(false, `out of order`)
	if log := read(t, r.await(`the whole log is in (\S+)`)[1]); log != "out of order\n" {
		t.Errorf("the log is %q", log)
	}
	r.hasNoKey()
}

func TestRunPrintsEachChangeAndLeavesNoFiles(t *testing.T) {
	for _, variant := range []string{"plugin", "module"} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			const cluster = `gate default \S+ cluster service: `
			r := begin(t, "run", "-variant", variant, "-https-port", "0", "-admin-port", "0")
			r.await(`gate default \S+: 200 healthgate_ok\n`)
			r.hasNoKey()
			runLine(t, r.await(`\n  (curl -X POST http://\S+/not-serving) +make one backend`)[1])
			r.await(cluster + `2 healthy and 0 degraded of 3 hosts`)
			if strings.Contains(r.printed(), "gate default (ingress/): 503") {
				t.Errorf("the answer has changed:\n%s", r.printed())
			}
			runLine(t, r.await(`\n  (curl -X POST '\S+/not-serving') +make all backends`)[1])
			r.await(cluster + `0 healthy and 0 degraded of 3 hosts`)
			r.await(`gate default \S+: 503 healthgate_cluster_unhealthy`)
			runLine(t, "curl -X POST "+r.await(`all backends unhealthy; undo: ('\S+/serving')`)[1])
			r.await(cluster + `3 healthy and 0 degraded of 3 hosts, was `)
			if err := r.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			r.end(true)
			r.leftNothing()
		})
	}
}

// runLine runs a command that the demo has printed.
func runLine(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", line+" --fail --silent --show-error").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

func TestScriptShowsEachAnswerWithEachVariant(t *testing.T) {
	for variant, want := range map[string][]string{
		"plugin": {`a gRPC call still succeeds: `, `\n  next +the backends fail`},
		"module": {`grpc.health.v1.Health/Check answers SERVING\n`, `/Check answers NOT_SERVING\n`, `behind Envoy \S+ with libhealthgate.so\n`},
	} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := begin(t, "script", "-variant", variant)
			r.end(true, append(want, `cluster service: 2 healthy`, `with 200 ok\n`, `with 503 unavailable\n`,
				`answers 503 healthgate_cluster_unhealthy `, `answers 503 healthgate_draining `, `all steps passed\n$`)...)
			r.leftNothing()
		})
	}
}

func TestCertificateKeyIsPrivateAndKeepReusesTheCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	crt, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	made := func(args ...string) string {
		t.Helper()
		begin(t, append([]string{"cert", "-dir", dir}, args...)...).end(true)
		if _, err := tls.LoadX509KeyPair(crt, key); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		return read(t, crt)
	}
	first := made()
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
	if made("-keep") != first {
		t.Error("-keep replaced a valid certificate, which a running Envoy still presents")
	}
	if made() == first {
		t.Error("the certificate is kept without -keep")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	made("-keep")
	if os.Getuid() == 0 {
		return
	}
	// A folder of another user, as after a chown.
	for path, mode := range map[string]os.FileMode{crt: 0o400, key: 0o400, dir: 0o500} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	begin(t, "cert", "-dir", dir).end(false, "sudo rm -r "+dir)
}

func TestDemoOutsideACheckoutPrintsAnError(t *testing.T) {
	cmd := exec.Command(filepath.Join(testbed.Root(), "build", "demo"), "run", "-https-port", "0", "-admin-port", "0")
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err == nil || !strings.Contains(text, "run this inside the checkout of Healthgate") || strings.Contains(text, "goroutine") {
		t.Errorf("it ended with %v: %s", err, out)
	}
}
