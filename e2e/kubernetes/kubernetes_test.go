package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// fakeTargets are the targets of a balancer, which a test changes.
type fakeTargets struct {
	mu     sync.Mutex
	listed []string
	fails  map[string]bool
	closed []string
}

func (c *fakeTargets) set(listed []string, failing ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed, c.fails = listed, map[string]bool{}
	for _, address := range failing {
		c.fails[address] = true
	}
}

func (c *fakeTargets) balancer() *balancer[string] {
	return &balancer[string]{
		interval: 5 * time.Second,
		list: func(context.Context) ([]string, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.listed == nil {
				return nil, errors.New("the API server is down")
			}
			return slices.Clone(c.listed), nil
		},
		check: func(_ context.Context, address string) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.fails[address] {
				return errors.New("503")
			}
			return nil
		},
		dial: func(address string) (string, error) { return address, nil },
		close: func(address string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.closed = append(c.closed, address)
		},
	}
}

// picks returns the targets that a balancer sends to, or its error.
func picks(b *balancer[string]) string {
	seen := map[string]bool{}
	for range 10 {
		conn, err := b.pick()
		if err != nil {
			return err.Error()
		}
		seen[conn] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), " ")
}

func TestBalancerSendsToTargetsThatPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fakeTargets
		b := c.balancer()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go b.run(ctx)
		for _, step := range []struct {
			name    string
			listed  []string
			failing []string
			after   time.Duration
			want    string
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
			c.set(step.listed, step.failing...)
			time.Sleep(step.after)
			synctest.Wait()
			if got := picks(b); got != step.want {
				t.Errorf("%s: sends to %q, want %q", step.name, got, step.want)
			}
		}
		if !slices.Equal(c.closed, []string{"b"}) {
			t.Errorf("closed %v, want only b", c.closed)
		}
	})
}

func TestEndpointsServe(t *testing.T) {
	var asked *http.Request
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r
		_, _ = w.Write([]byte(`{"items": [
			{"ports": [{"port": 8443}], "endpoints": [
				{"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true}},
				{"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
				{"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false}},
				{"addresses": ["10.0.0.4"], "conditions": {}}]},
			{"ports": [{"port": 8443}], "endpoints": [{"addresses": ["fd00::1"], "conditions": {"serving": true}}]}]}`))
	}))
	defer api.Close()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"token": "secret", "namespace": "healthgate-e2e",
		"ca.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, err := newEndpoints(folder, api.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.list(t.Context())
	if want := []string{"10.0.0.1:8443", "10.0.0.2:8443", "10.0.0.4:8443", "[fd00::1]:8443"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if asked.Header.Get("Authorization") != "Bearer secret" || !strings.Contains(asked.URL.Path, "/namespaces/healthgate-e2e/") {
		t.Errorf("asked for %v with %v", asked.URL, asked.Header)
	}
	if _, err := newEndpoints(t.TempDir(), "x"); err == nil {
		t.Error("no error without a service account")
	}
}

// serve returns the address of a service behind TLS, like Envoy, which may fail, and a function that ends it at once.
func serve(t *testing.T, fails func() error) (address string, end func()) {
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
	router.Register(server, func(*structpb.ListValue) (*structpb.ListValue, error) { return &structpb.ListValue{}, fails() })
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
	var mu sync.Mutex
	var failure error
	address, _ := serve(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		return failure
	})
	b := newBalancer(func(context.Context) ([]string, error) { return []string{address}, nil })
	b.check = func(context.Context, string) error { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go b.run(ctx)
	if err := testbed.WaitFor(ctx, 10*time.Second, func() error { _, err := b.pick(); return err }); err != nil {
		t.Fatal(err)
	}
	loads, err := startLoads(address, b)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, l := range loads {
			if _, err := l.calls.Stop(); err != nil {
				t.Error(err)
			}
		}
	}()
	awaitCounts(t, loads, func(c Counts) bool { return c.Calls > 10 })
	for name, l := range loads {
		if counts := l.counts(); counts.Failed > 0 {
			t.Errorf("%s: %+v", name, counts)
		}
	}
	mu.Lock()
	failure = status.Error(codes.Internal, "a message that differs each time")
	mu.Unlock()
	awaitCounts(t, loads, func(c Counts) bool { return c.Failed > 5 && c.Reasons["Internal"] == c.Failed })
}

