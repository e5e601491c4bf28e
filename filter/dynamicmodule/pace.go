package dynamicmodule

import "time"

// Passes are so frequent that clients notice no delay of a change, but use at most 1/costShare of a core.
const (
	shortestPeriod = 50 * time.Millisecond
	costShare      = 20
)

// defaultAgeLimit is how old a sample may be, and how long the main thread may hang, without stale_after. A push of 1,000 clusters by CDS
// keeps the main thread busy for a second.
const defaultAgeLimit = 5 * time.Second

// pace decides when the next pass begins. All its times are since boot.
type pace struct {
	cost          time.Duration // of the last pass, in CPU time
	ended         time.Duration // when the last pass ended
	withinShareAt time.Duration // from then on all passes so far have used no more than their share
	next          time.Duration // when the next regular pass begins
}

// recordPass records a pass that ends now.
func (p *pace) recordPass(now, cost time.Duration) {
	p.cost, p.ended = cost, now
	p.withinShareAt = max(p.withinShareAt, now) + costShare*cost
	p.next = max(now+shortestPeriod, p.withinShareAt)
}

// wait returns how long the next pass has to wait. A pass for new gauges may begin earlier than a regular one, by the share of one pass. So
// an endless series of new gauges costs no more than regular passes do.
func (p *pace) wait(now time.Duration, newGauges bool) time.Duration {
	if newGauges && p.ended > 0 {
		return max(0, max(p.ended+shortestPeriod, p.withinShareAt-costShare*p.cost)-now)
	}
	return max(0, p.next-now)
}

// period returns the time between two regular passes.
func (p *pace) period() time.Duration { return max(shortestPeriod, costShare*p.cost) }

// ageLimit returns how old a sample may be at this pace. Passes before the last one may have cost more, and delay the next.
func (p *pace) ageLimit() time.Duration { return max(3*p.period(), p.next-p.ended+p.period()) }
