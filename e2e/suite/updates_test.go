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
	s := newServingSite(t, withRDS(), twoClusters(&clusters))
	const override = `{"path": "/readyz", "clusters": ["other"]}`
	s.overrideRoute("/readyz", override)
	s.awaitPath("/readyz", 200)
	for range 3 {
		s.removeOverrides("/readyz")
		if variant.Name() == "module" { // the Go plugin makes no passes
			s.awaitIncrease("healthgate.looks", 3)
		}
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
	s := newServingSite(t, withRDS())
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
	s := newServingSite(t, withLDS(), withGate(held))
	s.awaitPath("/", 200)
	s.setServing(0)
	for i := range 3 {
		s.mustReload(held, func(c *testbed.Bootstrap) { c.HCM().ServerName = fmt.Sprint("update", i) })
		s.awaitPath("/", 200)
	}
}

// Counters start from 0 again after an operator has reset them, and when CDS adds a removed cluster again.
func TestClusterIsNotStaleAfterItsCountersWereReset(t *testing.T) {
	t.Parallel()
	var clusters []*clusterv3.Cluster
	s := newServingSite(t, clustersByCDS(&clusters), withGate(`{"clusters": ["service"], "stale_after": "3s"}`))
	s.awaitPath("/", 200)
	s.post("/reset_counters")
	s.always("/", 200, 4*time.Second)
	added := s.stat("cluster_manager.cluster_added")
	s.removeClusters()
	s.writeClusters(clusters...)
	s.awaitStats("cluster_manager.", map[string]uint64{"cluster_added": added + 1, "warming_clusters": 0})
	s.awaitPath("/", 200)
	s.always("/", 200, 4*time.Second)
}

// Only the module knows which clusters Envoy has, and it knows at once. From the first probe on, a cluster that never existed fails.
func TestRemovedClusterIsUnknownUntilItIsAddedAgain(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var clusters []*clusterv3.Cluster
	s := newServingSite(t, twoClusters(&clusters), withGate(`{"clusters": [{"name": "other", "min_healthy": 0}]}`),
		withRoute("/never", `{"path": "/never", "clusters": [{"name": "never", "min_healthy": 0}]}`))
	expect(t, "a cluster that never existed", s.path("/never"), 503, "unavailable\n", nil)
	s.awaitStat("healthgate.default.failed_cluster_unknown", 1)
	expect(t, "a cluster by CDS", s.path("/"), 200, "ok\n", nil)
	for i := range 3 {
		s.writeClusters(clusters[0])
		s.awaitPath("/", 503)
		s.awaitDetails("healthgate_cluster_unknown")
		s.writeClusters(clusters...)
		s.awaitPath("/", 200)
		s.awaitStat("cluster_manager.cluster_removed", uint64(i+1))
	}
	s.mustNotLog("healthgate_cluster_empty")
}

// While a listener warms, the gate of the next configuration writes neither the gauge nor the log; the active one's gate does.
func TestWarmingListenerWritesNoMetricsAndNoLog(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withLDS(), alone("it reads Envoy's log"))
	s.awaitPath("/", 200)
	s.awaitStat("healthgate.default.healthy", 1)
	before := s.stat("listener_manager.total_listeners_warming")
	s.writeListener(s.nextListener(`{"clusters": ["service"]}`, neverRouted).For(variant).Listener())
	s.awaitStat("listener_manager.total_listeners_warming", before+1)
	s.always("/", 200, 2*time.Second)
	s.awaitLines("gate default starts with", 1, settle)
	s.awaitStat("healthgate.default.healthy", 1)
}

