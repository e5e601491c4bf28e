package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// patience is how long an answer may differ after an event. Older samples are stale to the module itself.
	patience = 5 * time.Second
	// again is the time between two askings of the same.
	again = 5 * time.Millisecond
	// abreast is how many are asked at the same time.
	abreast = 8
)

// Point is a gate by one variant, as one listener has it.
type Point struct {
	Listener string
	Variant  Variant
	Gate     Gate
	Path     string

	config   Config // merged
	truth    Answer // without drain, hold and stale_after
	debounce Debounce
	last     Answer // in this state
}

func (p *Point) String() string { return fmt.Sprintf("%s host %s %s", p.Listener, p.Gate.Host, p.Path) }

// observe brings the model's points up to date after an event that happened within a window.
func (r *Run) observe(e Event, at Window) {
	freezes := e.Kind == "freeze" || e.Kind == "long freeze"
	if c := r.world.Clusters[checked]; true {
		r.checks.observe(c.Present && len(c.Hosts) > 0, at, e.Cluster == checked || freezes || e.Kind == "reset" && !r.checks.moving)
	}
	listeners := []string{"ingress"}
	if r.world.Second {
		listeners = append(listeners, "second")
	}
	before := r.points
	r.points = nil
	for _, listener := range listeners {
		for _, gate := range r.world.gates() {
			for _, v := range slices.Backward(r.Variants) { // the one first that may need time
				p := &Point{Listener: listener, Variant: v, Gate: gate, Path: gate.path(v.Name)}
				if old := r.known[p.String()]; old != nil {
					p = old
				}
				r.known[p.String()] = p
				p.config = r.world.merged(gate, v.MergesLevels())
				p.truth = r.world.evaluate(p.config, !v.ReadsGauges())
				if p.config.hold() {
					touched := freezes || slices.ContainsFunc(p.config.Clusters, func(c Requirement) bool {
						return c.Name == e.Cluster || c.Name == e.Other
					})
					restarted := e.Kind == "filter" && (e.Filter >= filters/2 || e.Filter == gate.Filter)
					if !slices.Contains(before, p) {
						p.debounce = Debounce{}
					}
					earlier := r.held[p.Path+p.config.String()]
					p.debounce.observe(p.config, p.truth, at, touched, restarted, earlier)
				} else {
					p.debounce = Debounce{}
				}
				r.points = append(r.points, p)
			}
		}
	}
	for _, p := range r.points {
		if p.config.hold() {
			r.held[p.Path+p.config.String()] = true
		}
	}
}

// expect returns the answers that a gate may give within a window, and for how long it may differ. They are unknown if the model is.
func (r *Run) expect(p *Point, at Window) (Expectation, time.Duration) {
	reads := p.Variant.ReadsGauges() // gauges, and knows no cluster
	served, forgotten := false, false
	for _, need := range p.config.Clusters {
		c := r.world.Clusters[need.Name]
		served = served || hasServers(need.Name)
		forgotten = forgotten || slices.Contains(absent, need.Name) && c.Existed && !c.Present // nothing need have kept its gauges
	}
	wait := patience
	if r.Patience > 0 {
		wait = r.Patience
	}
	e := Expectation{Answers: []Answer{p.truth}}
	switch stale := p.config.staleAfter(); {
	case r.world.Drained && p.config.Drain != "ignore":
		e.Answers = []Answer{answerDraining}
	case reads && forgotten, p.config.hold() && (served || stale > 0):
		return Expectation{}, 0
	case p.config.hold():
		e, wait = p.debounce.expect(at), slack
	case reads && stale > 0 && r.world.Clusters[checked].Counts().Total > 0:
		e, wait = r.checks.expect(p.truth, stale, at), slack
	}
	if r.Wrong != nil {
		e.Answers = slices.Clone(e.Answers)
		for i, answer := range e.Answers {
			e.Answers[i] = r.Wrong(p.Variant, answer)
		}
	}
	return e, wait
}

