package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
)

// fakeAdmin is Envoy's admin interface, as far as a drain asks it.
type fakeAdmin struct {
	mutex   sync.Mutex
	asked   []string // the posted paths, in order
	active  func(look int) string
	looks   int
	refuses string // a path that is answered with 500
}

func (a *fakeAdmin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if r.URL.Path == a.refuses {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	switch r.URL.Path {
	case "/server_info":
		fmt.Fprint(w, `{"state": "LIVE", "version": "x", "a_field_of_tomorrow": 1}`)
	case "/stats":
		fmt.Fprint(w, "http.admin.downstream_rq_active: 1\n")
		if line := a.active(a.looks); line != "" {
			fmt.Fprintln(w, line)
		}
		a.looks++
	default:
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		a.asked = append(a.asked, r.URL.RequestURI())
	}
}

// serve has the fake listen on both ways to admin, and returns their addresses.
func (a *fakeAdmin) serve(t *testing.T) map[string]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hg") // a short path, since a socket's is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	addresses := map[string]string{}
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(dir, "admin.sock")} {
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: a}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		addresses[network] = listener.Addr().String()
	}
	addresses["unix"] = "unix://" + addresses["unix"]
	return addresses
}

func none(int) string { return "http.ingress.downstream_rq_active: 0" }

// aDrain drains with short times and a separate log.
func aDrain(t *testing.T, address string, args ...string) (code int, lines []string) {
	t.Helper()
	log := write(t, "log", "")
	t.Setenv("CONTAINER_LOG", log)
	code, stdout, stderr := execute(t, "", append([]string{"drain", "--admin", address, "--delay", "0.1s", "--timeout", "3s"}, args...)...)
	if stderr != "" {
		t.Errorf("it said %q", stderr)
	}
	if logged, err := os.ReadFile(log); err != nil || string(logged) != stdout {
		t.Errorf("the container's log has %q, %v", logged, err)
	}
	for line := range strings.Lines(stdout) {
		said, ours := strings.CutPrefix(line, "healthgate: drain: ")
		if !ours {
			t.Errorf("a line does not say whose it is: %q", line)
		}
		lines = append(lines, strings.TrimSpace(said))
	}
	return code, lines
}

func TestDrainFailsTheGateThenClosesConnections(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			admin := &fakeAdmin{active: none}
			code, lines := aDrain(t, admin.serve(t)[network])
			want := []string{
				"failing the gate; Envoy keeps serving for 100ms",
				"the delay is over; connections are closed after their next reply; 0 requests are under way",
				"no request is left",
			}
			if code != exitFine || !slices.Equal(lines, want) {
				t.Errorf("it ended with %d and said %q", code, lines)
			}
			if want := []string{"/healthcheck/fail", "/drain_listeners?graceful&skip_exit"}; !slices.Equal(admin.asked, want) {
				t.Errorf("it asked %q, want %q", admin.asked, want)
			}
			if admin.looks < quietPolls {
				t.Errorf("it looked %d times, want %d", admin.looks, quietPolls)
			}
		})
	}
}

// stubAdmin is an admin interface without a connection.
type stubAdmin struct {
	active func(poll int) map[string]uint64
	polls  int
	posted []string
}

func (a *stubAdmin) ServerInfo(ctx context.Context) (*adminv3.ServerInfo, error) {
	return nil, ctx.Err()
}

func (a *stubAdmin) Post(ctx context.Context, path string) error {
	a.posted = append(a.posted, path)
	return ctx.Err()
}

func (a *stubAdmin) Stats(ctx context.Context, _ string) (map[string]uint64, error) {
	a.polls++
	return a.active(a.polls - 1), ctx.Err()
}

func requests(n int) map[string]uint64 {
	return map[string]uint64{"http.ingress.downstream_rq_active": uint64(n), "http.admin.downstream_rq_active": 1}
}

func TestDrainWaitsForRequests(t *testing.T) {
	for name, test := range map[string]struct {
		active func(poll int) map[string]uint64
		last   string
		took   time.Duration
	}{
		"that end": {func(poll int) map[string]uint64 { return requests(max(0, 3-poll)) }, "no request is left", 6 * drainPoll},
		"that come again": {func(poll int) map[string]uint64 { return requests(1 + poll%2) }, "left after the timeout of 2s, and cut off",
			2 * time.Second},
		"that do not end": {func(int) map[string]uint64 { return requests(3) }, "3 requests are left after the timeout of 2s, and cut off",
			2 * time.Second},
		"that end and come again": {func(poll int) map[string]uint64 { return requests(poll % quietPolls) },
			"left after the timeout of 2s, and cut off", 2 * time.Second},
		"without a stat": {func(int) map[string]uint64 { return nil }, "the timeout of 2s is over; requests that are left are cut off",
			2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				d := drain{reporter{"drain", &out, ""}, &stubAdmin{active: test.active}, time.Minute, 2 * time.Second}
				start := time.Now()
				err := d.run(t.Context())
				if took := time.Since(start); err != nil || took != time.Minute+test.took || !strings.HasSuffix(out.String(), test.last+"\n") {
					t.Errorf("%v: after %v it printed %s", err, took, out.String())
				}
				if blind := strings.Contains(out.String(), "requests are not visible: no stat"); blind != (name == "without a stat") {
					t.Errorf("it printed %s", out.String())
				}
			})
		})
	}
}