// Probes that waited while the process was stopped (by SIGSTOP, the cgroup freezer, a migration) get the same answer as before.
func TestProbesThatWaitedForAStoppedEnvoyPass(t *testing.T) {
	gates := map[string]string{"plain": `clusters: [service]`, "stale_after": `{clusters: [service], stale_after: 2s}`}
	subtests(t, gates, func(t *testing.T, gate string) {
		s := newServingSite(t, withGate(gate))
		s.awaitPath("/", 200)
		var continued atomic.Int64 // the time of SIGCONT
		l := s.probeAsUntilStopped(40, func(reply *answer) string {
			// Data counts as stale 100 ms after it was first seen so, in which the main thread gets a new sample. On a busy machine
			// the thread may need longer, and then stale is right.
			at := continued.Load()
			if reply.status == 503 && at != 0 && time.Since(time.Unix(0, at)) > 100*time.Millisecond {
				return "503, stale for 100 ms"
			}
			return strconv.Itoa(reply.status)
		})
		l.awaitPasses(40)
		signal := func(signal syscall.Signal) {
			mustSucceed(t, syscall.Kill(s.envoy.Pid(), signal))
		}
		signal(syscall.SIGSTOP)
		time.Sleep(6500 * time.Millisecond) // the fault is to be stopped for this long
		continued.Store(time.Now().UnixNano())
		signal(syscall.SIGCONT)
		l.awaitPasses(200)
		outcome, _ := l.Stop()
		late := outcome.Answers["503, stale for 100 ms"]
		if outcome.Answers["200"]+late != outcome.Requests {
			t.Errorf("the answers were %v", outcome.Answers)
		}
		if late > 0 {
			t.Logf("the machine was busy: %d probes were answered with stale", late)
			s.awaitDetails("healthgate_stale")
		}
	})
}

// When one update has many filter chains, neither the update nor a probe waits for a pass for each of them.
func TestUpdateOfManyFilterChainsNeedsFewPasses(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	// Old filter chains keep their connections, so that a busy machine loses no probe with them.
	s := newServingSite(t, withLDS(), func(p *plan) { p.options.DrainTime = 600 }, alone("it counts passes"))
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
		s.mustReload(`{"clusters": ["service"]}`, chains(update))
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
	l.mustAllPass(10)
}

// The tests of filter/config have all errors. This shows that Envoy refuses such a configuration, and logs each error.
func TestBadConfigurationKeepsEnvoyFromStarting(t *testing.T) {
	t.Parallel()
	log := refused(t, func(*testbed.Bootstrap) {}, backends(0), withGate(`{
		"clusters": [{"name": "service", "min_healty": 1, "min_healthy": -1}, "service"], "path": "x", "drain": "maybe", "stat_prefix": "a b",
		"source": "admin", "admin": {"address": "10.0.0.1:9901"}, "response": {"healthy": {"status": 503}}}`))
	for _, want := range []string{
		"clusters[0].min_healty: unknown key, did you mean min_healthy?",
		"clusters[0].min_healthy: -1 is not between 0 and 1000000",
		`clusters[1].name: "service" is repeated; clusters[0] has it already`,
		`path: "x" does not start with /`,
		`drain: "maybe" is not fail or ignore`,
		`stat_prefix: "a b" has a character other than`,
		`admin.address: "10.0.0.1:9901" is not on loopback`,
		"response.healthy.status: 503 is",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("Envoy's log lacks %q; it ends:\n%s", want, testbed.Tail(log, 5))
		}
	}
}

// During an update the plugin is loaded already, so Envoy can refuse the update, also for an override.
func TestBadUpdateIsRefusedAndTheOldConfigurationStays(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withLDS(), withRoute("/readyz", `{"path": "/readyz"}`))
	expect(t, "before", s.path("/readyz"), 200, "ok\n", nil)
	override := func(gate string) func(*testbed.Bootstrap) {
		return func(c *testbed.Bootstrap) { addRoute(c.VirtualHost(), "/readyz", gate) }
	}
	if s.reload(`{"clusters": ["service"], "paht": "/"}`) {
		t.Error("envoy took a configuration with an unknown key")
	}
	s.awaitLog("paht: unknown key, did you mean path?", settle)
	if s.reload(`{"clusters": ["service"]}`, override(`{"path": "/readyz", "drian": "ignore"}`)) {
		t.Error("Envoy took an override with an unknown key")
	}
	s.awaitLog("drian: unknown key, did you mean drain?", settle)
	expect(t, "after", s.path("/"), 200, "ok\n", nil)
	expect(t, "after", s.path("/readyz"), 200, "ok\n", nil)
	s.mustReload(`{"clusters": ["service", "other"]}`, override(`{"path": "/readyz", "clusters": ["service"], "stat_prefix": "new"}`))
	s.awaitPath("/", 503)
	expect(t, "a good override", s.path("/readyz"), 200, "ok\n", nil)
	s.awaitStat("healthgate.new.ok", 1)
}

