package dynamicmodule

/*
#include "healthgate.h"
*/
import "C"

import (
	"fmt"
)

// The gauges of Envoy itself that the module reads.
const (
	workersStarted = "listener_manager.workers_started" // 1 once Envoy's workers have started: listener_manager_impl.h of v1.39.1
	serverVersion  = "server.version"                   // the first six hex digits of the commit that Envoy was built from: server.cc
)

// tested are the versions of Envoy that the module is tested with, as server.version has them.
var tested = []struct {
	version string
	commit  uint64
}{{"1.38.3", 0x0ebfcf}, {"1.39.1", 0xb579d0}, {"1.39.3", 0x6eb0d2}, {"1.40.0", 0x9e5580}}

// checkEnvoy writes a line once if Envoy is none of those that the module is tested with: nothing else would refuse a newer one.
func (m *module) checkEnvoy() {
	if m.envoyIsKnown || !m.own.version.Found() {
		return
	}
	m.envoyIsKnown = true
	commit := m.own.version.Get()
	versions := ""
	for i, known := range tested {
		if known.commit == commit {
			return
		}
		versions += []string{"", ", "}[min(i, 1)] + known.version
	}
	log(C.HG_LOG_ERROR, fmt.Sprintf("healthgate: this Envoy (commit %06x) is none of those that the dynamic module is tested with (%s): "+
		"it may answer wrongly or crash", commit, versions))
}
