package dynamicmodule

import "time"

// How often Envoy's stats are passed over: often enough that no client waits for a change, and so seldom that it takes one part in
// `share` of a core, whatever a pass costs.
const (
	shortestPeriod = 50 * time.Millisecond
	share          = 20
)

// defaultAgeLimit is how old a sample may be, and how long the main thread may hang, without stale_after: a push of 1,000 clusters by
// CDS keeps the main thread busy for a second.
const defaultAgeLimit = 5 * time.Second

// pace decides when the next pass begins.
type pace struct {
	cost   time.Duration // of the last pass, in CPU time
	ended  time.Duration // when the last pass ended, since boot
	paidAt time.Duration // when the passes so far have had their share, since boot
	next   time.Duration // when the next regular pass begins, since boot
}

// passed records a pass that ends now and has cost so much CPU time.
func (p *pace) passed(now, cost time.Duration) {
	p.cost, p.ended = cost, now
	p.paidAt = max(p.paidAt, now) + share*cost
	p.next = max(now+shortestPeriod, p.paidAt)
}

// wait is how long the next pass has to wait. One for new names may begin before its time, by the share of one pass: names that come
// without end make no more passes than others.
func (p *pace) wait(now time.Duration, newNames bool) time.Duration {
	if newNames && p.ended > 0 {
		return max(0, max(p.ended+shortestPeriod, p.paidAt-share*p.cost)-now)
	}
	return max(0, p.next-now)
}

// period is the time between two regular passes.
func (p *pace) period() time.Duration { return max(shortestPeriod, share*p.cost) }

// ageLimit is how old a sample may be at this pace. The passes before the last may have cost more, and are still to be paid for.
func (p *pace) ageLimit() time.Duration { return max(3*p.period(), p.next-p.ended+p.period()) }