func TestRouteOverrideHasItsOwnRules(t *testing.T) {
	t.Parallel()
	s := newSite(t, withEDS(),
		withGate(`{"clusters": [{"name": "service", "min_healthy": 2}], "stat_prefix": "balancer", "response": {"healthy": {"body": "all\n"}}}`),
		withRoute("/readyz", `{"path": "/readyz", "clusters": ["service"], "stat_prefix": "kubelet", "drain": "ignore"}`),
		withRoute("/any", `{"path": "/any", "clusters": ["missing", "service"], "require": "any"}`))
	client := s.client("h2")
	for states, want := range map[string][3]int{"hh": {200, 200, 200}, "hu": {503, 200, 200}, "uu": {503, 503, 503}} {
		s.writeHosts(hosts(states)...)
		for i, path := range []string{"/", "/readyz", "/any"} {
			if got := s.mustDo(client, "GET", path, nil); got.status != want[i] {
				t.Errorf("with hosts %s %s got %d, want %d", states, path, got.status, want[i])
			}
		}
	}
	s.writeHosts(hosts("hh")...)
	s.post("/healthcheck/fail")
	expect(t, "the balancer while draining", s.mustDo(client, "GET", "/", nil), 503, "unavailable\n", nil)
	// Keys that the override lacks are the filter's.
	expect(t, "the kubelet while draining", s.mustDo(client, "GET", "/readyz", nil), 200, "all\n", nil)
	s.post("/healthcheck/ok")
	// Each has its own metrics.
	s.awaitStat("healthgate.kubelet.ok", 3)
	s.awaitStat("healthgate.balancer.failed_draining", 1)
}

// The golang extension reads the routes of a listener's own route_config at the first request, on a worker; an error there would end Envoy.
func TestBadOverrideInRouteConfigFailsItsProbes(t *testing.T) {
	t.Parallel()
	needs(t, testbed.LateRouteErrors)
	s := newServingSite(t, withRoute("/readyz", `{"path": "/readyz", "require": 7}`), withRoute("/broken", `{"path": "/broken", "paht": "/"}`))
	client := s.client("h2")
	for range 3 {
		for _, path := range []string{"/readyz", "/broken"} {
			expect(t, path, s.mustDo(client, "GET", path, nil), 503, "unavailable\n", map[string]string{"cache-control": "no-store"})
		}
		expect(t, "/", s.probe(client), 200, "ok\n", nil)
	}
	s.awaitLog("paht: unknown key, did you mean path?", settle)
	s.awaitLog("require: 7 is not a whole number from 1 to 1, the number of clusters", settle)
	s.awaitDetails("healthgate_error")
	s.mustEndInOrder()
}

func TestRouteUpdatesLeakNothing(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withRDS())
	// A merged configuration is destroyed at once or within seconds; 1,000 leaked ones, each with a goroutine and a timer, would be more
	// than 8 MiB. A probe of each update's route makes the override merged and its timer started.
	s.mustNotGrow(8, 200, 1000, func(i int) {
		path := fmt.Sprintf("/probe%d", i)
		s.changeRoutes(func(host *routev3.VirtualHost) {
			addRoute(host, path, fmt.Sprintf(`{"path": "%s", "hold": {"unhealthy_after": "1s"}, "stat_prefix": "route%d"}`, path, i%3))
		})
		s.awaitPath(path, 200)
	})
	expect(t, "the probe", s.path("/"), 200, "ok\n", nil)
}