func TestStreamThatIsCutIsAnError(t *testing.T) {
	address, end := serve(t, func() error { return nil })
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

func TestDeploymentIsSettledOnceAllPodsAreUpdated(t *testing.T) {
	three := int32(3)
	settled := appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "envoy", Generation: 2},
		Spec:       appsv1.DeploymentSpec{Replicas: &three},
		Status:     appsv1.DeploymentStatus{ObservedGeneration: 2, UpdatedReplicas: 3, AvailableReplicas: 3},
	}
	ready := corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	ending := ready
	ending.DeletionTimestamp = &metav1.Time{}
	all := []corev1.Pod{ready, ready, ready}
	with := func(change func(*appsv1.Deployment)) appsv1.Deployment {
		d := *settled.DeepCopy()
		change(&d)
		return d
	}
	for name, test := range map[string]struct {
		deployment appsv1.Deployment
		pods       []corev1.Pod
		want       bool
	}{
		"all updated":           {settled, all, true},
		"a change not observed": {with(func(d *appsv1.Deployment) { d.Generation = 3 }), all, false},
		"an old pod is left":    {with(func(d *appsv1.Deployment) { d.Status.UpdatedReplicas = 2 }), all, false},
		"one not available":     {with(func(d *appsv1.Deployment) { d.Status.AvailableReplicas = 2 }), all, false},
		"one terminates":        {settled, []corev1.Pod{ready, ready, ending}, false},
		"one more terminates":   {settled, append(slices.Clone(all), ending), false},
		"one is not Ready":      {settled, []corev1.Pod{ready, ready, {}}, false},
		"one is missing":        {settled, all[:2], false},
		"scaled to 0": {with(func(d *appsv1.Deployment) {
			d.Spec.Replicas = new(int32)
			d.Status = appsv1.DeploymentStatus{ObservedGeneration: 2}
		}), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkSettled(test.deployment, test.pods); (err == nil) != test.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTableShowsFailedCalls(t *testing.T) {
	whole := map[string]Counts{"A": {Calls: 300}, "B": {Calls: 200, Streams: 5, Cut: 1}, "C": {Calls: 30}}
	lossy := map[string]Counts{"A": {Calls: 300, Failed: 2, Reasons: map[string]int64{"Unavailable": 2}}, "B": {Calls: 200}, "C": {Calls: 30}}
	for name, test := range map[string]struct {
		result Result
		passed bool
		want   string
	}{
		"nothing lost": {Result{Run: "x", Lossless: true, Counts: whole}, true,
			"| x | 0 of 300 | 0 of 200 | 0 of 30 | yes | 1 of 5 streams cut |"},
		"lost calls of a lossless task": {Result{Run: "x", Lossless: true, Counts: lossy}, false,
			"| x | 2 of 300 | 0 of 200 | 0 of 30 | NO | 2 Unavailable |"},
		"lost calls of another task": {Result{Run: "x", Counts: lossy, Remark: "r"}, true,
			"| x | 2 of 300 | 0 of 200 | 0 of 30 | yes | r; 2 Unavailable |"},
		"an error": {Result{Run: "x", Counts: whole, Error: "no kubectl"}, false,
			"| x | 0 of 300 | 0 of 200 | 0 of 30 | NO | 1 of 5 streams cut; no kubectl |"},
		"no load":              {Result{Run: "x"}, false, "| x | 0 of 0 | 0 of 0 | 0 of 0 | NO | |"},
		"a load without calls": {Result{Run: "x", Counts: map[string]Counts{"A": {}}}, false, "| x | 0 of 0 | 0 of 0 | 0 of 0 | NO | |"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.result.passed(); got != test.passed {
				t.Errorf("passed: %v", got)
			}
			var b strings.Builder
			if err := write(&b, []Result{test.result}); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(b.String()), "\n")
			if got := strings.Join(strings.Fields(lines[2]), " "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestCountsSinceAnEarlierTime(t *testing.T) {
	before := Counts{Calls: 2, Failed: 1, Reasons: map[string]int64{"Unavailable": 1}}
	after := Counts{Calls: 4, Failed: 2, Reasons: map[string]int64{"Unavailable": 1, "Internal": 1}, Streams: 1, Cut: 1}
	want := Counts{Calls: 2, Failed: 1, Reasons: map[string]int64{"Internal": 1}, Streams: 1, Cut: 1}
	if got := after.since(before); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTasksCanBeChosen(t *testing.T) {
	if all, err := choose(""); err != nil || len(all) != len(tasks) {
		t.Errorf("got %d, %v", len(all), err)
	}
	if some, err := choose("kill-envoy,restart-envoy"); err != nil || len(some) != 2 || some[0].name != "restart-envoy" {
		t.Errorf("got %v, %v", some, err)
	}
	if _, err := choose("restart-envoy,sleep"); err == nil {
		t.Error("sleep is accepted as a task")
	}
}
