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

// Envoy is Envoy as one filter's configuration sees it through a variant.
type Envoy interface {
	gate.Envoy
	// Error writes a line to Envoy's log.
	Error(line string)
	// IsGone reports whether a panic means that Envoy has destroyed its own configuration object.
	IsGone(cause any) bool
}

// Process is the state that all configurations of one Envoy share. The zero value is ready.
type Process struct {
	// Lazy creates a filter's gate at its first probe, like a merged configuration's gate, because few of a thousand filter chains are ever
	// probed. Otherwise the gate is created with the configuration, while Envoy can define its stats.
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
