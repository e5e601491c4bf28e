package dynamicmodule

import (
	"fmt"
	"testing"
	"time"

	"healthgate/filter/dynamicmodule/fakeenvoy"
	"healthgate/filter/envoystats"
)

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name               string
		costs              []time.Duration // of passes without a pause between them
		regular, newGauges time.Duration   // how long the next pass has to wait
		limit              time.Duration
	}{
		{"no pass", nil, 0, 0, 150 * ms},
		{"a cheap pass", []time.Duration{ms / 10}, 50 * ms, 50 * ms, 150 * ms},
		{"a pass of 5 ms", []time.Duration{5 * ms}, 100 * ms, 50 * ms, 300 * ms},
		{"a pass of 100 ms", []time.Duration{100 * ms}, 2000 * ms, 50 * ms, 6000 * ms},
		{"two at once", []time.Duration{100 * ms, 100 * ms}, 4000 * ms, 2000 * ms, 6000 * ms},
		{"three at once", []time.Duration{100 * ms, 100 * ms, 100 * ms}, 6000 * ms, 4000 * ms, 8000 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &pace{}
			for _, cost := range test.costs {
				p.recordPass(time.Hour, cost)
			}
			if got := p.wait(time.Hour, false); got != test.regular {
				t.Errorf("a regular pass waits %v, want %v", got, test.regular)
			}
			if got := p.wait(time.Hour, true); got != test.newGauges {
				t.Errorf("a pass for new gauges waits %v, want %v", got, test.newGauges)
			}
			if got := p.ageLimit(); got != test.limit {
				t.Errorf("the age limit is %v, want %v", got, test.limit)
			}
		})
	}
}

func TestAgeLimitLastsUntilTheNextPass(t *testing.T) {
	const ms = time.Millisecond
	for _, costs := range [][]time.Duration{{300 * ms, 50 * ms}, {100 * ms, 20 * ms}, {400 * ms, 200 * ms}} {
		for _, limit := range []time.Duration{time.Second, defaultAgeLimit} {
			p := &pace{}
			now := time.Hour
			p.recordPass(now, costs[0]) // a regular one
			now += min(p.wait(now, true), p.wait(now, false)) + costs[1]
			p.recordPass(now, costs[1]) // for new gauges
			age := p.wait(now, false) + costs[1]
			if allowed := max(limit, p.ageLimit()); age > allowed {
				t.Errorf("costs %v, gate's limit %v: the sample is %v old before the next pass, %v is allowed", costs, limit, age, allowed)
			}
		}
	}
}

func TestOnePassCoversAllNewGauges(t *testing.T) {
	startEnvoy(t)
	before := fakeenvoy.Passes()
	for i := range 50 {
		newFilter(t, fmt.Sprintf(`{"clusters": ["new%d"], "stat_prefix": "p%d"}`, i, i))
		newRoute(t, fmt.Sprintf(`{"clusters": ["route%d"]}`, i))
	}
	if n := fakeenvoy.Passes() - before; n != 0 {
		t.Errorf("%d passes while configurations are created", n)
	}
	if len(shared.sampler.wanted) != 1 {
		t.Error("no pass is requested")
	}
	tick()
	if n := fakeenvoy.Passes() - before; n != 1 {
		t.Errorf("%d passes for all new gauges", n)
	}
	newFilter(t, `{"clusters": ["new1", "route1"]}`)
	newRoute(t, `{"clusters": ["new2"]}`)
	if len(shared.sampler.wanted) != 0 {
		t.Error("a pass is requested for gauges that one has covered")
	}
}

func TestFirstProbeSamplesOnlyIfNoPassHasCoveredItsGate(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	before := fakeenvoy.Passes()
	for i := range 3 {
		wantDetails(t, probe(f), "healthgate_ok")
		if n := fakeenvoy.Passes() - before; n != 1 {
			t.Errorf("%d passes by probe %d, want 1", n, i)
		}
	}
	covered := newFilter(t, `{"clusters": ["other"]}`)
	tick()
	before = fakeenvoy.Passes()
	wantDetails(t, probe(covered), "healthgate_cluster_unhealthy")
	if n := fakeenvoy.Passes() - before; n != 0 {
		t.Errorf("%d passes for a gate that the last tick has covered", n)
	}
}

// A route override stays while the last listener with a filter is removed and added again, if another listener has the same routes.
func TestFirstProbeAfterATimeWithoutFiltersSamples(t *testing.T) {
	startEnvoy(t)
	override := newRoute(t, `{"clusters": ["service"]}`)
	f := fakeenvoy.NewFilter(`{"clusters": ["service"]}`)
	wantDetails(t, probe(f), "healthgate_ok")
	f.Free()
	tick()
	setCluster("service", 0, 0, 1)
	tick()
	f = newFilter(t, `{"clusters": ["service"]}`)
	wantDetails(t, probe(f), "healthgate_cluster_unhealthy")
	wantDetails(t, probeOn(f, override, "/"), "healthgate_cluster_unhealthy")
}

func TestFirstProbeAfterTheStartSamples(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	fakeenvoy.Gauge(envoystats.WorkersStarted, 0)
	defer shared.started.Store(true)
	shared.started.Store(false)
	tick() // before the workers start
	setCluster("service", 0, 0, 1)
	wantDetails(t, probe(f), "healthgate_cluster_unhealthy")
	if !shared.started.Load() {
		t.Error("a probe shows that the workers have started")
	}
}

