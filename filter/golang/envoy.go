package golang

import (
	"fmt"
	"sync"
	"time"

	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"

	"healthgate/filter/envoystats"
	"healthgate/filter/gate"
	"healthgate/filter/version"
)

// envoy is Envoy as the gates of one filter's configuration see it.
type envoy struct{ *handles }

func (e envoy) Gauge(name string) envoystats.Value      { return e.gauge(name) }
func (e envoy) Counter(name string) envoystats.Value    { return e.counter(name) }
func (e envoy) NewCounter(name string) gate.Counter     { return e.counter(name) }
func (e envoy) NewGauge(name string) gate.SettableGauge { return e.gauge(name) }
func (e envoy) Info(line string)                        { api.LogInfo(line) }
func (e envoy) Warn(line string)                        { api.LogWarn(line) }
func (e envoy) Error(line string)                       { api.LogError(line) }
func (e envoy) Now() time.Time                          { return time.Now() }

// IsGone recognizes the panics by which the SDK of Envoy v1.39.1 reports that Envoy has destroyed the configuration or the stream:
// errRequestFinished and errFilterDestroyed in contrib/golang/filters/http/source/go/pkg/http/type.go.
func (envoy) IsGone(cause any) bool {
	return cause == "request has been finished" || cause == "golang filter has been destroyed"
}

// The Envoy that the plugin is built for. Its server.version is the first six hex digits of the commit that it was built
// from: server.cc in source/server of v1.39.1.
const (
	envoyVersion = "1.39.1"
	envoyCommit  = 0xb579d0
)

var logVersion, warnOfVersion sync.Once

// logLoad logs once which build this is, and once if Envoy is not the one that the plugin is built for, which nothing else would report. If
// a stats matcher rejects server.version, it reads 0.
func logLoad(e envoy) {
	logVersion.Do(func() {
		e.Info(fmt.Sprintf("healthgate: %s, Go plugin for Envoy %s", version.String(), envoyVersion))
	})
	if commit := e.Gauge(envoystats.ServerVersion).Get(); commit != 0 && commit != envoyCommit {
		warnOfVersion.Do(func() {
			e.Warn(fmt.Sprintf("healthgate: this plugin was built for Envoy %s (commit %06x), and this Envoy is of commit %06x: it may crash. "+
				"Use the plugin of its version", envoyVersion, envoyCommit, commit))
		})
	}
}
