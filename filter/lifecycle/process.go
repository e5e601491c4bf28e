package lifecycle

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/adminsource"
	"healthgate/filter/envoystats"
	"healthgate/filter/gate"
)

// Envoy is Envoy as a variant shows it to one filter's configuration.
type Envoy interface {
	gate.Envoy
	// Error writes a line to Envoy's log.
	Error(line string)
	// IsGone reports whether a panic means that Envoy has destroyed its side of the configuration.
	IsGone(cause any) bool
}

// Process is the state that all configurations of one Envoy share. The zero value is ready.
type Process struct {
	// Lazy makes a filter's gate with its first probe, like a merged configuration's: of a thousand filter chains few are ever
	// probed. Otherwise it is made with the configuration, while Envoy can define its stats.
	Lazy bool

	ages    envoystats.Ages
	gates   gate.Process
	pollers adminsource.Pollers
	// pairs guards all pairs. It is held while a merged configuration is decoded, but never while Envoy is called.
	pairs     sync.Mutex
	serial    atomic.Uint64
	lastPanic atomic.Int64 // Unix time in nanoseconds of the last panic logged, 0 before
}

// LogPanic writes a panic and its stack to Envoy's log, at most once a minute: there is a probe every second or so.
func (p *Process) LogPanic(envoy Envoy, where string, cause any) {
	now, last := time.Now().UnixNano(), p.lastPanic.Load()
	if last != 0 && now-last < int64(time.Minute) || !p.lastPanic.CompareAndSwap(last, now) {
		return
	}
	stack := strings.ReplaceAll(strings.TrimSpace(string(debug.Stack())), "\n", " | ") // one line, as all of Envoy's log
	envoy.Error(fmt.Sprintf("healthgate: panic %s: %v: %s", where, cause, stack))
}
