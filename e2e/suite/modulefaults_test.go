package suite

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"healthgate/e2e/testbed"
)

// Faults that only concern the dynamic module. docs/failure-modes.md describes the module's behaviour.

// While Envoy's main thread is busy with a large CDS update, the answers stay right.
func TestFaultAThousandClustersPushed(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var own []*clusterv3.Cluster
	s := newSite(t, clustersByCDS(&own), withHealthService())
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	watching := s.newCrowd(10, s.dialGRPC())
	watching.await(serving, 1)
	load := s.probeUntilStopped(2)
	for range times(1, 3) {
		many := slices.Clone(own)
		for i := range 1000 {
			one := proto.CloneOf(own[0])
			testbed.RenameCluster(one, fmt.Sprint("pushed", i))
			testbed.Patch(one, `{type: STATIC, dns_lookup_family: null, health_checks: null}`)
			many = append(many, one)
		}
		for _, clusters := range [][]*clusterv3.Cluster{many, own} {
			began := time.Now()
			s.writeClusters(clusters...)
			s.await(3*settle, func() error { // admin may be slow, too
				const active = "cluster_manager.active_clusters"
				if stats, err := s.envoy.Stats(active); err != nil || stats[active] != uint64(len(clusters)) {
					return fmt.Errorf("%s is %d, want %d: %w", active, stats[active], len(clusters), err)
				}
				return nil
			})
			t.Logf("%d clusters after %v", len(clusters), time.Since(began))
		}
	}
	// After that the gate follows the backend.
	answers, errs := load.end()
	late := strings.Count(s.envoy.Log(), "Probes are answered with healthgate_stale until")
	if len(errs) > 0 || answers[200] < 100 || late == 0 && len(answers) != 1 {
		t.Errorf("the answers were %v and %d errors, want only 200; the main thread was busy for 5 s %d times", answers, len(errs), late)
	}
	if late == 0 {
		watching.mustHaveSeen(1)
	}
	s.setServing(0)
	s.awaitProbe(s.client("h2"), 503, settle)
	watching.await(notServing, 2)
}

