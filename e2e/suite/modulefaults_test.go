package suite

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"healthgate/e2e/testbed"
)

// Faults that only concern the dynamic module. docs/failure-modes.md describes the module's behaviour.

// While Envoy's main thread is busy with a large CDS update, the answers stay right.
func TestFaultAThousandClustersPushed(t *testing.T) {
	t.Parallel()
	var own []*clusterv3.Cluster
	s := newHealthSite(t, clustersByCDS(&own))
	watching := s.newCrowd(10, s.dialGRPC()).first(serving)
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
	answers := load.end()
	late := strings.Count(s.envoy.Log(), "Probes are answered with healthgate_stale until")
	if late > 0 {
		delete(answers, "503")
	} else {
		watching.mustHaveSeenAtMost(1)
	}
	if answers["200"] < 100 || len(answers) != 1 {
		t.Errorf("the answers were %v, want only 200; the main thread was busy for 5 s %d times", answers, late)
	}
	// After that the gate follows the backend.
	s.setServing(0)
	s.awaitProbe(s.client("h2"), 503, settle)
	watching.await(notServing, 2)
}

// A removed cluster's gauges stay as long as one of its streams is open; the cluster is unknown all the same.
func TestClusterRemovedWithAnOpenStreamIsUnknown(t *testing.T) {
	t.Parallel()
	var clusters []*clusterv3.Cluster
	s := newHealthSite(t, clustersByCDS(&clusters), withConfig(func(c *testbed.Bootstrap) {
		c.SetGateKey("clusters", []any{map[string]any{"name": "service", "min_healthy": 0}})
		testbed.PrependRoute(c.VirtualHost(), testbed.Parse[*routev3.Route](
			`{match: {prefix: /, headers: [{name: user-agent, string_match: {prefix: live}}]}, route: {cluster: service, timeout: 0s}}`))
	}))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	live := s.newCrowd(1, s.dialGRPC(grpc.WithUserAgent("live"))).first(serving) // a long call of the service itself
	watching := s.newCrowd(10, s.dialGRPC()).first(serving)
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
	s.setBackend(0, false) // makes the backend send on the stream
	live.await(notServing, 2)
}

// After each update of the listener old filter chains drain, with their watchers.
func TestFaultListenerUpdatesUnderWatches(t *testing.T) {
	t.Parallel()
	var config *testbed.Bootstrap
	s := newHealthSite(t, withLDS(), withConfig(func(c *testbed.Bootstrap) { config = c.Clone() }))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	const watchers = 20
	conns := s.conns(watchers)
	// Each watcher calls Watch again whenever its stream ends. An answer is how it has ended.
	watching := testbed.StartLoad(testbed.Pace{Clients: watchers}, func(i int) string {
		stream, err := grpc_health_v1.NewHealthClient(conns[i]).Watch(ctx, asked("router.Router"), grpc.WaitForReady(true))
		for err == nil {
			var reply *grpc_health_v1.HealthCheckResponse
			if reply, err = stream.Recv(); err == nil && reply.Status != serving {
				return reply.Status.String()
			}
		}
		return status.Code(err).String()
	})
	s.awaitStat("healthgate.default.grpc_watchers", watchers)
	load := s.probeUntilStopped(2)
	s.mustNotGrow(16, times(10, 300), times(60, 1000), func(i int) {
		config.SetGateKey("response", map[string]any{"unhealthy": map[string]any{"body": fmt.Sprint(i, "\n")}})
		s.update(config)
	})
	s.awaitCount("streams have ended with an old chain", watchers, func() int { return int(watching.Answers()["Unavailable"]) })
	load.mustAllPass(100)
	leave()
	outcome, _ := watching.Stop()
	t.Logf("%d watchers; their streams ended with %v", watchers, outcome.Answers)
	if outcome.Answers["Unavailable"]+outcome.Answers["Canceled"] != outcome.Requests {
		t.Error("a stream ended with something else than UNAVAILABLE")
	}
	s.awaitStat("healthgate.default.grpc_watchers", 0)
}

// During a hot restart both Envoys answer right, the old one ends its watchers' streams, and both end well.
func TestFaultHotRestartUnderWatches(t *testing.T) {
	t.Parallel()
	port := unusedAddress(t).Port
	s := newHealthSite(t, withConfig(func(c *testbed.Bootstrap) { c.Listen(port, 0) }))
	before := s.envoy
	old := s.newCrowd(10, s.conns(2)...).first(serving)
	load := s.probeUntilStopped(4)
	s.restartHot(func() { time.Sleep(10 * time.Millisecond) })
	old.mustEnd()
	watching := s.newCrowd(10, s.conns(2)...).first(serving)
	s.awaitStat("healthgate.default.grpc_watchers", 20)
	load.mustAllPass(50)
	s.setServing(0)
	watching.await(notServing, 2)
	s.mustEndInOrder()
	s.mustNotLog("Caught ")
	s.envoy = before
	s.mustNotLog("Caught ")
}

