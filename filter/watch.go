package filter

import (
	"time"
)

// WatchEvery is how often Watch wants to be called, or 0 for never: only what has to be seen between probes is watched.
func (g *Gate) WatchEvery() time.Duration {
	const atLeast, atMost, looks = 50 * time.Millisecond, time.Second, 4
	shortest := time.Duration(0)
	for _, d := range []time.Duration{g.config.Hold.UnhealthyAfter, g.config.Hold.HealthyAfter, g.config.StaleAfter} {
		if d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	if shortest == 0 {
		return 0
	}
	return min(max(shortest/looks, atLeast), atMost)
}

// Watch evaluates the clusters without a probe.
func (g *Gate) Watch() { g.Evaluate() }
