package dynamicmodule

import (
	"fmt"
	"strings"
)

// Gauges of Envoy itself that the module reads.
const (
	workersStarted = "listener_manager.workers_started" // 1 once Envoy's workers have started: listener_manager_impl.h of v1.39.1
	serverVersion  = "server.version"                   // the first six hex digits of Envoy's commit: server.cc
)

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