// liveStream opens a long call to the service, by another route.
func (s *site) liveStream() grpc.ClientStream {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 6*settle)
	s.t.Cleanup(cancel)
	stream, err := s.dialGRPC().NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/live.Service/Watch")
	if err == nil {
		err = errors.Join(stream.SendMsg(asked("")), stream.CloseSend(), stream.RecvMsg(&grpc_health_v1.HealthCheckResponse{}))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

// A removed cluster's gauges stay as long as one of its streams is open; the cluster is unknown all the same.
func TestClusterRemovedWithAnOpenStreamIsUnknown(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var clusters []*clusterv3.Cluster
	s := newSite(t, clustersByCDS(&clusters), withHealthService(), withConfig(func(c *testbed.Bootstrap) {
		c.SetGateKey("clusters", []any{map[string]any{"name": "service", "min_healthy": 0}})
		testbed.PrependRoute(c.VirtualHost(), testbed.Parse[*routev3.Route](
			`{match: {prefix: /live.Service/}, route: {cluster: service, timeout: 0s, prefix_rewrite: /grpc.health.v1.Health/}}`))
	}))
	client := s.client("h2")
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
	live := s.liveStream()
	watching := s.newCrowd(10, s.dialGRPC())
	watching.await(serving, 1)
	s.writeClusters()
	s.awaitProbe(client, 503, settle)
	watching.await(notServing, 2)
	stats := s.stats("")
	if stats["healthgate.default.failed_cluster_unknown"] == 0 {
		t.Error("the cluster is not unknown")
	}
	if stats["cluster.service.membership_healthy"] != 1 || stats["cluster_manager.active_clusters"] != 0 {
		t.Errorf("with %d clusters membership_healthy is %d: the gauge does not stay, so this shows nothing",
			stats["cluster_manager.active_clusters"], stats["cluster.service.membership_healthy"])
	}
	s.writeClusters(clusters...)
	s.awaitProbe(client, 200, settle)
	watching.await(serving, 3)
	if err := s.backends[0].SetServing(false); err != nil { // makes the backend send on the stream
		t.Fatal(err)
	}
	if err := live.RecvMsg(&grpc_health_v1.HealthCheckResponse{}); err != nil {
		t.Errorf("the live stream has ended: %v", err)
	}
}

// watchAgain calls Watch until ctx ends, again whenever the stream ends, and counts the streams. Any status but SERVING is an error.
func (s *site) watchAgain(ctx context.Context, health grpc_health_v1.HealthClient, streams *atomic.Int64) error {
	for ctx.Err() == nil {
		stream, err := health.Watch(ctx, asked("router.Router"), grpc.WaitForReady(true))
		for n := 0; err == nil; n++ {
			var reply *grpc_health_v1.HealthCheckResponse
			if reply, err = stream.Recv(); err != nil {
				break
			}
			if reply.Status != serving {
				return fmt.Errorf("a watcher was sent %v", reply.Status)
			}
			if n == 0 {
				streams.Add(1)
			}
		}
		if code := status.Code(err); ctx.Err() == nil && code != codes.Unavailable {
			return fmt.Errorf("a watcher's stream ended with %w", err)
		}
	}
	return nil
}

// After each update of the listener old filter chains drain, with their watchers.
func TestFaultListenerUpdatesUnderWatches(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var config *testbed.Bootstrap
	s := newSite(t, withLDS(), withHealthService(), withConfig(func(c *testbed.Bootstrap) { config = c.Clone() }))
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var watching sync.WaitGroup
	var streams atomic.Int64
	const watchers = 20
	wrong := make(chan error, watchers)
	for _, conn := range s.conns(watchers) {
		watching.Go(func() {
			if err := s.watchAgain(ctx, grpc_health_v1.NewHealthClient(conn), &streams); err != nil {
				wrong <- err
			}
		})
	}
	s.await(settle, func() error {
		if n := streams.Load(); n < watchers {
			return fmt.Errorf("%d watchers have a stream", n)
		}
		return nil
	})
	load := s.probeUntilStopped(2)
	warmUp, updates := times(10, 300), times(60, 1000)
	var before float64
	began := time.Now()
	for i := range warmUp + updates {
		if i == warmUp {
			before, began = s.residentMiB(), time.Now()
		}
		config.SetGateKey("response", map[string]any{"unhealthy": map[string]any{"body": fmt.Sprint(i, "\n")}})
		s.update(config)
	}
	took := time.Since(began)
	s.await(settle, func() error {
		if n := streams.Load(); n < 2*watchers {
			return fmt.Errorf("%d watchers had %d streams: no chain has drained", watchers, n)
		}
		return nil
	})
	load.mustAllBe(200, 100)
	leave()
	watching.Wait()
	close(wrong)
	for err := range wrong {
		t.Error(err)
	}
	s.awaitStat("healthgate.default.grpc_watchers", 0)
	t.Logf("%d updates in %v, %d streams of %d watchers; %.1f MiB, then %.1f", updates, took, streams.Load(), watchers, before,
		s.residentMiB())
	s.await(60*time.Second, func() error {
		if after := s.residentMiB(); after > before+16 {
			return fmt.Errorf("envoy has grown by %.1f MiB", after-before)
		}
		return nil
	})
}

// During a hot restart both Envoys answer right, the old one ends its watchers' streams, and both end well.
func TestFaultHotRestartUnderWatches(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	port := unusedAddress(t).Port
	s := newSite(t, withHealthService(), withConfig(func(c *testbed.Bootstrap) { c.Listen(port, 0) }))
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	old := s.newCrowd(10, s.conns(2)...)
	old.await(serving, 1)
	load := s.probeUntilStopped(4)
	before := s.envoy
	s.restart(testbed.Options{TakeOver: before})
	if err := before.Wait(3 * settle); err != nil {
		t.Errorf("the old Envoy ended with %v", err)
	}
	old.mustEnd()
	watching := s.newCrowd(10, s.conns(2)...)
	watching.await(serving, 1)
	s.awaitStat("healthgate.default.grpc_watchers", 20)
	load.mustAllBe(200, 50)
	s.setServing(0)
	watching.await(notServing, 2)
	if err := s.envoy.Stop(); err != nil {
		t.Errorf("the new Envoy ended with %v", err)
	}
	for _, e := range []*testbed.Envoy{before, s.envoy} {
		if log := e.Log(); strings.Contains(log, "Caught ") {
			t.Error(testbed.Tail(log, 40))
		}
	}
}

// If a stats matcher excludes stats, the gate answers as long as it knows enough, and otherwise fails.
func TestFaultStatsFiltered(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	for name, test := range map[string]struct {
		matcher      *metricsv3.StatsMatcher
		up, draining int
	}{
		"healthgate.":                 {excludeStats("healthgate."), 200, 503},
		"listener_manager.":           {excludeStats("listener_manager."), 200, 503},
		"server.":                     {excludeStats("server."), 200, 200},
		"cluster.service.membership_": {excludeStats("cluster.service.membership_"), 503, 503},
		"all":                         {testbed.Parse[*metricsv3.StatsMatcher](`reject_all: true`), 503, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withHealthService(), withConfig(func(c *testbed.Bootstrap) {
				c.StatsConfig = &metricsv3.StatsConfig{StatsMatcher: test.matcher}
			}))
			if err := s.backends[0].SetServing(true); err != nil {
				t.Fatal(err)
			}
			client := s.client("h2")
			crowd := s.newCrowd(1, s.dialGRPC())
			crowd.await(statusOf(test.up == 200), 1)
			s.awaitProbe(client, test.up, settle)
			s.post("/healthcheck/fail")
			s.awaitProbe(client, test.draining, settle)
			crowd.await(statusOf(test.draining == 200), 1)
		})
	}
}

