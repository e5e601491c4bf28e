package suite

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"healthgate/e2e/testbed"
)

// An override that RDS adds, removes and adds again follows its cluster's health.
func TestOverrideFollowsItsClusterAfterItWasRemovedAndAdded(t *testing.T) {
	t.Parallel()
	var clusters []*clusterv3.Cluster
	s := newSite(t, withRDS(), twoClusters(&clusters))
	s.setServing(1)
	const override = `{"path": "/readyz", "clusters": ["other"]}`
	s.overrideRoute("/readyz", override)
	s.awaitPath("/readyz", 200)
	for range 3 {
		s.removeOverrides()
		looks := s.stat("healthgate.looks")
		s.await(settle, func() error { // until the module has made more passes; the plugin makes none
			if now := s.stat("healthgate.looks"); looks > 0 && now < looks+3 {
				return fmt.Errorf("%d passes, %d before", now, looks)
			}
			return nil
		})
		s.overrideRoute("/readyz", override)
		s.awaitPath("/readyz", 200)
		s.setServing(0)
		s.awaitPath("/readyz", 503)
		s.setServing(1)
		s.awaitPath("/readyz", 200)
	}
}

// The debounce of an override continues, although Envoy builds every override again when another route changes.
func TestHoldOfAnOverrideContinuesAfterARouteUpdate(t *testing.T) {
	t.Parallel()
	s := newSite(t, withRDS())
	s.setServing(1)
	const override = `{"path": "/readyz", "hold": {"unhealthy_after": "6s"}}`
	s.overrideRoute("/readyz", override)
	s.awaitPath("/readyz", 200)
	began := time.Now()
	s.setServing(0)
	for i := range 3 {
		s.changeRoutes(func(host *routev3.VirtualHost) {
			addRoute(host, "/readyz", override)
			addRoute(host, fmt.Sprintf("/other%d", i), `{"path": "/other", "stat_prefix": "other"}`)
		})
		s.awaitStat("http.ingress.rds.routes.update_success", uint64(3+i))
		if reply := s.path("/readyz"); reply.status != 200 && time.Since(began) < 6*time.Second {
			t.Fatalf("%v after the host has failed it is answered with %d", time.Since(began), reply.status)
		}
	}
	s.awaitPath("/readyz", 503)
	if took := time.Since(began); took < 6*time.Second || took > 12*time.Second {
		t.Errorf("it failed after %v, unhealthy_after is 6s", took)
	}
}

// The debounce of a filter continues in the next listener if its configuration is the same.
func TestHoldOfAFilterContinuesAfterAListenerUpdate(t *testing.T) {
	t.Parallel()
	const held = `{"clusters": ["service"], "hold": {"unhealthy_after": "600s"}}`
	s := newSite(t, withLDS(), withGate(held))
	s.setServing(1)
	s.awaitPath("/", 200)
	s.setServing(0)
	for i := range 3 {
		if !s.reload(held, func(c *testbed.Bootstrap) { c.HCM().ServerName = fmt.Sprint("update", i) }) {
			t.Fatal("envoy refused a good listener")
		}
		s.awaitPath("/", 200)
	}
}

// Counters start from 0 again after an operator has reset them, and when CDS adds a removed cluster again.
func TestClusterIsNotStaleAfterItsCountersWereReset(t *testing.T) {
	t.Parallel()
	var clusters []*clusterv3.Cluster
	s := newSite(t, clustersByCDS(&clusters), withGate(`{"clusters": ["service"], "stale_after": "3s"}`))
	s.setServing(1)
	s.awaitPath("/", 200)
	s.post("/reset_counters")
	s.always("/", 200, 4*time.Second)
	added := s.stat("cluster_manager.cluster_added")
	s.removeClusters()
	s.writeClusters(clusters...)
	s.awaitStat("cluster_manager.cluster_added", added+1)
	s.awaitStat("cluster_manager.warming_clusters", 0)
	s.awaitPath("/", 200)
	s.always("/", 200, 4*time.Second)
}

// Only the module knows which clusters Envoy has, and it knows at once.
func TestRemovedClusterIsUnknownUntilItIsAddedAgain(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var clusters []*clusterv3.Cluster
	s := newSite(t, twoClusters(&clusters), withGate(`{"clusters": [{"name": "other", "min_healthy": 0}]}`))
	s.setServing(1)
	expect(t, "a cluster by CDS", s.path("/"), 200, "ok\n", nil)
	for i := range 3 {
		s.writeClusters(clusters[0])
		s.awaitPath("/", 503)
		s.awaitLog(`"details":"healthgate_cluster_unknown"`, settle)
		s.writeClusters(clusters...)
		s.awaitPath("/", 200)
		s.awaitStat("cluster_manager.cluster_removed", uint64(i+1))
	}
	if strings.Contains(s.envoy.Log(), "healthgate_cluster_empty") {
		t.Error("a removed cluster was reported as empty")
	}
}

