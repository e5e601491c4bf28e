package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// patience is how long an answer may differ after an event. The module itself takes older samples for stale.
	patience = 5 * time.Second
	// retryEvery is the time between two attempts of the same question.
	retryEvery = 5 * time.Millisecond
	// inParallel is how many questions are asked at the same time.
	inParallel = 8
)

// Gate is a gate of one variant in one listener.
type Gate struct {
	Listener string
	Variant  Variant
	Place    Place
	Path     string

	config   Config // merged
	truth    Answer // without drain, hold and stale_after
	debounce Debounce
	last     Answer // in this state
}

func (g *Gate) String() string {
	return fmt.Sprintf("%s, virtual host %s, %s", g.Listener, g.Place.VirtualHost, g.Path)
}

// observe updates the gates of the model after an event that happened within a window.
func (r *Run) observe(e Event, at Window) {
	freezes := e.Kind == "freeze" || e.Kind == "long freeze"
	c := r.world.Clusters[checked]
	interrupted := e.Cluster == checked || freezes || e.Kind == "reset" && !r.checks.running
	r.checks.observe(c.Present && len(c.Hosts) > 0, at, interrupted)
	listeners := []string{"ingress"}
	if r.world.Second {
		listeners = append(listeners, "second")
	}
	before := r.gates
	r.gates = nil
	for _, listener := range listeners {
		for _, place := range r.world.places() {
			for _, v := range slices.Backward(r.Variants) { // the module first: it may need time
				g := &Gate{Listener: listener, Variant: v, Place: place, Path: place.path(v.Name)}
				if old := r.known[g.String()]; old != nil {
					g = old
				}
				r.known[g.String()] = g
				g.config = r.world.merged(place, v.MergesLevels())
				g.truth = r.world.evaluate(g.config, !v.ReadsGauges())
				debounced := g.config.hold() && !(v.ReadsGauges() && r.world.forgotten(g.config))
				if !debounced || !slices.Contains(before, g) {
					g.debounce = Debounce{}
				}
				if debounced {
					touched := freezes || slices.ContainsFunc(g.config.Clusters, func(c Requirement) bool {
						return c.Name == e.Cluster || c.Name == e.Other
					})
					restarted := e.Kind == "filter" && (e.Filter >= filters/2 || e.Filter == place.Filter)
					g.debounce.observe(g.config, g.truth, at, touched, restarted, r.hadHold[g.Path+g.config.String()])
				}
				r.gates = append(r.gates, g)
			}
		}
	}
	for _, g := range r.gates {
		if g.config.hold() {
			r.hadHold[g.Path+g.config.String()] = true
		}
	}
}

// expect returns the answers that a gate may give within a window, and for how long it may differ. Without any answers the model does not
// know.
func (r *Run) expect(g *Gate, at Window) (Expectation, time.Duration) {
	served := slices.ContainsFunc(g.config.Clusters, func(c Requirement) bool { return hasServers(c.Name) })
	wait := cmp.Or(r.Patience, patience)
	e := Expectation{Answers: []Answer{g.truth}}
	switch stale := g.config.staleAfter(); {
	case r.world.Drained && g.config.Drain != "ignore":
		e.Answers = []Answer{answerDraining}
	case g.Variant.ReadsGauges() && r.world.forgotten(g.config), g.config.hold() && (served || stale > 0):
		return Expectation{}, 0
	case g.config.hold():
		e, wait = g.debounce.expect(at), slack
	case g.Variant.ReadsGauges() && stale > 0 && r.world.Clusters[checked].Counts().Total > 0:
		e, wait = r.checks.expect(g.truth, stale, at), slack
	}
	if r.Wrong != nil {
		e.Answers = slices.Clone(e.Answers)
		for i, answer := range e.Answers {
			e.Answers[i] = r.Wrong(g.Variant, answer)
		}
	}
	return e, wait
}

// question is asked until two sides agree.
type question struct {
	pair string // names the two sides
	with string // the other side
	gate *Gate
	what string // of the gate, such as "Check of "; "" for its reply to a probe
	ask  func() (reply, error)

	since  time.Time // when they first differed
	agreed bool      // the last time, after they had differed
	last   reply
}

// reply is the result of asking once.
type reply struct {
	got, want    any
	same, counts bool
	failsOpen    bool // the gate passes, and should not
	patience     time.Duration
	special      string // kind of answer that is counted separately
	removed      string // the cluster whose gauges explain why both sides may differ, and do
}