// With many gates on many workers, each probe is answered by its own gate.
func TestManyGatesOnFourWorkers(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	const gates = 8
	gate := func(listener string, i int) string {
		return fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy": %d}], "path": "/%d", "stat_prefix": "%s%d",
			"response": {"healthy": {"body": "%s %d\n"}, "unhealthy": {"body": "%s %d fails\n"}}}`, 1+i%2, i, listener, i, listener, i, listener, i)
	}
	s := newSite(t, backends(2), onEveryRoute(), func(p *plan) { p.options.Workers = 4 }, withConfig(func(c *testbed.Bootstrap) {
		other := c.Clone()
		for i := range gates {
			addGate(c, fmt.Sprint("gate", i), gate("first", i))
			addRoute(c.VirtualHost(), fmt.Sprint("/route", i), strings.Replace(gate("route", i), `"/`, `"/route`, 1))
			addGate(other, fmt.Sprint("gate", i), gate("second", i))
		}
		c.AddListener(other.CopyListener("second"))
	}))
	second := s.at("second")
	var one sync.WaitGroup
	for _, up := range []int{2, 1, 0, 1, 2} {
		s.setServing(up)
		s.stats("healthgate.") // after a sample
		for worker := range 8 {
			one.Go(func() {
				client := s.client(protocols[worker%2]) // a new connection, on any worker
				for i := range gates {
					for listener, at := range map[string]*site{"first": s, "second": second, "route": s} {
						path := fmt.Sprintf("/%d", i)
						if listener == "route" {
							path = fmt.Sprint("/route", i)
						}
						want := fmt.Sprintf("%s %d", listener, i)
						if up < 1+i%2 {
							want += " fails"
						}
						if reply, err := at.do(client, "GET", path, nil); err != nil || reply.body != want+"\n" {
							t.Errorf("%d up: %s at the listener for %s: got %+v, %v, want %q", up, path, listener, reply, err, want)
						}
					}
				}
			})
		}
		one.Wait()
	}
}

// lockedThreads matches a thread that is bound to a goroutine in a trace of Go's scheduler: one of Envoy's threads that has called Go, and
// a spare one for the next.
var lockedThreads = regexp.MustCompile(`(?m)^  M\d+: .* lockedg=\d+`)

// threadsInGo returns how many there are in the scheduler's newest traces. The number never falls, and other lines of the log may
// split a trace.
func (s *site) threadsInGo() (most int) {
	s.t.Helper()
	const traces = 6
	before := strings.Count(s.envoy.Log(), "\nSCHED ")
	s.await(settle, func() error {
		if n := strings.Count(s.envoy.Log(), "\nSCHED "); n < before+traces {
			return fmt.Errorf("the scheduler has written %d traces since", n-before)
		}
		return nil
	})
	all := strings.Split(s.envoy.Log(), "\nSCHED ")
	for _, trace := range all[len(all)-traces:] {
		most = max(most, len(lockedThreads.FindAllString(trace, -1)))
	}
	return most
}

// workersWithConnections returns how many workers have had a connection of the first listener.
func (s *site) workersWithConnections() (n int) {
	s.t.Helper()
	for name, value := range s.stats("listener.") {
		if strings.Contains(name, ".worker_") && strings.HasSuffix(name, ".downstream_cx_total") && !strings.Contains(name, "admin") &&
			value > 0 {
			n++
		}
	}
	return n
}

// No worker of Envoy calls Go for a probe, Check, List or Watch, but one does for a report. Go's scheduler knows each thread that has
// called Go.
func TestNoWorkerCallsGo(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withHealthService(), withEnv("GODEBUG=schedtrace=100,scheddetail=1"), withConfig(func(c *testbed.Bootstrap) {
		c.SetGateKey("response", map[string]any{"details": true})
	}))
	s.setServing(1)
	expect(t, "the gate's first probe", s.probe(s.client("h2")), 200, "ok\n", nil)
	before := s.threadsInGo()
	accept := "*/*"
	all := func() {
		for i := range 40 {
			client := s.client(protocols[i%2])
			for range 10 {
				if accept == "application/json" {
					s.mustDo(client, "GET", "/", nil, "accept", accept)
				} else {
					s.probe(client)
				}
			}
			if _, err := s.health().Check(t.Context(), asked("")); err != nil {
				t.Fatal(err)
			}
		}
	}
	all()
	crowd := s.newCrowd(10, s.conns(10)...)
	crowd.await(serving, 1)
	s.setServing(0)
	crowd.await(notServing, 2)
	all()
	crowd.leave()
	s.awaitStat("healthgate.default.grpc_watchers", 0)
	if n := s.workersWithConnections(); n != 2 {
		t.Errorf("%d workers have had connections, want both", n)
	}
	if after := s.threadsInGo(); before == 0 || after != before {
		t.Errorf("%d threads have called Go, %d before", after, before)
	}
	accept = "application/json" // Go writes the report
	all()
	if after := s.threadsInGo(); after < before+1 { // one of the two has answered the gate's first probe
		t.Errorf("%d threads have called Go after reports, want the other worker besides %d: nothing was counted", after, before)
	}
}
