package module

import "time"

// How often Envoy's stats are passed over: often enough that no client waits for a change, and so seldom that Envoy's main thread
// spends one part in `share` on it, whatever a pass costs.
const (
	shortestPeriod = 50 * time.Millisecond
	share          = 40
	idlePeriod     = time.Second // without gates
)

// defaultAgeLimit is how old a sample may be without stale_after: a push of 1,000 clusters by CDS keeps the main thread busy for a
// second.
const defaultAgeLimit = 5 * time.Second

// pace decides when the next pass begins. It is the main thread's alone.
type pace struct {
	cost   time.Duration // of the last pass, in CPU time
	paidAt time.Duration // when the passes so far have had their share of the main thread, since boot
	next   time.Duration // when the next regular pass begins, since boot
}

// passed records a pass that ends now and has cost so much CPU time.
func (p *pace) passed(now, cost time.Duration) {
	p.cost = cost
	p.paidAt = max(p.paidAt, now) + share*cost
	p.next = max(now+shortestPeriod, p.paidAt)
}

// wait is how long the next pass has to wait. One for new names may begin before its time, by the share of one pass: names that come
// without end don't get more of the main thread than others.
func (p *pace) wait(now time.Duration, newNames bool) time.Duration {
	if newNames {
		return max(0, p.paidAt-share*p.cost-now)
	}
	return max(0, p.next-now)
}

// ageLimit is how old a sample may be at this pace.
func (p *pace) ageLimit() time.Duration { return 3 * max(shortestPeriod, share*p.cost) }
