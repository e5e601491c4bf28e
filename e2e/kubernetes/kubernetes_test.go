package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	discoveryv1 "k8s.io/api/discovery/v1"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// picks returns the targets that a balancer sends to, or its error.
func picks(b *balancer) string {
	seen := map[string]bool{}
	for range 100 {
		target, _, err := b.pick()
		if err != nil {
			return err.Error()
		}
		seen[target] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), " ")
}

func TestBalancerSendsToTargetsThatPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var listed, failing atomic.Pointer[[]string]
		b := &balancer{
			list: func(context.Context) ([]string, error) {
				if *listed.Load() == nil {
					return nil, errors.New("the API server is down")
				}
				return *listed.Load(), nil
			},
			check: func(address string) error {
				if slices.Contains(*failing.Load(), address) {
					return errors.New("503")
				}
				return nil
			},
		}
		running := false
		for _, step := range []struct {
			name            string
			listed, failing []string
			after           time.Duration
			want            string
		}{
			{"no list", nil, nil, time.Second, errNoTarget.Error()},
			{"both pass", []string{"a", "b"}, nil, 2 * time.Second, "a b"},
			{"one fails before its next check", []string{"a", "b"}, []string{"b"}, time.Second, "a b"},
			{"one fails", []string{"a", "b"}, []string{"b"}, 5 * time.Second, "a"},
			{"it passes again", []string{"a", "b"}, nil, 5 * time.Second, "a b"},
			{"a new one fails", []string{"a", "b", "c"}, []string{"c"}, 2 * time.Second, "a b"},
			{"one is removed", []string{"a", "c"}, []string{"c"}, 2 * time.Second, "a"},
			{"no list any more: they stay", nil, []string{"c"}, 2 * time.Second, "a"},
			{"all fail", []string{"a", "c"}, []string{"a", "c"}, 6 * time.Second, errNoTarget.Error()},
		} {
			listed.Store(&step.listed)
			failing.Store(&step.failing)
			if !running {
				go b.run(t.Context())
				running = true
			}
			time.Sleep(step.after)
			synctest.Wait()
			if got := picks(b); got != step.want {
				t.Errorf("%s: sends to %q, want %q", step.name, got, step.want)
			}
		}
	})
}

func TestEndpointsServe(t *testing.T) {
	var slicesOf []discoveryv1.EndpointSlice
	if err := json.Unmarshal([]byte(`[
		{"ports": [{"port": 8443}], "endpoints": [
			{"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true}},
			{"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
			{"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false}},
			{"addresses": ["10.0.0.4"], "conditions": {}}]},
		{"ports": [{"port": 8443}], "endpoints": [{"addresses": ["fd00::1"], "conditions": {"serving": true}}]}]`), &slicesOf); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(serving(slicesOf)), "[10.0.0.1:8443 10.0.0.2:8443 10.0.0.4:8443 [fd00::1]:8443]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// serve returns the address of a service behind TLS, like Envoy, which may fail, and a function that ends it at once.
func serve(t *testing.T, fails *atomic.Bool) (address string, end func()) {
	t.Helper()
	certificate, err := testbed.NewCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tls, err := credentials.NewServerTLSFromFile(certificate.CertFile, certificate.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(tls))
	router.Register(server, func(*router.RecommendRequest) (*router.RecommendResponse, error) {
		if fails.Load() {
			return nil, status.Error(codes.Internal, "a message that differs each time")
		}
		return &router.RecommendResponse{}, nil
	})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), server.Stop
}

// awaitCounts waits until the counts of each load are as a function wants them.
func awaitCounts(t *testing.T, loads map[string]load, wanted func(Counts) bool) {
	t.Helper()
	for name, l := range loads {
		if err := testbed.WaitFor(t.Context(), 20*time.Second, func() error {
			if counts := l.counts(); !wanted(counts) {
				return fmt.Errorf("load %s has the counts %+v", name, counts)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadsCountFailedCalls(t *testing.T) {
	var fails atomic.Bool
	address, _ := serve(t, &fails)
	b := &balancer{rotation: []string{address}}
	loads := startLoads(address, b)
	defer func() {
		for _, l := range loads {
			if _, err := l.calls.Stop(); err != nil {
				t.Error(err)
			}
		}
	}()
	awaitCounts(t, loads, func(c Counts) bool { return c.Calls["OK"] > 10 && len(c.Calls) == 1 })
	fails.Store(true)
	awaitCounts(t, loads, func(c Counts) bool { return c.Calls["Internal"] > 5 && len(c.Calls) == 2 })
}

func TestStreamThatIsCutIsAnError(t *testing.T) {
	address, end := serve(t, &atomic.Bool{})
	conn, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := call(conn); err != nil {
		t.Fatal(err)
	}
	if err := stream(conn, time.Millisecond); err != nil {
		t.Errorf("a stream that is not cut: %v", err)
	}
	time.AfterFunc(10*time.Millisecond, end)
	if err := stream(conn, time.Minute); err == nil {
		t.Error("no error of a stream that is cut")
	}
}

func TestTableShowsFailedCalls(t *testing.T) {
	other, lossless := task{what: "x"}, task{what: "x", lossless: true}
	type answers = map[string]int64
	b, c := Counts{answers{"OK": 200}, answers{"OK": 4, "Canceled": 1}}, Counts{Calls: answers{"OK": 30}}
	whole := map[string]Counts{"A": {Calls: answers{"OK": 300}}, "B": b, "C": c}
	lossy := map[string]Counts{"A": {Calls: answers{"OK": 298, "Unavailable": 2}}, "B": {Calls: b.Calls}, "C": c}
	for name, test := range map[string]struct {
		result Result
		want   string
	}{
		"nothing lost": {Result{task: lossless, Counts: whole},
			"| x | 0 of 300 | 0 of 200 | 0 of 30 | yes | 1 of 5 streams cut |"},
		"lost calls of a lossless task": {Result{task: lossless, Counts: lossy},
			"| x | 2 of 300 | 0 of 200 | 0 of 30 | NO | 2 Unavailable |"},
		"lost calls of another task": {Result{task: other, Counts: lossy, Remark: "r"},
			"| x | 2 of 300 | 0 of 200 | 0 of 30 | yes | r; 2 Unavailable |"},
		"an error": {Result{task: other, Counts: whole, Err: errors.New("no kubectl")},
			"| x | 0 of 300 | 0 of 200 | 0 of 30 | NO | 1 of 5 streams cut; no kubectl |"},
		"no load":              {Result{task: other}, "| x | 0 of 0 | 0 of 0 | 0 of 0 | NO | |"},
		"a load without calls": {Result{task: other, Counts: map[string]Counts{"A": {}}}, "| x | 0 of 0 | 0 of 0 | 0 of 0 | NO | |"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := write(&out, []Result{test.result}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(strings.Fields(strings.Split(out.String(), "\n")[2]), " "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestCountsSinceAnEarlierTime(t *testing.T) {
	type answers = map[string]int64
	before := Counts{answers{"OK": 1, "Unavailable": 1}, nil}
	after := Counts{answers{"OK": 2, "Unavailable": 1, "Internal": 1}, answers{"Canceled": 1}}
	want := Counts{answers{"OK": 1, "Internal": 1}, answers{"Canceled": 1}}
	if got := after.since(before); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