func TestDrainReportsThatAdminDoesNotAnswer(t *testing.T) {
	code, lines := aDrain(t, "127.0.0.1:1")
	if last := lines[len(lines)-1]; code != exitFailed || !strings.HasSuffix(last,
		"set --admin or ADMIN_ADDRESS to the address of admin: nothing is drained") {
		t.Errorf("it ended with %d and said %q", code, lines)
	}
	code, lines = aDrain(t, (&fakeAdmin{active: none, refuses: "/drain_listeners"}).serve(t)["tcp"])
	if code != exitFailed || !strings.HasSuffix(lines[1], "/drain_listeners is answered with 500 Internal Server Error: clients keep their "+
		"connections") {
		t.Errorf("it ended with %d and said %q", code, lines)
	}
}

// Something else may listen there, and answer 200 to everything.
func TestAnotherServerIsNeitherAliveNorDrained(t *testing.T) {
	for name, answer := range map[string]string{"a page": "<html>ok</html>", "an object": "{}", "nothing": "", "null": "null"} {
		for _, verb := range []string{"alive", "drain"} {
			t.Run(name+" "+verb, func(t *testing.T) {
				var posted atomic.Bool
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					posted.Store(posted.Load() || r.Method == http.MethodPost)
					fmt.Fprint(w, answer)
				}))
				t.Cleanup(server.Close)
				address := server.Listener.Addr().String()
				code, stdout, stderr := execute(t, "", verb, "--log", "/nowhere", "--admin", address)
				if code != exitFailed || posted.Load() || !strings.Contains(stdout+stderr, "admin at "+address+": ") {
					t.Errorf("it ended with %d, posted %v, and said %q, %q", code, posted.Load(), stdout, stderr)
				}
			})
		}
	}
}

// An interrupted drain closes connections, prints how many requests are left, and ends at once.
func TestInterruptedDrainEndsInOrder(t *testing.T) {
	for name, after := range map[string]time.Duration{"in the delay": 30 * time.Second, "after it": 90 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				admin := &stubAdmin{active: func(int) map[string]uint64 { return requests(2) }}
				d := drain{reporter{"drain", &out, ""}, admin, time.Minute, time.Minute}
				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				start := time.Now()
				err := d.run(ctx)
				if took := time.Since(start); !errors.Is(err, reported(exitProblems)) || took > after+drainPoll ||
					!strings.Contains(out.String(), "interrupted before the ") || !strings.HasSuffix(out.String(), "2 requests are under way\n") {
					t.Errorf("%v: after %v it printed %s", err, took, out.String())
				}
				if want := []string{"/healthcheck/fail", "/drain_listeners?graceful&skip_exit"}; !slices.Equal(admin.posted, want) {
					t.Errorf("it posted %q, want %q", admin.posted, want)
				}
			})
		})
	}
}

func TestDrainReadsItsEnvironment(t *testing.T) {
	admin := &fakeAdmin{active: none}
	t.Setenv("ADMIN_ADDRESS", admin.serve(t)["unix"])
	t.Setenv("CONTAINER_LOG", "/nowhere")
	t.Setenv("DRAIN_DELAY", "0.25s")
	t.Setenv("DRAIN_TIMEOUT", "0s")
	code, stdout, _ := execute(t, "", "drain")
	if code != exitFine || !strings.Contains(stdout, "serving for 250ms") || !strings.HasSuffix(stdout, "no request is left\n") {
		t.Errorf("it ended with %d and said %q", code, stdout)
	}
}

// The container's log is a pipe, whose reader may have ended.
func TestLogWithoutAReaderDoesNotBlock(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(log, 0o600); err != nil {
		t.Fatal(err)
	}
	admin := &fakeAdmin{active: none}
	code, stdout, _ := execute(t, "", "drain", "--log", log, "--delay", "0s", "--admin", admin.serve(t)["tcp"])
	if code != exitFine || !strings.HasSuffix(stdout, "no request is left\n") {
		t.Errorf("it ended with %d and said %q", code, stdout)
	}
}

func TestAliveNeedsOnlyAnAnswer(t *testing.T) {
	t.Setenv("CONTAINER_LOG", "/nowhere")
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			admin := &fakeAdmin{active: none}
			address := admin.serve(t)[network]
			if code, stdout, stderr := execute(t, "", "alive", "--admin", address); code != exitFine || stdout+stderr != "" {
				t.Errorf("it ended with %d and said %q, %q", code, stdout, stderr)
			}
			admin.refuses = "/server_info"
			log := write(t, "log", "")
			code, _, stderr := execute(t, "", "alive", "--admin", address, "--log", log)
			if code != exitFailed || !strings.HasPrefix(stderr, "healthgate: alive: admin at "+address) {
				t.Errorf("refused, it ended with %d and said %q", code, stderr)
			}
			if logged, err := os.ReadFile(log); err != nil || string(logged) != stderr {
				t.Errorf("the container's log has %q, %v", logged, err)
			}
		})
	}
	if code, _, stderr := execute(t, "", "alive", "--admin", "9901"); code != exitFailed || !strings.Contains(stderr, "is neither host:port") {
		t.Errorf("with no address it ended with %d and said %q", code, stderr)
	}
}
