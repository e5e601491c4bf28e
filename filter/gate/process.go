package gate

import (
	"sync"
	"time"

	"healthgate/filter/envoystats"
)

// Process is the state that the gates of one process share. The zero value is ready.
type Process struct {
	draining envoystats.Draining
	gauges   healthyGauges
	holds    holds
	warnings warnings
}

// warnings remembers, for the whole process, since when something has been missing, and which lines were logged. New configurations
// neither delay a warning nor repeat it.
type warnings struct {
	mutex  sync.Mutex
	since  map[string]time.Time
	logged map[string]struct{}
}

// maxWarnings bounds both maps; beyond it warnings may be late or repeated.
const maxWarnings = 10_000

// remaining returns how much is left of the time for which something may be missing, at least a second.
func (w *warnings) remaining(what string, now time.Time, allowed time.Duration) time.Duration {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	since, ok := w.since[what]
	if !ok {
		if since = now; len(w.since) < maxWarnings {
			if w.since == nil {
				w.since = make(map[string]time.Time)
			}
			w.since[what] = now
		}
	}
	return max(allowed-now.Sub(since), time.Second)
}

// found records that something is no longer missing.
func (w *warnings) found(what string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.since, what)
}

// isFirst reports whether a line was not logged yet.
func (w *warnings) isFirst(line string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if _, logged := w.logged[line]; logged {
		return false
	}
	if len(w.logged) < maxWarnings {
		if w.logged == nil {
			w.logged = make(map[string]struct{})
		}
		w.logged[line] = struct{}{}
	}
	return true
}

// hostsOf and checksOf are keys of warnings.since.
func hostsOf(statName string) string  { return "hosts of " + statName }
func checksOf(statName string) string { return "checks of " + statName }
