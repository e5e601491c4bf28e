package main

import (
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// at is a time of a test, in seconds.
func at(seconds float64) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func within(from, to float64) Window { return Window{at(from), at(to)} }

var (
	passing = Answer{Status: 200, Details: "healthgate_ok"}
	failing = Answer{Status: 503, Details: "healthgate_cluster_unhealthy"}
	held200 = Answer{Status: 200, Details: "healthgate_held"}
	held503 = Answer{Status: 503, Details: "healthgate_held"}
)

func TestHoldAllowsOtherAnswersOnlyNearAChange(t *testing.T) {
	type step struct {
		from, to           float64
		truth              Answer
		touched, restarted bool
	}
	slow, fast := &Hold{"10s", "4s"}, &Hold{"0s", "10s"}
	const still, touched, restarted = 0, 1, 2
	event := func(from float64, truth Answer, what int) step {
		return step{from, from + 0.1, truth, what == touched, what == restarted}
	}
	begin, fail := event(0, passing, touched), event(5, failing, touched)
	all := func(steps ...step) []step { return steps }
	for _, test := range []struct {
		name    string
		hold    *Hold
		steps   []step
		when    float64
		allowed []Answer // and no other of the four
	}{
		{"the first truth is the verdict", slow, all(event(0, failing, touched)), 0.2, []Answer{failing}},
		{"a change is held", slow, all(begin, fail), 8, []Answer{held200}},
		{"either answer near the end of hold", slow, all(begin, fail), 15.5, []Answer{passing, failing, held200}},
		{"the changed verdict after it", slow, all(begin, fail), 17, []Answer{failing}},
		{"another route changes", slow, all(begin, fail, event(7, failing, still)), 9, []Answer{held200}},
		{"the filter is replaced", slow, all(begin, fail, event(7, failing, restarted)), 9, []Answer{passing, failing, held200}},
		{"long after the filter is replaced", slow, all(begin, fail, event(7, failing, restarted)), 19, []Answer{failing}},
		{"a possible interruption", slow, all(begin, fail, event(9, failing, touched)), 18, []Answer{passing, failing, held200}},
		{"the change ends before the hold", slow, all(begin, fail, event(9, passing, touched)), 11, []Answer{passing}},
		{"the change ends near the end of hold", slow, all(begin, fail, event(15.5, passing, touched)), 18, []Answer{passing, held503, failing}},
		{"the truth changes back", slow, all(begin, fail, event(20, passing, touched)), 22, []Answer{held503}},
		{"the verdict changes back", slow, all(begin, fail, event(20, passing, touched)), 26, []Answer{passing}},
		{"no hold to fail", fast, all(begin, fail), 7, []Answer{failing}},
		{"an interruption may have become the verdict", fast, all(begin, event(5, passing, touched)), 7, []Answer{passing, held503, failing}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := Debounce{}
			for _, s := range test.steps {
				d.observe(Config{Hold: test.hold}, s.truth, within(s.from, s.to), s.touched, s.restarted, false)
			}
			want := map[Answer]bool{}
			for _, a := range test.allowed {
				want[a] = true
			}
			got := d.expect(within(test.when, test.when+0.01))
			for _, a := range []Answer{passing, failing, held200, held503} {
				if got.allows(a) != want[a] {
					t.Errorf("%+v allowed: %v, want %v", a, got.allows(a), want[a])
				}
			}
		})
	}
}

func TestNewGateMayHaveTheHoldOfAnEarlierOne(t *testing.T) {
	for earlier, want := range map[bool]bool{true: true, false: false} {
		d := Debounce{}
		d.observe(Config{Hold: &Hold{"10s", "0s"}}, failing, within(0, 0.1), false, false, earlier)
		if got := d.expect(within(3, 3.1)).allows(held200); got != want {
			t.Errorf("earlier gate %v: held is allowed: %v", earlier, got)
		}
	}
}

func TestGateIsStaleOnceHealthChecksStop(t *testing.T) {
	type step struct {
		from, to            float64
		moving, interrupted bool
	}
	const after = 2 * time.Second
	began := step{0, 0.1, true, false}
	for _, test := range []struct {
		name         string
		steps        []step
		when         float64
		fresh, stale bool // allowed
	}{
		{"checks have just begun", []step{began}, 1, true, true},
		{"checks are made", []step{began}, 5, true, false},
		{"checks have just stopped", []step{began, {10, 10.1, false, false}}, 11, true, false},
		{"near the age limit", []step{began, {10, 10.1, false, false}}, 12.5, true, true},
		{"older than the limit", []step{began, {10, 10.1, false, false}}, 14, false, true},
		{"a counter reset may look like a check", []step{began, {10, 10.1, false, false}, {13, 13.1, false, true}}, 14, true, true},
		{"checks begin again from 0", []step{began, {10, 10.1, false, false}, {20, 20.1, true, false}}, 23, true, false},
		{"checks were made for a moment only", []step{began, {0.5, 0.6, false, false}}, 1, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Checks{}
			for _, s := range test.steps {
				c.observe(s.moving, within(s.from, s.to), s.interrupted)
			}
			got := c.expect(passing, after, within(test.when, test.when+0.01))
			if got.allows(passing) != test.fresh || got.allows(answerStale) != test.stale {
				t.Errorf("got %+v, want fresh %v, stale %v", got, test.fresh, test.stale)
			}
		})
	}
}

// canAll has all abilities, and so reads gauges.
type canAll struct{ testbed.Variant }

func (canAll) Can(testbed.Ability) error { return nil }

// Whether the gauges of a removed cluster stay depends on what else reads them. So the verdict is unknown when the cluster is back.
func TestHoldOverAForgottenClusterIsUnknown(t *testing.T) {
	o := Options{Variants: []Variant{{plugin, canAll{}}}}
	r := &Run{Options: o, world: newWorld(), known: map[string]*Gate{}, hadHold: map[string]bool{}}
	gate := Config{Clusters: []Requirement{{Name: "absent3", MinHealthy: 1}}, Hold: &Hold{"2s", "4s"}}
	for i, test := range []struct {
		event   Event
		certain bool // 0.5 s later
	}{
		{Event{Kind: "add", Cluster: "absent3"}, true},
		{Event{Kind: "host", Cluster: "absent3", State: "HEALTHY"}, true},
		{Event{Kind: "remove", Cluster: "absent3"}, true},
		{Event{Kind: "override", Level: "a", Filter: 1, Config: &gate}, false},
		{Event{Kind: "time"}, false},
		{Event{Kind: "add", Cluster: "absent3"}, false},
	} {
		now := 100 * float64(i)
		r.world.apply(test.event)
		r.observe(test.event, within(now, now+0.1))
		g := r.known["ingress, virtual host a, /plugin/filter/1"]
		if got, _ := r.expect(g, within(now+0.5, now+0.6)); got.certain() != test.certain {
			t.Errorf("after %s: got %+v, want one answer: %v", asJSON(test.event), got, test.certain)
		}
	}
	g := r.known["ingress, virtual host a, /plugin/filter/1"]
	if got, _ := r.expect(g, within(520, 520.1)); !got.certain() || !got.passing() {
		t.Errorf("long after: got %+v, want only passing", got)
	}
}
