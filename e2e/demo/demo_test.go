package main

import (
	"bytes"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// running is the demo command, as make starts it.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	tmp    string // its TMPDIR
	ended  chan error
	mutex  sync.Mutex
	output bytes.Buffer
}

func (r *running) Write(text []byte) (int, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.output.Write(text)
}

func (r *running) printed() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.output.String()
}

// begin starts build/demo.
func begin(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	r := &running{t: t, tmp: t.TempDir(), ended: make(chan error, 1)}
	r.cmd = exec.Command(filepath.Join(testbed.Root(), "build", "demo"), args...)
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = testbed.Root(), r, r
	r.cmd.Env = append(append(os.Environ(), "TMPDIR="+r.tmp), env...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("%v; make build/demo builds it", err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	return r
}

// end waits until the demo ends.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(2 * time.Minute):
		r.t.Fatalf("it does not end; it printed:\n%s", r.printed())
		return nil
	}
}

// await waits until a pattern matches the output, and returns the match.
func (r *running) await(pattern string) []string {
	r.t.Helper()
	matcher := regexp.MustCompile(pattern)
	var found []string
	err := testbed.WaitFor(r.t.Context(), time.Minute, func() error {
		if found = matcher.FindStringSubmatch(r.printed()); found == nil {
			return fmt.Errorf("it has not printed %q", pattern)
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("%v; it printed:\n%s", err, r.printed())
	}
	return found
}

// files returns the names of the files in the demo's TMPDIR.
func (r *running) files() (names []string) {
	r.t.Helper()
	err := filepath.WalkDir(r.tmp, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return names
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
	https, admin := usedPort(t), usedPort(t)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"admin": {[]string{"-https-port", "0", "-admin-port", fmt.Sprint(admin)},
			fmt.Sprintf(`^demo: port %d \(admin\) is in use; try: make run ADMIN_PORT=\d+\n$`, admin)},
		"both, of the dynamic module": {[]string{"-variant", "module", "-https-port", fmt.Sprint(https), "-admin-port", fmt.Sprint(admin)},
			fmt.Sprintf(`^demo: port %d \(https\) is in use, port %d \(admin\) is in use; `, https, admin) +
				`try: make run VARIANT=module HTTPS_PORT=\d+ ADMIN_PORT=\d+\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, nil, append([]string{"run"}, test.args...)...)
			if err := r.end(); err == nil {
				t.Error("it ended without an error")
			}
			if !regexp.MustCompile(test.want).MatchString(r.printed()) {
				t.Errorf("it printed %q, want %s", r.printed(), test.want)
			}
			if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
				t.Errorf("it left %v (%v)", left, err)
			}
		})
	}
}

func TestSuggestedPortIsFreeAndNotAnotherChosenPort(t *testing.T) {
	number := usedPort(t)
	other := free(number, nil)
	if err := listen(other); err != nil {
		t.Errorf("port %d: %v", other, err)
	}
	if next := free(number, []port{{other, "", ""}}); next == other || next <= number {
		t.Errorf("port %d is suggested, which is chosen already (in use: %d)", next, number)
	}
}

func TestFailedStartLeavesTheLogAndNoKey(t *testing.T) {
	envoy := filepath.Join(t.TempDir(), "envoy")
	program := "#!/bin/sh\n[ \"$1\" != --version ] || exit 0\necho out of order\nexit 1\n"
	if err := os.WriteFile(envoy, []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	r := begin(t, []string{"ENVOY=" + envoy}, "run", "-https-port", "0", "-admin-port", "0")
	if err := r.end(); err == nil {
		t.Error("it ended without an error")
	}
	if !strings.Contains(r.printed(), "out of order") {
		t.Errorf("it does not print the reason: %s", r.printed())
	}
	if files := r.files(); fmt.Sprint(files) != "[envoy.log]" {
		t.Errorf("it left %v, want only the log", files)
	}
}

func TestRunPrintsEachChangeAndLeavesNoFiles(t *testing.T) {
	for _, variant := range []string{"plugin", "module"} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := begin(t, nil, "run", "-variant", variant, "-https-port", "0", "-admin-port", "0")
			r.await(`gate default +200 healthgate_ok\n`)
			for _, name := range r.files() {
				if strings.HasSuffix(name, ".key") {
					t.Errorf("%s is there while it runs", name)
				}
			}
			runLine(t, r.await(`\n  (curl -X POST http://\S+/not-serving) +make one backend`)[1])
			r.await(`cluster service +2 healthy and 0 degraded of 3 hosts\n`)
			if regexp.MustCompile(`gate default +503`).MatchString(r.printed()) { // 503 alone may be part of a port
				t.Errorf("the answer has changed:\n%s", r.printed())
			}
			runLine(t, r.await(`\n  (curl -X POST '\S+/not-serving') +make all backends`)[1])
			r.await(`cluster service +0 healthy and 0 degraded of 3 hosts\n`)
			r.await(`gate default +503 healthgate_cluster_unhealthy\n`)
			r.await(`gRPC calls +still succeed: .*panic_threshold`)
			runLine(t, "curl -X POST "+r.await(`all backends unhealthy; undo: ('\S+/serving')`)[1])
			r.await(`cluster service +3 healthy and 0 degraded of 3 hosts\n(.*\n)*.*3 healthy`)
			r.await(`gRPC calls +succeed, and go to healthy hosts only\n`)
			if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if err := r.end(); err != nil {
				t.Errorf("it ended with %v: %s", err, r.printed())
			}
			if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
				t.Errorf("it left %v (%v)", left, err)
			}
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
		"plugin": {
			`a gRPC call +still succeeds`, `answers 503 healthgate_cluster_unhealthy \(`, `gate default +503 healthgate_draining`,
		},
		"module": {
			`grpc.health.v1.Health/Check +SERVING`, `grpc.health.v1.Health/Check +NOT_SERVING`, `behind Envoy \S+ with libhealthgate.so\n`,
		},
	} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			r := begin(t, nil, "script", "-variant", variant)
			if err := r.end(); err != nil {
				t.Fatalf("it ended with %v: %s", err, r.printed())
			}
			for _, pattern := range append(want, `cluster service +2 healthy`, `GET / +200 ok`, `GET / +503 unavailable`, `all steps passed\n$`) {
				if !regexp.MustCompile(pattern).MatchString(r.printed()) {
					t.Errorf("it does not print %q:\n%s", pattern, r.printed())
				}
			}
			if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
				t.Errorf("it left %v (%v)", left, err)
			}
		})
	}
}

