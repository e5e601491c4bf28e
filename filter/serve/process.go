package serve

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter"
	"healthgate/filter/admin"
)

// Host is Envoy as a door shows it to one configuration of a filter.
type Host interface {
	filter.Host
	// Error writes a line to Envoy's log.
	Error(line string)
	// Gone says whether a panic is the door's word for a configuration whose side in Envoy has gone.
	Gone(cause any) bool
}

// Looker is a Host that looks at its gates by itself, on a thread of Envoy's: it makes each answer known before a probe asks.
type Looker interface {
	// LookAt has the gate of a configuration looked at, and warned of, until end is called. It is called while the
	// configuration starts.
	LookAt(c *Configuration, gate *filter.Gate) (end func())
}

// Process is what all configurations of one Envoy have in common. The zero value is ready, for the contrib door.
type Process struct {
	// Door is the way into Envoy.
	Door filter.Door

	gates   filter.Process
	pollers admin.Pollers
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