func TestOnlyGatesWithChangedGaugesAreEvaluated(t *testing.T) {
	startEnvoy(t)
	quiet, moving := newFilter(t, `{"clusters": ["service"], "stat_prefix": "a"}`), newFilter(t, `{"clusters": ["other"], "stat_prefix": "b"}`)
	held := newFilter(t, `{"clusters": ["other"], "stat_prefix": "c", "hold": {"healthy_after": "1000s"}}`)
	for _, f := range []*fakeenvoy.Filter{quiet, moving, held} {
		probe(f)
	}
	passOf := func() (passes [3]uint64) {
		for i, g := range shared.active[len(shared.active)-3:] {
			passes[i] = g.pass
		}
		return passes
	}
	before := passOf()
	tick()
	if got := passOf(); got != before {
		t.Errorf("without a change, gates were evaluated: %v, %v", before, got)
	}
	setCluster("other", 1, 0, 1)
	tick()
	once := passOf()
	if once[0] != before[0] || once[1] == before[1] || once[2] == before[2] {
		t.Errorf("other has changed: %v, %v", before, once)
	}
	tick()
	if got := passOf(); got[0] != once[0] || got[1] != once[1] || got[2] == once[2] {
		t.Errorf("only a gate that holds a change is evaluated at each tick: %v, %v", once, got)
	}
}

// Envoy writes the gauges of a cluster one after the other on its main thread, while a pass on another thread reads them.
func TestPassBetweenTwoWritesChangesNoReply(t *testing.T) {
	for _, gauge := range []string{"membership_degraded", "membership_healthy"} {
		t.Run(gauge, func(t *testing.T) {
			startEnvoy(t)
			fakeenvoy.Reset()
			fakeenvoy.Gauge("server.live", 1)
			fakeenvoy.Gauge("cluster.service."+gauge, 0) // the first that a pass reads
			setCluster("service", 1, 0, 1)
			tick()
			f := newFilter(t, `{"clusters": [{"name": "service", "min_healthy": 1}]}`)
			g := newFilter(t, `{"clusters": [{"name": "service", "min_healthy": 2}], "stat_prefix": "two"}`)
			wantDetails(t, probe(f), "healthgate_ok")
			wantDetails(t, probe(g), "healthgate_cluster_unhealthy")
			fakeenvoy.ServiceDegradesAfter("cluster.service." + gauge)
			tick()
			wantDetails(t, probe(f), "healthgate_ok")                // one host counts before and after
			wantDetails(t, probe(g), "healthgate_cluster_unhealthy") // and never two
		})
	}
}

// While CDS adds clusters that wait for their hosts, Envoy reports none of them, but writes a gauge.
func TestWarmingClustersShowThatTheMainThreadWorks(t *testing.T) {
	startEnvoy(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	wantDetails(t, probe(f), "healthgate_ok")
	shared.active[0].c.age_limit = 1_000_000_000                                     // nanoseconds
	for start := time.Now(); probe(f).Details != "healthgate_stale"; shared.tick() { // the main thread gives no sign of life
		if time.Since(start) > 20*time.Second {
			t.Fatal("a main thread that hangs goes unnoticed")
		}
	}
	fakeenvoy.Gauge(envoystats.WarmingClusters, 1)
	shared.tick()
	wantDetails(t, probe(f), "healthgate_ok")
	tick()
}

func TestGateIsStrictWithStaleAfter(t *testing.T) {
	startEnvoy(t)
	for config, want := range map[string]bool{`{"clusters": ["service"]}`: false, `{"clusters": ["service"], "stale_after": "8s"}`: true} {
		probe(newFilter(t, config))
		if g := shared.active[len(shared.active)-1]; bool(g.c.strict_age) != want {
			t.Errorf("%s is strict: %v, want %v", config, g.c.strict_age, want)
		}
	}
}

// Envoy may end a gate while everySecond reads its age limit.
func TestAgeLimitOfAGateThatHasEnded(t *testing.T) {
	startEnvoy(t)
	f := fakeenvoy.NewFilter(`{"clusters": ["service"], "stale_after": "4s"}`)
	probe(f)
	ending := shared.activeGates()
	f.Free()
	for range 10 { // new gates may get the memory of the ended one
		probe(newFilter(t, `{"clusters": ["service"], "stale_after": "1s"}`))
	}
	if got := shortestAgeLimit(ending); got != 4*time.Second {
		t.Errorf("got %v, want 4s", got)
	}
}

// Nothing else would refuse a newer Envoy.
func TestUntestedEnvoyIsLoggedOnce(t *testing.T) {
	for _, test := range append(tested, struct {
		version string
		commit  uint64
	}{"untested", 0x123456}) {
		startEnvoy(t)
		shared.envoyIsKnown = false
		fakeenvoy.Gauge(envoystats.ServerVersion, test.commit)
		probe(newFilter(t, `{"clusters": ["service"]}`))
		tick()
		tick()
		wantLines(t, "healthgate: this Envoy (commit 123456) is none of those", map[bool]int{true: 1}[test.version == "untested"])
	}
}
