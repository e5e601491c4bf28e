package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeAdmin is Envoy's admin interface, as far as a drain asks it.
type fakeAdmin struct {
	mutex   sync.Mutex
	posted  []string           // paths, in order
	active  func(poll int) int // the number of requests; negative without a stat of them
	polls   int
	refuses string // a path that is answered with 500
	page    string // if not "", the answer to everything, as of another server
}

func (a *fakeAdmin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if r.Method == http.MethodPost {
		a.posted = append(a.posted, r.URL.RequestURI())
	}
	switch {
	case r.URL.Path == a.refuses:
		w.WriteHeader(http.StatusInternalServerError)
	case a.page != "":
		fmt.Fprint(w, a.page)
	case r.URL.Path == "/server_info":
		fmt.Fprint(w, `{"state": "LIVE", "version": "x", "a_field_of_tomorrow": 1}`)
	case r.URL.Path == "/stats":
		fmt.Fprint(w, "http.admin.downstream_rq_active: 1\n")
		if a.active != nil && a.active(a.polls) >= 0 {
			fmt.Fprintf(w, "http.ingress.downstream_rq_active: %d\n", a.active(a.polls))
		}
		a.polls++
	case r.Method != http.MethodPost:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// serve has the fake listen, and sets its address and an empty log for the command.
func (a *fakeAdmin) serve(t *testing.T, network string) (address, log string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hg") // a short path, since a socket's is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen(network, map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(dir, "admin.sock")}[network])
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: a}}
	server.Start()
	t.Cleanup(server.Close)
	if address = listener.Addr().String(); network == "unix" {
		address = "unix://" + address
	}
	log = write(t, "log", "")
	t.Setenv("ADMIN_ADDRESS", address)
	t.Setenv("CONTAINER_LOG", log)
	return address, log
}

func TestDrain(t *testing.T) {
	const delayed = "failing the gate; Envoy keeps serving for 1m0s\n"
	const passed = "the delay is over; connections are closed after their next reply; "
	const blind = "requests are not visible: no stat http.<stat_prefix>.downstream_rq_active (a stats matcher?); waiting for all of 2s\n"
	always := func(n int) func(int) int { return func(int) int { return n } }
	for name, test := range map[string]struct {
		network   string
		active    func(poll int) int
		interrupt time.Duration
		code      int
		took      time.Duration
		want      string // the output; … stands for any text
	}{
		"no request": {"tcp", always(0), 0, exitFine, time.Minute + 4*drainPoll,
			delayed + passed + "0 requests are under way\nno request is left\n"},
		"over a socket": {"unix", always(0), 0, exitFine, time.Minute + 4*drainPoll,
			delayed + passed + "0 requests are under way\nno request is left\n"},
		"requests that end": {"tcp", func(poll int) int { return max(0, 3-poll) }, 0, exitFine, time.Minute + 6*drainPoll,
			delayed + passed + "3 requests are under way\nno request is left\n"},
		"requests that come again": {"tcp", func(poll int) int { return 1 + poll%2 }, 0, exitFine, time.Minute + 2*time.Second,
			delayed + passed + "1 request is under way\n…left after the timeout of 2s, and cut off\n"},
		"requests that do not end": {"tcp", always(3), 0, exitFine, time.Minute + 2*time.Second,
			delayed + passed + "3 requests are under way\n3 requests are left after the timeout of 2s, and cut off\n"},
		"requests that end and come again": {"tcp", func(poll int) int { return poll % quietPolls }, 0, exitFine, time.Minute + 2*time.Second,
			delayed + passed + "0 requests are under way\n…left after the timeout of 2s, and cut off\n"},
		"without a stat": {"tcp", always(-1), 0, exitFine, time.Minute + 2*time.Second,
			delayed + passed + "requests are not visible\n" + blind + "the timeout of 2s is over; requests that are left are cut off\n"},
		"interrupted in the delay": {"tcp", always(2), 30 * time.Second, exitProblems, 30 * time.Second,
			delayed + "interrupted before the delay is over; 2 requests are under way\n"},
		"interrupted after it": {"tcp", always(2), 61 * time.Second, exitProblems, 61 * time.Second,
			delayed + passed + "2 requests are under way\ninterrupted before the timeout of 2s; 2 requests are under way\n"},
	} {
		t.Run(name, func(t *testing.T) {
			admin := &fakeAdmin{active: test.active}
			_, log := admin.serve(t, test.network)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.interrupt > 0 {
					time.AfterFunc(test.interrupt, cancel)
				}
				start := time.Now()
				code, stdout, stderr := execute(ctx, "", "drain", "--delay", "1m", "--timeout", "2s")
				took := time.Since(start)
				if logged, err := os.ReadFile(log); err != nil || string(logged) != stdout || stderr != "" {
					t.Errorf("the container's log has %q, %v; stderr has %q", logged, err, stderr)
				}
				before, after, _ := strings.Cut(test.want, "…")
				lines := strings.ReplaceAll(stdout, "healthgate: drain: ", "")
				if code != test.code || took != test.took || !strings.HasPrefix(lines, before) || !strings.HasSuffix(lines, after) {
					t.Errorf("after %v it ended with %d and printed\n%s", took, code, lines)
				}
				if want := []string{"/healthcheck/fail", "/drain_listeners?graceful&skip_exit"}; !slices.Equal(admin.posted, want) {
					t.Errorf("it posted %q, want %q", admin.posted, want)
				}
			})
		})
	}
}