// agree asks all questions at the same time until both sides of each agree. Sides that differed at first have to agree twice in a row. If
// prepare is not nil, agree calls it each time before it asks.
func (r *Run) agree(ctx context.Context, questions []*question, prepare func() error) (*Disagreement, error) {
	for began := time.Now(); ; time.Sleep(retryEvery) {
		if prepare != nil {
			if err := prepare(); err != nil {
				return nil, err
			}
		}
		if err := askAll(questions); err != nil {
			return nil, err
		}
		now := time.Now()
		var differing []*question
		for _, q := range questions {
			switch {
			case q.last.same && (q.since.IsZero() || q.agreed):
				r.count(q, now.Sub(began))
				continue
			case q.last.same:
				q.agreed = true
			case q.since.IsZero():
				q.since = now
			case now.Sub(q.since) > q.last.patience && !q.agreed:
				return &Disagreement{
					With: q.with, Where: q.what + r.world.describe(q.gate), Got: fmt.Sprintf("%+v", q.last.got),
					Want: fmt.Sprintf("%+v", q.last.want), FailsOpen: q.last.failsOpen,
				}, nil
			default:
				q.agreed = false
			}
			differing = append(differing, q)
		}
		if questions = differing; len(questions) == 0 || ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// count counts a question whose sides agree.
func (r *Run) count(q *question, took time.Duration) {
	if q.last.counts {
		r.Compared[q.pair]++
		if q.last.special != "" {
			r.Compared[q.pair+", "+q.last.special]++
		}
	}
	if q.last.removed != "" {
		r.Removed[q.gate.Variant.Name+" "+q.last.removed]++
	}
	if !q.since.IsZero() {
		r.Longest[q.pair] = max(r.Longest[q.pair], took.Milliseconds())
	}
}

func askAll(questions []*question) error {
	var group errgroup.Group
	group.SetLimit(inParallel)
	for _, q := range questions {
		group.Go(func() (err error) {
			q.last, err = q.ask()
			return err
		})
	}
	return group.Wait()
}

// compare compares every gate with the model, and with Envoy's own filter if that can be configured alike; grpc.health.v1.Health, and the
// command.
func (r *Run) compare(ctx context.Context) (*Disagreement, error) {
	r.States++
	var questions []*question
	for _, g := range r.gates {
		questions = append(questions, r.askGate(g, r.States%8 == 0))
		if g.config.native() && g.config.String() == r.world.merged(g.Place, false).String() {
			questions = append(questions, r.askNative(g))
		}
	}
	for _, w := range r.watches {
		questions = append(questions, w.questions(r)...)
	}
	if found, err := r.agree(ctx, questions, nil); err != nil || found != nil {
		return found, err
	}
	if r.Explain > 0 && r.States%r.Explain == 0 {
		return r.compareExplained(ctx)
	}
	return nil, nil
}

// compareTimed compares the gates whose answer depends on time, again and again for some time.
func (r *Run) compareTimed(ctx context.Context, d time.Duration) (*Disagreement, error) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * retryEvery) { // the time that passes is the event
		var questions []*question
		for _, g := range r.gates {
			if g.config.timed() {
				q := r.askGate(g, false)
				q.pair += ", while time passes"
				questions = append(questions, q)
			}
		}
		if found, err := r.agree(ctx, questions, nil); err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}

// askGate compares a gate's reply to a probe with the model. The report has to give the same reason.
func (r *Run) askGate(g *Gate, report bool) *question {
	return r.askModel(g, g.Variant.Name+" and the model", "", func() (got Answer, err error) {
		got, err = r.probe(g, report)
		g.last = got
		return got, err
	})
}

// askModel compares an answer of a gate with the model's; the status alone if the answer is not a reply to a probe.
func (r *Run) askModel(g *Gate, pair, what string, ask func() (Answer, error)) *question {
	return &question{pair: pair, with: "the model", gate: g, what: what, ask: func() (reply, error) {
		begun := time.Now()
		got, err := ask()
		if err != nil {
			return reply{}, err
		}
		want, wait := r.expect(g, Window{begun, time.Now()})
		if want.unknown() {
			return reply{same: true}, nil
		}
		same := want.allows(got)
		if what != "" {
			same = want.allowsStatus(got.Status)
			wait += slack
		}
		special := ""
		switch {
		case got.Details == "healthgate_held":
			special = "held"
		case g.config.hold():
			special = "with hold"
		case g.config.staleAfter() > 0:
			special = "with stale_after"
		case r.world.removed(g.config) != "":
			special = "of a removed cluster"
		}
		return reply{
			got: got, want: want, same: same, counts: want.certain(), failsOpen: passes(got) && !want.passing(), patience: wait, special: special,
		}, nil
	}}
}

const envoysOwn = "Envoy's own filter"

// askNative compares a gate with Envoy's own filter, which is configured alike. Envoy's own filter fails a removed cluster; a gate that
// reads its gauges need not, according to the documentation.
func (r *Run) askNative(g *Gate) *question {
	removed := ""
	if g.Variant.ReadsGauges() {
		removed = r.world.removed(g.config)
	}
	return &question{pair: g.Variant.Name + " and " + envoysOwn, with: envoysOwn, gate: g, ask: func() (reply, error) {
		response, _, err := r.Get(g.Listener, g.Place.VirtualHost, g.Place.path("native"), "")
		if err != nil {
			return reply{}, err
		}
		got, err := r.probe(g, false)
		if err != nil {
			return reply{}, err
		}
		want := response.StatusCode
		answer := reply{got: got, want: want, same: got.Status == want, counts: true, failsOpen: passes(got), patience: patience}
		if removed != "" {
			if !answer.same {
				answer.removed = removed
			}
			answer.same = want == http.StatusServiceUnavailable
		}
		return answer, nil
	}}
}

// probe sends a probe to a gate. A report has to give the same reason as the response code details.
func (r *Run) probe(g *Gate, report bool) (Answer, error) {
	accept := ""
	if report {
		accept = "application/json"
	}
	response, body, err := r.Get(g.Listener, g.Place.VirtualHost, g.Path, accept)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", g, err)
	}
	a := Answer{
		Status: response.StatusCode, Details: response.Header.Get(detailsHeader),
		Degraded: response.Header.Get("x-envoy-degraded") == "true",
		Draining: response.Header.Get("x-envoy-immediate-health-check-fail") == "true",
	}
	if report && a.Details != answerStale.Details { // the module sends that without Go, and without a report
		var health struct{ Output string }
		if err := json.Unmarshal(body, &health); err != nil || health.Output != a.Details {
			a.Details += fmt.Sprintf(", but the report is %q", body)
		}
	}
	return a, nil
}
