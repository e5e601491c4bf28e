package main

import (
	"slices"
	"time"
)

// slack is how long a change may take to be seen: a Go plugin samples a gate with hold once a second between probes, and the machine is
// busy.
const slack = 1500 * time.Millisecond

// Window is a time that is known by its bounds.
type Window struct{ From, To time.Time }

// Expectation is the set of answers that are allowed within a window.
type Expectation struct {
	Answers []Answer // any of these
	// Status, if it is not 0, is one that may come with any details.
	Status int
}

func (e Expectation) allows(a Answer) bool {
	return slices.Contains(e.Answers, a) || e.Status != 0 && a.Status == e.Status
}

// unknown reports whether anything may be answered.
func (e Expectation) unknown() bool { return len(e.Answers) == 0 && e.Status == 0 }

// passing reports whether a passing answer is allowed.
func (e Expectation) passing() bool {
	return e.Status == 200 || slices.ContainsFunc(e.Answers, passes)
}

// certain reports whether there is one answer only, or one status.
func (e Expectation) certain() bool { return (len(e.Answers) == 1) != (e.Status != 0) }

// Debounce follows the verdict of a gate with hold. The contract: the first verdict is the truth; a change stands once the truth has been
// the other one for long enough without a break. The verdict is not known while it is not clear whether a change has stood.
type Debounce struct {
	config   Config // the gate's
	truth    Answer
	since    Window // when the truth changed, or was last interrupted
	known    bool
	standing bool // the verdict, if it is known
}

func passes(a Answer) bool { return a.Status < 300 }

// wait is how long the truth must last before it stands.
func (d *Debounce) wait(passing bool) time.Duration {
	if passing {
		return duration(d.config.Hold.HealthyAfter)
	}
	return duration(d.config.Hold.UnhealthyAfter)
}

// advance takes note that a change has stood by now.
func (d *Debounce) advance(now time.Time) {
	longest := max(d.wait(true), d.wait(false))
	passing := passes(d.truth)
	switch {
	case d.known && now.After(d.since.To.Add(d.wait(passing)+slack)), !d.known && now.After(d.since.To.Add(longest+slack)):
		d.known, d.standing = true, passing
	}
}

// observe takes the truth after an event that happened within a window. The event may have interrupted the truth if it touched one of the
// gate's clusters, and made the gate anew if it restarted the filter.
// A new gate takes the first truth; or the state of an earlier one with the same configuration, if there has been one.
func (d *Debounce) observe(c Config, truth Answer, at Window, touched, restarted, earlier bool) {
	if d.config.Hold == nil || d.config.String() != c.String() {
		*d = Debounce{config: c, truth: truth, since: at, known: !earlier, standing: passes(truth)}
		return
	}
	d.advance(at.From)
	pending := d.known && d.standing != passes(d.truth)
	changed := passes(truth) != passes(d.truth)
	switch {
	case changed && pending:
		// The truth is the verdict again, unless the change stood just before.
		d.known = d.known && at.To.Before(d.since.From.Add(d.wait(passes(d.truth))))
	case !changed && touched && !pending && at.To.Sub(at.From)+slack > d.wait(!passes(d.truth)):
		d.known = false // an interruption may have stood
	}
	if restarted && (pending || changed) {
		d.known = false // the new filter took the first truth, or kept the state
	}
	switch {
	case changed:
		d.since = at
	case touched || !d.known:
		d.since.To = at.To
	}
	d.truth = truth
}

// expect returns the answers that are allowed within a window.
func (d *Debounce) expect(at Window) Expectation {
	d.advance(at.From)
	passing := passes(d.truth)
	other := Answer{Status: 200, Details: "healthgate_held"}
	if passing {
		other.Status = 503
	}
	switch {
	case d.known && d.standing == passing:
		return Expectation{Answers: []Answer{d.truth}}
	case d.known && at.To.Before(d.since.From.Add(d.wait(passing))):
		return Expectation{Answers: []Answer{other}}
	}
	return Expectation{Answers: []Answer{d.truth, other}, Status: other.Status}
}

// Checks follows the health checks of a cluster, by which a Go plugin knows how old the health is.
type Checks struct {
	moving  bool
	changed Window // when they began, were interrupted, or stopped
	fresh   bool   // they had run long enough to be seen before they stopped
}

// observe takes whether checks are made after an event, and whether the event interrupted them.
func (c *Checks) observe(moving bool, at Window, interrupted bool) {
	switch {
	case moving != c.moving:
		c.fresh = c.moving && at.From.After(c.changed.To.Add(slack))
		c.moving, c.changed = moving, at
	case interrupted:
		c.changed.To = at.To
	}
}

// expect returns the answers of a gate with stale_after that are allowed within a window, if its answer were truth otherwise.
func (c *Checks) expect(truth Answer, after time.Duration, at Window) Expectation {
	switch {
	case c.moving && at.From.After(c.changed.To.Add(slack)), !c.moving && c.fresh && at.To.Before(c.changed.From.Add(after-slack/2)):
		return Expectation{Answers: []Answer{truth}}
	case !c.moving && at.From.After(c.changed.To.Add(after+slack)):
		return Expectation{Answers: []Answer{answerStale}}
	}
	return Expectation{Answers: []Answer{truth, answerStale}}
}
