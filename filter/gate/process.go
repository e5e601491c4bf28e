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
	mutex sync.Mutex
	since map[string]time.Time
}

// maxWarnings bounds the map; beyond it warnings may be late or repeated.
const maxWarnings = 20_000

// sinceWhen returns when it was first called for a thing that is missing, or for a line, and whether this is the first call.
func (w *warnings) sinceWhen(what string, now time.Time) (since time.Time, isFirst bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if since, known := w.since[what]; known {
		return since, false
	}
	if w.since == nil {
		w.since = make(map[string]time.Time)
	}
	if len(w.since) < maxWarnings {
		w.since[what] = now
	}
	return now, true
}

// remaining returns how much is left of the time for which something may be missing, at least a second.
func (w *warnings) remaining(what string, now time.Time, allowed time.Duration) time.Duration {
	since, _ := w.sinceWhen(what, now)
	return max(allowed-now.Sub(since), time.Second)
}

// found records that something is no longer missing.
func (w *warnings) found(what string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.since, what)
}

// hostsOf and checksOf are keys of warnings.since.
func hostsOf(statName string) string  { return "hosts of " + statName }
func checksOf(statName string) string { return "checks of " + statName }
