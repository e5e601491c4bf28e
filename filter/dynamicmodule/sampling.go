package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// maxConfirmations is how many more passes a change causes at most. Envoy writes the gauges of a cluster one after the other on its main
// thread, so the values that one pass finds may never have been true together. If the next pass finds them too, they were.
const maxConfirmations = 2

// sample makes a pass and evaluates the gates whose gauges it has changed. workersRun is whether Envoy's workers are known to have started.
func (m *module) sample(workersRun bool) {
	began, passed, changed := m.sampler.makePass(workersRun)
	for i := 0; changed && i < maxConfirmations; i++ {
		began, passed, changed = m.sampler.makePass(workersRun)
	}
	if workersRun {
		m.started.Store(true)
	}
	// The gauge changes while CDS adds clusters that wait for their hosts, and Envoy reports none of them yet.
	if last := m.warmingClusters.changed.Load(); m.warmingChanged.Swap(last) != last {
		C.hg_age_main_thread_updates()
	}
	m.evaluate(func(*gate) bool { return false })
	if passed {
		m.recordSample(began)
	}
}

func (m *module) recordSample(at time.Duration) {
	setSampledAt(at)
	C.hg_metrics_count_sample()
}

// evaluate evaluates the active gates whose gauges have changed, whose verdict depends on time, or for which also returns true.
func (m *module) evaluate(also func(*gate) bool) {
	changed, pass := false, m.sampler.lastPass()
	for _, g := range m.activeGates() {
		if also(g) || g.isOutdated() {
			changed = g.evaluate(pass) || changed
		}
	}
	if changed {
		notifyWatchers()
	}
}

// firstProbe activates a gate and publishes its reply. It is called on a worker.
func (m *module) firstProbe(g *gate) {
	g.core.Activate()
	if !m.started.Load() || !areCovered(g.reader.gauges) {
		m.sample(true)
	}
	m.activate(g)
	g.evaluate(m.sampler.lastPass())
}

// run samples until Envoy shuts down. It does not run on Envoy's main thread, which checks the hosts: a pass takes a tenth of a second if
// there are 10,000 clusters.
func (m *module) run() {
	runtime.LockOSThread()
	for !stopped.Load() {
		m.tick()
		regular := time.NewTimer(m.pace.wait(sinceBoot(), false))
		select {
		case <-m.sampler.wanted:
			time.Sleep(min(m.pace.wait(sinceBoot(), true), m.pace.wait(sinceBoot(), false)))
		case <-regular.C:
		}
		regular.Stop()
	}
}

// tick makes a pass, then runs the checks that are due.
func (m *module) tick() {
	defer m.recovered("while the clusters were sampled")
	select {
	case <-m.sampler.wanted: // this pass is the one that was requested
	default:
	}
	cpu := cpuTime()
	defer func() {
		m.pace.recordPass(sinceBoot(), cpuTime()-cpu)
		C.hg_age_set_sample_limit(C.int64_t(m.pace.ageLimit()))
	}()
	if m.isIdle() {
		m.sampler.forget()
		m.recordSample(sinceBoot())
		return
	}
	m.sample(m.started.Load())
	if m.workersStarted.Get() > 0 || !m.workersStarted.Found() { // a stats matcher may reject the gauge
		m.started.Store(true)
	}
	m.checkVersion()
	m.logSlowness()
	m.endReplaced(time.Now())
}

// checkVersion writes a line once if the module is not tested with this Envoy.
func (m *module) checkVersion() {
	if m.envoyIsKnown || !m.version.Found() {
		return
	}
	m.envoyIsKnown = true
	if line := untested(m.version.Get()); line != "" {
		logError(line)
	}
}

// logSlowness writes a line once if passes cost so much that samples may be older than usual.
func (m *module) logSlowness() {
	if limit := m.pace.ageLimit(); limit > defaultAgeLimit && !m.slowIsLogged {
		m.slowIsLogged = true
		logWarn(fmt.Sprintf("healthgate: Envoy has so many stats that reading them takes %v, so the clusters are sampled every %v "+
			"only, and a sample may be %v old before probes are answered with healthgate_stale",
			m.pace.cost.Round(time.Millisecond), m.pace.period().Round(100*time.Millisecond), limit.Round(100*time.Millisecond)))
	}
}

// clusterChanged handles Envoy's report that it has added, updated or removed a cluster.
func (m *module) clusterChanged(name string, removed bool) {
	m.sampler.clusters.report(name, clusterPart(name), removed)
	hash := hashOf(name)
	reads := func(g *gate) bool { return slices.Contains(g.reader.clusters, hash) }
	m.evaluate(reads)
	if !removed && slices.ContainsFunc(m.activeGates(), reads) { // its gauges may be new
		m.sampler.passSoon()
	}
}

// everySecond notices a main thread that hangs before a probe does, and notifies the watchers.
func (m *module) everySecond() {
	for range time.Tick(time.Second) {
		if stopped.Load() {
			return
		}
		C.hg_age_check(C.int64_t(defaultAgeLimit), false)
		C.hg_age_check(C.int64_t(shortestAgeLimit(m.activeGates())), true)
		notifyWatchers()
	}
}

// shortestAgeLimit does not read the gates' age limits in C, because Envoy may end a gate meanwhile.
func shortestAgeLimit(gates []*gate) time.Duration {
	shortest := defaultAgeLimit
	for _, g := range gates {
		shortest = min(shortest, ageLimit(g.configuration.Config()))
	}
	return shortest
}

// tested are the versions of Envoy that the module is tested with, and their server.version.
var tested = []struct {
	version string
	commit  uint64
}{{"1.38.3", 0x0ebfcf}, {"1.39.1", 0xb579d0}, {"1.39.3", 0x6eb0d2}, {"1.40.0", 0x9e5580}}

// untested returns a log line if the module is not tested with an Envoy, else "". Nothing else would refuse a newer Envoy.
func untested(commit uint64) string {
	var versions []string
	for _, t := range tested {
		if t.commit == commit {
			return ""
		}
		versions = append(versions, t.version)
	}
	return fmt.Sprintf("healthgate: this Envoy (commit %06x) is none of those that the dynamic module is tested with (%s): "+
		"it may answer wrongly or crash", commit, strings.Join(versions, ", "))
}