func TestCertificateKeyIsPrivateAndKeepReusesTheCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	made := func(args ...string) string {
		t.Helper()
		r := begin(t, nil, append([]string{"cert", "-dir", dir}, args...)...)
		if err := r.end(); err != nil {
			t.Fatalf("it ended with %v: %s", err, r.printed())
		}
		text, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := made()
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")); err != nil {
		t.Error(err)
	}
	if key, err := os.Stat(filepath.Join(dir, "tls.key")); err != nil || key.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", key.Mode(), err)
	}
	if made("-keep") != first {
		t.Error("-keep replaced a valid certificate, which a running Envoy still presents")
	}
	if made() == first {
		t.Error("the certificate is kept without -keep")
	}
	if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	made("-keep")
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")); err != nil {
		t.Errorf("-keep without a key: %v", err)
	}
	// A folder of another user, as after a chown.
	if os.Getuid() == 0 {
		return
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "tls.crt"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "tls.key"), 0o400); err != nil {
		t.Fatal(err)
	}
	r := begin(t, nil, "cert", "-dir", dir)
	if err := r.end(); err == nil || !strings.Contains(r.printed(), "sudo rm -r "+dir) {
		t.Errorf("it ended with %v: %s", err, r.printed())
	}
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

// textOf returns the lines of an SVG.
func textOf(t *testing.T, svg string) (lines []string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(svg))
	inside := false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if inside = token.Name.Local == "text"; inside {
				lines = append(lines, "")
			}
		case xml.EndElement:
			inside = false
		case xml.CharData:
			if inside {
				lines[len(lines)-1] += string(token)
			}
		}
	}
}

func TestRecordingShowsEachLineAsPrinted(t *testing.T) {
	r := &recorder{out: io.Discard, began: time.Now()}
	fmt.Fprint(r, "# one\n  two <&> \"3\"")
	fmt.Fprintf(r, " and so on\n\n%s end\n", strings.Repeat("word ", 25))
	got := textOf(t, draw("make demo", r.lines))
	want := []string{
		"$ make demo", "# one", `  two <&> "3" and so on`, "",
		strings.TrimSpace(strings.Repeat("word ", 20)), "    word word word word word  end",
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("it shows\n%q\nwant\n%q", got, want)
	}
}

func TestCommittedRecordingIsOfTheCurrentDemo(t *testing.T) {
	svg, err := os.ReadFile(filepath.Join(testbed.Root(), "docs", "demo.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(svg), "%!") {
		t.Error("docs/demo.svg has a formatting error")
	}
	text := strings.Join(textOf(t, string(svg)), "\n") + "\n"
	for _, step := range recorded {
		_, after, found := strings.Cut(text, "# "+step.what+"\n")
		if !found {
			t.Errorf("docs/demo.svg lacks %q; `make recording` updates it", step.what)
			continue
		}
		if !strings.Contains(after, fmt.Sprintf("%d healthy", step.healthy)) {
			t.Errorf("%q does not show %d healthy hosts", step.what, step.healthy)
		}
	}
	if !strings.Contains(text, "answers 503 healthgate_cluster_unhealthy") {
		t.Error("docs/demo.svg explains no 503; `make recording` updates it")
	}
}
