package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"healthgate/internal/lint"
)

// dumpedEnvoy is admin of an Envoy that has a configuration of lint's corpus, and whose gauges say nothing.
func dumpedEnvoy(t *testing.T) string {
	t.Helper()
	dump, err := os.ReadFile("../../internal/lint/testdata/good-dump-envoy-gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	if served, found, err := lint.Live("f", dump); err != nil || len(served) != 1 || len(found) > 0 {
		t.Fatalf("%v: %+v, %v", err, served, found)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/config_dump":
			w.Write(dump)
		case "/server_info":
			fmt.Fprint(w, `{"version": "b579d0/1.39.1/Clean/RELEASE/BoringSSL", "state": "LIVE"}`)
		case "/stats":
			fmt.Fprint(w, "server.live: 1\n")
		case "/clusters":
			fmt.Fprint(w, `{"cluster_statuses": [{"name": "grpcroute/shop/checkout/rule/0"}]}`)
		default:
			fmt.Fprint(w, "{}")
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestExplainPrintsEachGate(t *testing.T) {
	address := dumpedEnvoy(t)
	code, stdout, stderr := execute(t.Context(), "", "explain", "--admin", address)
	if code != exitProblems || stderr != "" {
		t.Errorf("it ended with %d and said %q", code, stderr)
	}
	for _, want := range []string{
		"Envoy 1.39.1 is LIVE, up 0s; admin at " + address + "\n",
		"\ngate default: GET / on listener shop/eg/http (address not known)\n",
		"  answers 503 healthgate_cluster_empty (by the numbers; it was not asked)\n",
		"  cluster grpcroute/shop/checkout/rule/0: 0 healthy and 0 degraded of 0 hosts (0 excluded), needs 1: cluster_empty\n",
		"  unknown a probe: Envoy has not bound its listener (/listeners lacks it)\n",
		"  next    cluster \"grpcroute/shop/checkout/rule/0\" has no hosts: EDS has none, which is normal for a service scaled to 0",
		"\nlint: 0 findings in its configuration\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	code, stdout, _ = execute(t.Context(), "", "explain", "--admin", address, "--output", "json", "--probe=false")
	var report struct {
		Gates []struct {
			Answer struct{ Details string }
		}
		Findings []any
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitProblems || len(report.Gates) != 1 ||
		report.Gates[0].Answer.Details != "healthgate_cluster_empty" || report.Findings == nil {
		t.Errorf("%v: it ended with %d and printed %s", err, code, stdout)
	}
}

func TestExplainReportsThatAdminDoesNotAnswer(t *testing.T) {
	for _, args := range [][]string{{"127.0.0.1:1"}, {"127.0.0.1:1", "--watch"}, {"unix:///nowhere/admin.sock"}} {
		code, stdout, stderr := execute(t.Context(), "", append([]string{"explain", "--admin"}, args...)...)
		if code != exitFailed || stdout != "" || !strings.HasPrefix(stderr, "healthgate: admin at "+args[0]) {
			t.Errorf("%v: it ended with %d and said %q, %q", args, code, stdout, stderr)
		}
	}
}

// If another server answers in admin's place, one line reports that, with the address.
func TestExplainReportsAnotherServer(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"404":     http.NotFound,
		"a page":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello</html>") },
		"no dump": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
		"null":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "null") },
		"a dump alone that is no dump": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, map[bool]string{true: `{"version": "x"}`, false: "[1]"}[r.URL.Path == "/server_info"])
		},
		"a cut line": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-length", "99")
			fmt.Fprint(w, "{")
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			t.Cleanup(server.Close)
			address := server.Listener.Addr().String()
			code, stdout, stderr := execute(t.Context(), "", "explain", "--admin", address)
			if code != exitFailed || stdout != "" || !strings.HasPrefix(stderr, "healthgate: admin at "+address+": ") ||
				strings.Count(stderr, "\n") != 1 {
				t.Errorf("it ended with %d and said %q, %q", code, stdout, stderr)
			}
		})
	}
}

// A hung main thread is reported after the short timeout of /server_info, not after the minute of the dump.
func TestExplainReadsServerInfoFirst(t *testing.T) {
	asked := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	if code, _, _ := execute(t.Context(), "", "explain", "--admin", server.Listener.Addr().String()); code != exitFailed {
		t.Errorf("it ended with %d", code)
	}
	if first := <-asked; first != "/server_info" || len(asked) > 0 {
		t.Errorf("it asked first for %s, and for %d more", first, len(asked))
	}
}

func TestExplainWatchesUntilItsContextEnds(t *testing.T) {
	address := dumpedEnvoy(t)
	for output, want := range map[string]string{"text": " gate default (shop/eg/http/): 503 healthgate_cluster_empty\n",
		"json": `"to":"503 healthgate_cluster_empty"}` + "\n"} {
		t.Run(output, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			command := newCommand()
			var out strings.Builder
			command.SetOut(&out)
			args := []string{"explain", "--admin", address, "--watch", "--interval", "50ms", "--output", output}
			if code := run(ctx, command, args); code != exitFine {
				t.Errorf("it ended with %d", code)
			}
			if lines := strings.Count(out.String(), "\n"); lines != 2 || !strings.Contains(out.String(), want) {
				t.Errorf("it printed %q", out.String())
			}
		})
	}
}
