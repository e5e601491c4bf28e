package dynamicmodule

import (
	"testing"
	"time"

	"healthgate/filter/dynamicmodule/fakeenvoy"
)

// A cluster with alt_stat_name that Envoy had at the subscription, and that was removed while one of its streams keeps its stats.
func TestRemovedClusterWithAltStatName(t *testing.T) {
	for _, updated := range []bool{false, true} {
		c := &clusters{}
		c.collect([]uint64{hashOf("alt")}, true)
		if updated {
			c.report("a", "a", false)
		}
		c.report("a", "a", true)
		if c.has(hashOf("a"), hashOf("alt"), true) {
			t.Errorf("updated before: %v: a removed cluster is taken for one that is there", updated)
		}
	}
}

// The same through the hooks.
func TestRemovedClusterWithAltStatNameAnswers(t *testing.T) {
	startServing(t)
	cluster("alt", 1, 0, 1)
	shared.sampler.clusters.reset()
	shared.sampler.pass(true)
	f := newFilter(t, `{"clusters": [{"name": "a", "stat_name": "alt"}]}`)
	wantDetails(t, probe(f), "healthgate_ok")
	fakeenvoy.Cluster("a", true)
	tick()
	wantDetails(t, probe(f), "healthgate_cluster_unknown")
}

// A cluster that CDS adds after the workers have started and that still warms.
func TestWarmingClusterBeforeTheFinalPass(t *testing.T) {
	startServing(t) // one tick, which has seen that the workers run
	cluster("warming", 1, 0, 1)
	tick()
	f := newFilter(t, `{"clusters": ["warming"]}`)
	wantDetails(t, probe(f), "healthgate_cluster_unknown")
}

// The age limit lasts until the next pass, whatever passes have cost.
func TestLimitLastsUntilTheNextPass(t *testing.T) {
	const ms = time.Millisecond
	for _, costs := range [][]time.Duration{{300 * ms, 50 * ms}, {100 * ms, 20 * ms}, {400 * ms, 200 * ms}} {
		for _, limit := range []time.Duration{time.Second, defaultAgeLimit} {
			p := &pace{}
			now := time.Hour
			p.recordPass(now, costs[0]) // a regular one
			now += min(p.wait(now, true), p.wait(now, false)) + costs[1]
			p.recordPass(now, costs[1]) // for new names
			age := p.wait(now, false) + costs[1]
			if allowed := max(limit, p.ageLimit()); age > allowed {
				t.Errorf("costs %v, gate's limit %v: the sample is %v old before the next pass, %v is allowed", costs, limit, age, allowed)
			}
		}
	}
}

// Once a filter's clusters are sampled, a worker need not make a pass at the first probe.
func TestFirstProbeMakesNoPass(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	tick()
	before := fakeenvoy.Passes()
	wantDetails(t, probe(f), "healthgate_ok")
	if got := fakeenvoy.Passes() - before; got != 0 {
		t.Errorf("%d passes on the worker", got)
	}
}

// Hold: a gate of the same configuration that has never judged does not hide the state of one that has.
func TestHoldBesideAGateWithoutProbe(t *testing.T) {
	startServing(t)
	const config = `{"clusters": ["service"], "hold": {"unhealthy_after": "3600s"}}`
	a := newFilter(t, config)
	b := newFilter(t, config)
	a.Ask(fakeenvoy.Request{Method: "GET", Path: "/other"}) // makes the gate of a
	b.Ask(fakeenvoy.Request{Method: "GET", Path: "/other"}) // and that of b
	wantDetails(t, probe(a), "healthgate_ok")
	cluster("service", 0, 0, 1)
	tick()
	wantDetails(t, probe(a), "healthgate_held")
	// an update of the listener of a
	wantDetails(t, probe(newFilter(t, config)), "healthgate_held")
}

// Envoy writes the gauges of a cluster one after the other on its main thread, while a pass on another thread reads them in any order.
func TestPassBetweenTwoWrites(t *testing.T) {
	for _, gauge := range []string{"membership_degraded", "membership_healthy"} {
		t.Run(gauge, func(t *testing.T) {
			startServing(t)
			fakeenvoy.Reset()
			fakeenvoy.Gauge("server.live", 1)
			fakeenvoy.Gauge("cluster.service."+gauge, 0) // the first that a pass reads
			cluster("service", 1, 0, 1)
			tick()
			f := newFilter(t, `{"clusters": [{"name": "service", "min_healthy": 1}]}`)
			g := newFilter(t, `{"clusters": [{"name": "service", "min_healthy": 2}], "stat_prefix": "two"}`)
			wantDetails(t, probe(f), "healthgate_ok")
			wantDetails(t, probe(g), "healthgate_cluster_unhealthy")
			fakeenvoy.ServiceDegradesAfter("cluster.service." + gauge)
			tick()
			wantDetails(t, probe(f), "healthgate_ok")                // one host counted before and after
			wantDetails(t, probe(g), "healthgate_cluster_unhealthy") // and never two
		})
	}
}
