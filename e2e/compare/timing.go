package main

import (
	"net/http"
	"slices"
	"time"
)

// slack is how long Healthgate may take to see a change: between probes the Go plugin samples a gate with hold once a second, and the
// machine is busy.
const slack = 1500 * time.Millisecond

// Window is the bounds of a time that is not known exactly.
type Window struct{ From, To time.Time }

// Expectation is the set of answers that are allowed within a window.
type Expectation struct {
	Answers []Answer // any of these
	Status  int      // if not 0: also this one, with any details
}

func (e Expectation) allows(a Answer) bool {
	return slices.Contains(e.Answers, a) || e.Status != 0 && a.Status == e.Status
}

func (e Expectation) allowsStatus(status int) bool {
	return e.Status == status || slices.ContainsFunc(e.Answers, func(a Answer) bool { return a.Status == status })
}

// unknown reports whether the model does not know the answer.
func (e Expectation) unknown() bool { return len(e.Answers) == 0 && e.Status == 0 }

// passing reports whether a passing answer is allowed.
func (e Expectation) passing() bool { return e.allowsStatus(http.StatusOK) }

// certain reports whether only one answer is allowed.
func (e Expectation) certain() bool { return len(e.Answers) == 1 && e.Status == 0 }

// Debounce follows the verdict of a gate with hold. The truth is the verdict without hold. The first verdict is the truth; it changes once
// the truth has been the other one for long enough without interruption. While the times do not show whether it has changed, the verdict
// is unknown.
type Debounce struct {
	config  Config // of the gate
	truth   Answer
	since   Window // when the truth last changed or was interrupted
	known   bool   // whether the verdict is known
	verdict bool   // whether it passes
}

func passes(a Answer) bool { return a.Status == http.StatusOK }

// wait returns how long the truth must last until it becomes the verdict.
func (d *Debounce) wait(passing bool) time.Duration {
	if passing {
		return duration(d.config.Hold.HealthyAfter)
	}
	return duration(d.config.Hold.UnhealthyAfter)
}

// advance makes the truth the verdict if it must be by now.
func (d *Debounce) advance(now time.Time) {
	passing := passes(d.truth)
	wait := d.wait(passing)
	if !d.known {
		wait = max(d.wait(true), d.wait(false))
	}
	if now.After(d.since.To.Add(wait + slack)) {
		d.known, d.verdict = true, passing
	}
}

// observe updates the truth after an event that happened within a window. The event may have interrupted the truth if it touched a cluster
// of the gate, and may have replaced the gate if it restarted the filter. A new gate begins with the truth, or with the state of an earlier
// gate with the same configuration.
func (d *Debounce) observe(c Config, truth Answer, at Window, touched, restarted, earlier bool) {
	if d.config.Hold == nil || d.config.String() != c.String() {
		*d = Debounce{config: c, truth: truth, since: at, known: !earlier, verdict: passes(truth)}
		return
	}
	d.advance(at.From)
	pending := d.known && d.verdict != passes(d.truth)
	changed := passes(truth) != passes(d.truth)
	switch {
	case changed && pending:
		// The verdict is the truth again, unless it changed just before.
		d.known = d.known && at.To.Before(d.since.From.Add(d.wait(passes(d.truth))))
	case !changed && touched && !pending && at.To.Sub(at.From)+slack > d.wait(!passes(d.truth)):
		d.known = false // an interruption may have become the verdict
	}
	if restarted && (pending || changed) {
		d.known = false // the new gate began with the truth, or kept the state
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
	case d.known && d.verdict == passing:
		return Expectation{Answers: []Answer{d.truth}}
	case d.known && at.To.Before(d.since.From.Add(d.wait(passing))):
		return Expectation{Answers: []Answer{other}}
	}
	return Expectation{Answers: []Answer{d.truth, other}, Status: other.Status}
}

// Checks follows the health checks of a cluster, which tell the Go plugin how old the hosts' health is.
type Checks struct {
	running bool   // checks are made
	changed Window // when they began, stopped or were interrupted
	fresh   bool   // before they stopped, they ran long enough to be seen
}

// observe records whether checks are made after an event, and whether the event interrupted them.
func (c *Checks) observe(running bool, at Window, interrupted bool) {
	switch {
	case running != c.running:
		c.fresh = c.running && at.From.After(c.changed.To.Add(slack))
		c.running, c.changed = running, at
	case interrupted:
		c.changed.To = at.To
	}
}

// expect returns the answers that a gate with stale_after may give within a window; truth is its answer without stale_after.
func (c *Checks) expect(truth Answer, after time.Duration, at Window) Expectation {
	switch {
	case c.running && at.From.After(c.changed.To.Add(slack)), !c.running && c.fresh && at.To.Before(c.changed.From.Add(after-slack/2)):
		return Expectation{Answers: []Answer{truth}}
	case !c.running && at.From.After(c.changed.To.Add(after+slack)):
		return Expectation{Answers: []Answer{answerStale}}
	}
	return Expectation{Answers: []Answer{truth, answerStale}}
}
