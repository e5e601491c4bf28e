package module

import "time"

// When all is looked at: often enough that nobody waits for an answer to change, and seldom enough that Envoy's main thread does not
// notice.
const (
	most       = time.Second
	atLeast    = 50 * time.Millisecond
	share      = 50                   // of the main thread, a pass takes one part in so many
	starting   = 2 * time.Millisecond // until the workers have started
	countersAt = time.Second          // between two passes over the counters, at the least
)

// workersStarted is the gauge that is 1 once Envoy's workers have started: listener_manager_impl.h of v1.39.1.
const workersStarted = "listener_manager.workers_started"

// next is how long to wait after a look that took some time. While Envoy starts, the first answer of a worker has to be the truth
// of that moment; half of the main thread is left to Envoy even then.
func next(took time.Duration, starts bool) time.Duration {
	if starts {
		return min(max(took, starting), most)
	}
	return min(max(share*took, atLeast), most)
}

// countersEvery is how often the counters are passed over for the shortest stale_after: they are many.
func countersEvery(staleAfter time.Duration) time.Duration { return max(staleAfter/4, countersAt) }

// oldest is how old the last look may be that a probe is answered by.
func oldest(staleAfter time.Duration) time.Duration {
	if staleAfter == 0 {
		return 5 * time.Second // a push of 1,000 clusters by CDS holds the main thread up for a second
	}
	return max(staleAfter, 2*most)
}