// question is asked until it finds that two sides agree.
type question struct {
	pair string // of the two sides
	ask  func() (outcome, error)

	since  time.Time // when they first differed
	agreed bool      // the last time, after they had differed
	got    outcome
}

// outcome is the result of asking once.
type outcome struct {
	same, counts     bool
	where, got, want func() string
	patience         time.Duration
	open             bool   // the gate passes, and should not
	special          string // of the answer
	with             string
	point            *Point
}

// agree asks questions, all of them at the same time, until both sides of each agree. If they differed at first they have to agree twice:
// an answer that comes and goes is none.
func (r *Run) agree(ctx context.Context, questions []*question) (*Disagreement, error) {
	return r.agreeAfter(ctx, func() error { return nil }, questions)
}

// agreeAfter is agree; it calls prepare each time before it asks.
func (r *Run) agreeAfter(ctx context.Context, prepare func() error, questions []*question) (*Disagreement, error) {
	began := time.Now()
	tick := time.NewTicker(again)
	defer tick.Stop()
	for first := true; len(questions) > 0; first = false {
		if !first {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if err := prepare(); err != nil {
			return nil, err
		}
		if err := askAll(questions); err != nil {
			return nil, err
		}
		now := time.Now()
		var open []*question
		for _, q := range questions {
			switch {
			case q.got.same && (q.since.IsZero() || q.agreed):
				if q.got.counts {
					r.Compared[q.pair]++
					if q.got.special != "" {
						r.Compared[q.pair+", "+q.got.special]++
					}
				}
				if !q.since.IsZero() {
					r.Longest[q.pair] = max(r.Longest[q.pair], now.Sub(began).Milliseconds())
				}
				continue
			case q.got.same:
				q.agreed = true
			case q.since.IsZero():
				q.since = now
			case now.Sub(q.since) > q.got.patience && !q.agreed:
				return &Disagreement{With: q.got.with, Where: q.got.where(), Got: q.got.got(), Want: q.got.want(),
					FailsOpen: q.got.open, point: q.got.point}, nil
			default:
				q.agreed = false
			}
			open = append(open, q)
		}
		questions = open
	}
	return nil, nil
}

func askAll(questions []*question) error {
	var all sync.WaitGroup
	var mutex sync.Mutex
	var failed error
	next := make(chan *question)
	for range min(abreast, len(questions)) {
		all.Go(func() {
			for q := range next {
				var err error
				if q.got, err = q.ask(); err != nil {
					mutex.Lock()
					failed = err
					mutex.Unlock()
				}
			}
		})
	}
	for _, q := range questions {
		next <- q
	}
	close(next)
	all.Wait()
	return failed
}

// compare asks each gate, and Envoy's own filter if that can be configured to the same; grpc.health.v1.Health, and the command.
func (r *Run) compare(ctx context.Context) (*Disagreement, error) {
	r.states++
	r.States++
	var questions []*question
	for _, p := range r.points {
		questions = append(questions, r.askGate(p, r.states%8 == 0))
	}
	for _, w := range r.watches {
		questions = append(questions, w.questions(r)...)
	}
	if found, err := r.agree(ctx, questions); err != nil || found != nil {
		return found, err
	}
	questions = questions[:0]
	for _, p := range r.points {
		if q := r.askNative(p); q != nil {
			questions = append(questions, q)
		}
	}
	if found, err := r.agree(ctx, questions); err != nil || found != nil {
		return found, err
	}
	if r.Explain > 0 && r.states%r.Explain == 0 {
		return r.compareExplained(ctx)
	}
	return nil, nil
}

// pass compares the gates that depend on time again and again, while it passes.
func (r *Run) pass(ctx context.Context, d time.Duration) (*Disagreement, error) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		var questions []*question
		for _, p := range r.points {
			if p.config.timed() {
				q := r.askGate(p, false)
				q.pair += ", while time passes"
				questions = append(questions, q)
			}
		}
		if found, err := r.agree(ctx, questions); err != nil || found != nil {
			return found, err
		}
		select {
		case <-time.After(10 * again): // the time is the event
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, nil
}

// askGate compares a gate to the model.
func (r *Run) askGate(p *Point, report bool) *question {
	return &question{pair: p.Variant.Name + " and the model", ask: func() (o outcome, err error) {
		begun := time.Now()
		got, err := r.probe(p, report)
		if err != nil {
			return o, err
		}
		p.last = got
		want, wait := r.expect(p, Window{begun, time.Now()})
		if want.unknown() {
			return outcome{same: true}, nil
		}
		special := ""
		switch {
		case got.Details == "healthgate_held":
			special = "held"
		case p.config.hold():
			special = "with hold"
		case p.config.staleAfter() > 0:
			special = "with stale_after"
		case r.world.removed(p.config) != "":
			special = "of a removed cluster"
		}
		return outcome{
			same: want.allows(got), counts: want.certain(), patience: wait, special: special, with: "the model", point: p,
			open:  passes(got) && !want.passing(),
			where: func() string { return r.world.describe(p.String(), p.config) },
			got:   func() string { return fmt.Sprintf("%+v", got) },
			want:  func() string { return fmt.Sprintf("%+v", want) },
		}, nil
	}}
}

const envoysOwn = "Envoy's own filter"

// askNative compares a gate to Envoy's own filter, or returns nil if that is not configured to the same. Envoy's own filter fails a removed
// cluster; a gate that reads its gauges may not, by the documentation.
func (r *Run) askNative(p *Point) *question {
	if !p.config.native() || p.config.String() != r.world.merged(p.Gate, false).String() {
		return nil
	}
	removed := ""
	if p.Variant.ReadsGauges() {
		removed = r.world.removed(p.config)
	}
	first := true
	return &question{pair: p.Variant.Name + " and " + envoysOwn, ask: func() (o outcome, err error) {
		reply, _, err := r.Get(p.Listener, p.Gate.Host, p.Gate.path("native"), "")
		if err != nil {
			return o, err
		}
		if !first {
			if p.last, err = r.probe(p, false); err != nil {
				return o, err
			}
		}
		first = false
		status, got := reply.StatusCode, p.last
		same := status == got.Status
		if removed != "" {
			if !same {
				r.count(p.Variant.Name + " " + removed)
			}
			same = status == http.StatusServiceUnavailable
		}
		return outcome{
			same: same, counts: true, patience: patience, with: envoysOwn, point: p, open: passes(got),
			where: func() string { return r.world.describe(p.String(), p.config) },
			got:   func() string { return fmt.Sprintf("%+v", got) },
			want:  func() string { return fmt.Sprint(status) },
		}, nil
	}}
}

var counting sync.Mutex

// count counts an answer from the gauges of a removed cluster.
func (r *Run) count(what string) {
	counting.Lock()
	defer counting.Unlock()
	r.Removed[what]++
}

// probe asks a gate. With a report, that has to give the same reason as the response code details.
func (r *Run) probe(p *Point, report bool) (Answer, error) {
	accept := ""
	if report {
		accept = "application/json"
	}
	reply, body, err := r.Get(p.Listener, p.Gate.Host, p.Path, accept)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", p, err)
	}
	a := Answer{Status: reply.StatusCode, Details: reply.Header.Get(detailsHeader), Degraded: reply.Header.Get("x-envoy-degraded") == "true",
		Draining: reply.Header.Get("x-envoy-immediate-health-check-fail") == "true"}
	if report && a.Details != answerStale.Details { // the module sends that without Go, and without a report
		var health struct{ Output string }
		if err := json.Unmarshal(body, &health); err != nil || health.Output != a.Details {
			a.Details += fmt.Sprintf(", but the report is %q", body)
		}
	}
	return a, nil
}

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