// If a stats matcher excludes stats, the gate answers as long as it knows enough, and otherwise fails.
func TestFaultStatsFiltered(t *testing.T) {
	skipUnlessModule(t)
	type answers struct {
		matcher      *metricsv3.StatsMatcher
		up, draining int
	}
	subtests(t, map[string]answers{
		"healthgate.":                 {excludeStats("healthgate."), 200, 503},
		"listener_manager.":           {excludeStats("listener_manager."), 200, 503},
		"server.":                     {excludeStats("server."), 200, 200},
		"cluster.service.membership_": {excludeStats("cluster.service.membership_"), 503, 503},
		"all":                         {testbed.Parse[*metricsv3.StatsMatcher](`reject_all: true`), 503, 503},
	}, func(t *testing.T, want answers) {
		s := newSite(t, withHealthService(), withConfig(func(c *testbed.Bootstrap) {
			c.StatsConfig = &metricsv3.StatsConfig{StatsMatcher: want.matcher}
		}))
		s.setBackend(0, true)
		client := s.client("h2")
		crowd := s.newCrowd(1, s.dialGRPC()).first(statusOf(want.up == 200))
		s.awaitProbe(client, want.up, settle)
		s.post("/healthcheck/fail")
		s.awaitProbe(client, want.draining, settle)
		crowd.await(statusOf(want.draining == 200), 1)
	})
}

// With many gates on many workers, each probe is answered by its own gate.
func TestManyGatesOnFourWorkers(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	const gates = 8
	// gate is the configuration of a gate; its replies have its name.
	gate := func(kind, path string, i int) string {
		return fmt.Sprintf(`{"clusters": [{"name": "service", "min_healthy": %[1]d}], "path": "%[2]s%[3]d", "stat_prefix": "%[4]s%[3]d",
			"response": {"healthy": {"body": "%[4]s %[3]d\n"}, "unhealthy": {"body": "%[4]s %[3]d fails\n"}}}`, 1+i%2, path, i, kind)
	}
	s := newSite(t, backends(2), onEveryRoute(), func(p *plan) { p.options.Workers = 4 }, withConfig(func(c *testbed.Bootstrap) {
		other := c.Clone()
		for i := range gates {
			addGate(c, fmt.Sprint("gate", i), gate("first", "/", i))
			addRoute(c.VirtualHost(), fmt.Sprint("/route", i), gate("route", "/route", i))
			addGate(other, fmt.Sprint("gate", i), gate("second", "/", i))
		}
		c.AddListener(other.CopyListener("second"))
	}))
	sides := []struct {
		at         *site
		kind, path string
	}{{s, "first", "/"}, {s.at("second"), "second", "/"}, {s, "route", "/route"}}
	var clients sync.WaitGroup
	for _, up := range []int{2, 1, 0, 1, 2} {
		s.setServing(up)
		s.awaitSample()
		for worker := range 8 {
			clients.Go(func() {
				client := s.client(protocols[worker%2]) // a new connection, on any worker
				for i := range 3 * gates {
					side, i := sides[i%3], i/3
					want := fmt.Sprintf("%s %d", side.kind, i)
					if up < 1+i%2 {
						want += " fails"
					}
					if reply, err := side.at.do(client, "GET", fmt.Sprint(side.path, i), nil); err != nil || reply.body != want+"\n" {
						t.Errorf("%d up: %s%d: got %+v, %v, want %q", up, side.path, i, reply, err, want)
					}
				}
			})
		}
		clients.Wait()
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
	all := func() []string { return strings.Split(s.envoy.Log(), "\nSCHED ") }
	s.awaitCount("traces of the scheduler", len(all())+traces, func() int { return len(all()) })
	newest := all()
	for _, trace := range newest[len(newest)-traces:] {
		most = max(most, len(lockedThreads.FindAllString(trace, -1)))
	}
	return most
}

// No worker of Envoy calls Go for a probe, Check or Watch, but one does for a report. Go's scheduler knows each thread that has
// called Go.
func TestNoWorkerCallsGo(t *testing.T) {
	t.Parallel()
	s := newHealthSite(t, withEnv("GODEBUG=schedtrace=100,scheddetail=1"), withConfig(func(c *testbed.Bootstrap) {
		c.SetGateKey("response", map[string]any{"details": true})
	}))
	expect(t, "the gate's first probe", s.probe(s.client("h2")), 200, "ok\n", nil)
	before := s.threadsInGo()
	probeAndCheck := func(headers ...string) {
		for i := range 40 {
			client := s.client(protocols[i%2])
			for range 10 {
				s.mustDo(client, "GET", "/", nil, headers...)
			}
			_, err := s.health().Check(t.Context(), asked(""))
			mustSucceed(t, err)
		}
	}
	probeAndCheck()
	crowd := s.newCrowd(10, s.conns(10)...).first(serving)
	s.setServing(0)
	crowd.await(notServing, 2)
	probeAndCheck()
	crowd.mustLeave()
	workers := 0 // that have had a connection
	for name, value := range s.stats("listener.") {
		if regexp.MustCompile(`\.worker_\d\.downstream_cx_total$`).MatchString(name) && !strings.Contains(name, "admin") && value > 0 {
			workers++
		}
	}
	if workers != 2 {
		t.Errorf("%d workers have had connections, want both", workers)
	}
	if after := s.threadsInGo(); before == 0 || after != before {
		t.Errorf("%d threads have called Go, %d before", after, before)
	}
	probeAndCheck("accept", "application/json")    // Go writes the report
	if after := s.threadsInGo(); after <= before { // one of the two has answered the gate's first probe
		t.Errorf("%d threads have called Go after reports, want the other worker besides %d: nothing was counted", after, before)
	}
}