// From the first probe on, a gate whose cluster never existed fails.
func TestClusterThatNeverExistedIsUnknown(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, withRDS(), withGate(`{"clusters": [{"name": "nope", "min_healthy": 0}]}`))
	expect(t, "the first probe", s.path("/"), 503, "unavailable\n", nil)
	s.overrideRoute("/readyz", `{"path": "/readyz", "clusters": [{"name": "neither", "min_healthy": 0}]}`)
	expect(t, "an override", s.path("/readyz"), 503, "unavailable\n", nil)
	s.awaitStat("healthgate.default.failed_cluster_unknown", s.stat("healthgate.default.failed"))
}

// While a listener warms, the gate of the next configuration writes neither the gauge nor the log; the active one's gate does.
func TestWarmingListenerWritesNoMetricsAndNoLog(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS(), alone("it reads Envoy's log"))
	s.setServing(1)
	s.awaitPath("/", 200)
	s.awaitStat("healthgate.default.healthy", 1)
	before := s.stat("listener_manager.total_listeners_warming")
	s.writeListener(s.nextListener(`{"clusters": ["service"]}`, neverRouted).For(variant).Listener())
	s.awaitStat("listener_manager.total_listeners_warming", before+1)
	s.always("/", 200, 2*time.Second)
	if n := strings.Count(s.envoy.Log(), "gate default starts with"); n != 1 {
		t.Errorf("%d lines of gates that start", n)
	}
	if healthy := s.stat("healthgate.default.healthy"); healthy != 1 {
		t.Errorf("healthy is %d", healthy)
	}
}

// After a process was stopped and continued (SIGSTOP, the cgroup freezer, a migration) no health is known to be bad.
func TestProbesThatWaitedForAStoppedEnvoyPass(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it stops Envoy")
	for name, gate := range map[string]string{"plain": `clusters: [service]`, "stale_after": `{clusters: [service], stale_after: 2s}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withGate(gate), alone("it stops Envoy"))
			s.setServing(1)
			s.awaitPath("/", 200)
			var continued atomic.Int64 // the time of SIGCONT
			l := s.probeAsUntilStopped(40, func(reply *answer) string {
				// Data counts as stale 100 ms after it was first seen so, in which the main thread gets a new sample. On a busy machine
				// the thread may need longer, and then stale is right.
				after := time.Since(time.Unix(0, continued.Load()))
				if at := continued.Load(); reply.status == 503 && at != 0 && after > 100*time.Millisecond {
					return "503, stale for 100 ms"
				}
				return strconv.Itoa(reply.status)
			})
			l.awaitAnswers(200, 40, settle)
			pid := s.envoy.Pid()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6500 * time.Millisecond) // the fault is to be stopped for this long
			continued.Store(time.Now().UnixNano())
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			l.awaitAnswers(200, 200, settle)
			outcome, _ := l.Stop()
			late := outcome.Answers["503, stale for 100 ms"]
			if outcome.Answers["200"]+late != outcome.Requests {
				t.Errorf("the answers were %v", outcome.Answers)
			}
			if late > 0 {
				t.Logf("the machine was busy: %d probes were answered with stale", late)
				s.awaitLog(`"details":"healthgate_stale"`, settle)
			}
		})
	}
}

// When one update has many filter chains, neither the update nor a probe waits for a pass for each of them.
func TestUpdateOfManyFilterChainsNeedsFewPasses(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	// Old filter chains keep their connections, so that a busy machine loses no probe with them.
	s := newSite(t, withLDS(), func(p *plan) { p.options.DrainTime = 600 }, alone("it counts passes"))
	s.setServing(1)
	s.awaitPath("/", 200)
	chains := func(update int) func(*testbed.Bootstrap) {
		return func(c *testbed.Bootstrap) {
			first := c.Clone().Listener().GetFilterChains()[0]
			for i := range 200 {
				chain := proto.CloneOf(first)
				chain.FilterChainMatch = &listenerv3.FilterChainMatch{ServerNames: []string{fmt.Sprintf("host%d-%d.example", i, update)}}
				c.Listener().FilterChains = append(c.Listener().FilterChains, chain)
			}
		}
	}
	l := s.probeUntilStopped(4)
	slow := false // the machine is so busy that Envoy's own work keeps its main thread for longer than data may be old
	for update := range 3 {
		before, began := s.stat("healthgate.looks"), time.Now()
		if !s.reload(`{"clusters": ["service"]}`, chains(update)) {
			t.Fatal("envoy refused 200 filter chains")
		}
		// One for all of the new names, and the periodic ones.
		passes := s.stat("healthgate.looks") - before
		took := time.Since(began)
		if most := uint64(took/(50*time.Millisecond)) + 3; passes > most {
			t.Errorf("update %d made %d passes in %v, want %d at most", update, passes, took, most)
		}
		slow = slow || took > 5*time.Second
	}
	if slow {
		t.Skip("an update took longer than 5 s: probes may be answered with stale")
	}
	l.mustAllBe(200, 10)
}