func TestDrainReportsThatAdminDoesNotAnswer(t *testing.T) {
	code, stdout, _ := execute(t.Context(), "", "drain", "--admin", "127.0.0.1:1", "--log", "/nowhere")
	if code != exitFailed || !strings.HasSuffix(stdout, "set --admin or ADMIN_ADDRESS to the address of admin: nothing is drained\n") {
		t.Errorf("it ended with %d and said %q", code, stdout)
	}
	(&fakeAdmin{refuses: "/drain_listeners"}).serve(t, "tcp")
	if code, stdout, _ = execute(t.Context(), "", "drain", "--delay", "0s", "--timeout", "0s"); code != exitFailed ||
		!strings.Contains(stdout, "/drain_listeners is answered with 500 Internal Server Error: clients keep their connections\n") {
		t.Errorf("it ended with %d and said %q", code, stdout)
	}
}

// Something else may listen there, and answer 200 to everything.
func TestAnotherServerIsNeitherAliveNorDrained(t *testing.T) {
	for _, page := range []string{"<html>ok</html>", "{}", " ", "null"} {
		for _, verb := range []string{"alive", "drain"} {
			t.Run(page+" "+verb, func(t *testing.T) {
				admin := &fakeAdmin{page: page}
				address, _ := admin.serve(t, "tcp")
				code, stdout, stderr := execute(t.Context(), "", verb)
				if code != exitFailed || len(admin.posted) > 0 || !strings.Contains(stdout+stderr, "admin at "+address+": ") {
					t.Errorf("it ended with %d, posted %q, and said %q, %q", code, admin.posted, stdout, stderr)
				}
			})
		}
	}
}

func TestDrainReadsItsEnvironment(t *testing.T) {
	(&fakeAdmin{active: func(int) int { return 0 }}).serve(t, "unix")
	t.Setenv("DRAIN_DELAY", "0.25s")
	t.Setenv("DRAIN_TIMEOUT", "0s")
	code, stdout, _ := execute(t.Context(), "", "drain")
	if code != exitFine || !strings.Contains(stdout, "serving for 250ms") || !strings.HasSuffix(stdout, "no request is left\n") {
		t.Errorf("it ended with %d and said %q", code, stdout)
	}
}

// The container's log is a pipe, whose reader may have ended.
func TestLogWithoutAReaderDoesNotBlock(t *testing.T) {
	(&fakeAdmin{}).serve(t, "tcp")
	log := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(log, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := execute(t.Context(), "", "drain", "--log", log, "--delay", "0s", "--timeout", "0s"); code != exitFine {
		t.Errorf("it ended with %d and said %q", code, stdout)
	}
}
