package golang

import (
	"fmt"
	"sync"
)

// The Envoy that the plugin is built for. Its server.version is the first six hex digits of the commit that it was built
// from: server.cc in source/server of v1.39.1.
const (
	envoyVersion = "1.39.1"
	envoyCommit  = 0xb579d0
)

var warnedOfEnvoy sync.Once

// warnOfAnotherEnvoy says once where Envoy is another than the plugin was built for, which nothing else would tell. A gauge
// that is not kept reads 0.
func warnOfAnotherEnvoy(h host) {
	if commit := h.Gauge("server.version").Get(); commit != 0 && commit != envoyCommit {
		warnedOfEnvoy.Do(func() {
			h.Warn(fmt.Sprintf("healthgate: this plugin was built for Envoy %s (commit %06x), and this Envoy is of commit %06x: it may crash. "+
				"Use the plugin of its version", envoyVersion, envoyCommit, commit))
		})
	}
}
