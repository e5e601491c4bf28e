package lifecycle

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/adminsource"
	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/gate"
)

// Host is Envoy as a variant shows it to one configuration of a filter.
type Host interface {
	gate.Envoy
	// Error writes a line to Envoy's log.
	Error(line string)
	// Gone says whether a panic is the variant's word for a configuration whose side in Envoy has gone.
	Gone(cause any) bool
}

// Sampler is a Host that samples Envoy's stats by itself, and publishes each gate's reply before a probe needs it.
type Sampler interface {
	// NewReader returns the Host of one gate.
	NewReader() Reader
}

// Reader is the Host of one gate, whose stats are sampled until it is closed.
type Reader interface {
	gate.Envoy
	// Register adds the gate, which reads its stats through this Reader, to the sampler; the returned function removes it.
	Register(c *Configuration, gate *gate.Gate) (unregister func())
	// Close ends the sampling of the stats that only this Reader has asked for.
	Close()
}

// Process is what all configurations of one Envoy have in common. The zero value is ready, for the Go plugin.
type Process struct {
	// Variant is the way into Envoy.
	Variant config.Variant
	// Lazy is whether the gate of a filter is made with its first probe, as that of a merged configuration is: of a thousand filter
	// chains few are ever probed. Otherwise it is made with the configuration, while Envoy can define its stats.
	Lazy bool

	ages    envoystats.Ages
	gates   gate.Process
	pollers adminsource.Pollers
	// life guards what configurations and overrides know of each other. It is held while a pair is made, which reads its
	// configuration, and never while Envoy is called.
	life      sync.Mutex
	lastPanic atomic.Int64 // Unix time in nanoseconds of the last panic logged, 0 before
}

// LogPanic writes a panic and its stack to Envoy's log, at most once a minute: a probe comes every second or so.
func (p *Process) LogPanic(host Host, where string, cause any) {
	now, last := time.Now().UnixNano(), p.lastPanic.Load()
	if last != 0 && now-last < int64(time.Minute) || !p.lastPanic.CompareAndSwap(last, now) {
		return
	}
	stack := strings.ReplaceAll(strings.TrimSpace(string(debug.Stack())), "\n", " | ") // one line, as all of Envoy's log
	host.Error(fmt.Sprintf("healthgate: panic %s: %v: %s", where, cause, stack))
}
