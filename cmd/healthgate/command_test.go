package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata/script run healthgate as main does.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"healthgate": main})
}

// Each script is a use of the command: its arguments, its output and its exit code.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PROJECT", root)
			env.Setenv("CONTAINER_LOG", "/nowhere")
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition != "root" {
				return false, fmt.Errorf("no condition %q", condition)
			}
			return os.Getuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "interrupted": interrupted, "envoy": envoy,
			"answering": answering, "crlf": crlf},
	})
}

// exits CODE ARGS…: healthgate ends with that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	err := ts.Exec("healthgate", args[1:]...)
	if exit, ended := err.(interface{ ExitCode() int }); ended {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if args[0] != string(rune('0'+code)) {
		ts.Fatalf("healthgate %v ended with %d, want %s", args[1:], code, args[0])
	}
}

// interrupted CODE ARGS…: healthgate ends with that exit code after SIGTERM, which it gets when it has printed a line. The file output
// gets them, without the time of day.
func interrupted(ts *testscript.TestScript, _ bool, args []string) {
	command := exec.Command(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "healthgate"), args[1:]...)
	command.Env = []string{"ADMIN_ADDRESS=" + ts.Getenv("ADMIN_ADDRESS"), "CONTAINER_LOG=" + ts.Getenv("CONTAINER_LOG")}
	out, err := command.StdoutPipe()
	ts.Check(err)
	ts.Check(command.Start())
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	ts.Check(err)
	ts.Check(command.Process.Signal(syscall.SIGTERM))
	rest, err := io.ReadAll(lines)
	ts.Check(err)
	_ = command.Wait() // the exit code is checked
	if code := command.ProcessState.ExitCode(); args[0] != strconv.Itoa(code) {
		ts.Fatalf("healthgate %v ended with %d, want %s", args[1:], code, args[0])
	}
	output := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d `).ReplaceAllString(first+string(rest), "")
	ts.Check(os.WriteFile(ts.MkAbs("output"), []byte(output), 0o600))
}

// envoy HEALTHY: admin of an Envoy with a gate and so many healthy hosts listens at ADMIN_ADDRESS from now on.
func envoy(ts *testscript.TestScript, _ bool, args []string) {
	dump, err := os.ReadFile(filepath.Join(ts.Getenv("PROJECT"), "internal/lint/testdata/good-dump-envoy-gateway.json"))
	ts.Check(err)
	const scope = "cluster.grpcroute/shop/checkout/rule/0."
	answers := map[string]string{
		"/config_dump": string(dump),
		"/server_info": `{"version": "b579d0/1.39.1/Clean/RELEASE/BoringSSL", "state": "LIVE"}`,
		"/stats":       "server.live: 1\n" + scope + "membership_healthy: " + args[0] + "\n" + scope + "membership_total: 1\n",
		"/clusters":    `{"cluster_statuses": [{"name": "grpcroute/shop/checkout/rule/0"}]}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, cmp.Or(answers[r.URL.Path], "{}"))
	}))
	ts.Defer(server.Close)
	ts.Setenv("ADMIN_ADDRESS", server.Listener.Addr().String())
}

// answering TEXT: a server that sends TEXT and closes the connection listens at ADMIN_ADDRESS from now on. If TEXT is not HTTP, it sends
// it unasked.
func answering(ts *testscript.TestScript, _ bool, args []string) {
	text, err := strconv.Unquote(`"` + args[0] + `"`)
	ts.Check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { listener.Close() })
	ts.Setenv("ADMIN_ADDRESS", listener.Addr().String())
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			if strings.HasPrefix(text, "HTTP/") {
				_, _ = conn.Read(make([]byte, 4096))
			}
			_, _ = io.WriteString(conn, text)
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
}

// crlf FILE: its lines end with CR LF from now on.
func crlf(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	text, err := os.ReadFile(name)
	ts.Check(err)
	ts.Check(os.WriteFile(name, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), 0o600))
}

// execute runs the command within the test.
func execute(ctx context.Context, stdin string, args ...string) (code int, stdout, stderr string) {
	command := newCommand()
	var out, err bytes.Buffer
	command.SetIn(strings.NewReader(stdin))
	command.SetOut(&out)
	command.SetErr(&err)
	code = run(ctx, command, args)
	return code, out.String(), err.String()
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A file that is not read as a whole is not written.
func TestLongFileIsNotWritten(t *testing.T) {
	lua, err := os.ReadFile("../../envoy/lua.yaml")
	if err != nil {
		t.Fatal(err)
	}
	long := string(lua) + strings.Repeat("# "+strings.Repeat("x", 1<<10)+"\n", 9<<10)
	file := write(t, "envoy.yaml", long)
	code, _, stderr := execute(t.Context(), "", "config", "--cluster", "service", "--into", file, "--write")
	if text, _ := os.ReadFile(file); code != exitFailed || string(text) != long ||
		!strings.Contains(stderr, "is longer than 8 MiB, which is the limit: nothing is written") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// A file that can't be replaced stays as it is, with nothing beside it.
func TestFileIsReplacedAsAWholeOrNotAtAll(t *testing.T) {
	file := write(t, "envoy.yaml", "before\n")
	if err := replaceFile(file, []byte("something else\n"), []byte("after\n")); err == nil ||
		!strings.Contains(err.Error(), "has changed meanwhile") {
		t.Errorf("a file that has changed: %v", err)
	}
	if err := replaceFile("/dev/null", nil, []byte("after\n")); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device: %v", err)
	}
	if err := replaceFile(filepath.Dir(file), nil, nil); err == nil {
		t.Error("a folder is replaced")
	}
	files, err := os.ReadDir(filepath.Dir(file))
	if text, _ := os.ReadFile(file); err != nil || len(files) != 1 || string(text) != "before\n" {
		t.Errorf("%v: %v, and the file has %q", err, files, text)
	}
	if err := replaceFile(file, []byte("before\n"), []byte("after\n")); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(file); string(text) != "after\n" {
		t.Errorf("the file has %q", text)
	}
}
