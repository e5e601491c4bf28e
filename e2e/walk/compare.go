package walk

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"healthgate/e2e/door"
)

// patience is how long two opinions may take to agree. Beyond it the stock door itself says that it is stale.
const patience = 5 * time.Second

// again is after how long they are asked again.
const again = 5 * time.Millisecond

// place is where a gate is.
type place struct{ Listener, Path string }

// agree asks again until two opinions agree, and then once more: an answer that came by and went is none. It tells whether they do.
func (r *Run) agree(ctx context.Context, whose string, ask func() (bool, error)) (bool, error) {
	began := time.Now()
	var since time.Time // when they first did
	for first := true; ; first = false {
		at := time.Now()
		same, err := ask()
		if err != nil || ctx.Err() != nil {
			return false, cause(ctx, err)
		}
		switch {
		case same && first:
			return true, nil
		case same && !since.IsZero():
			r.Longest[whose] = max(r.Longest[whose], Milliseconds(since.Sub(began).Milliseconds()))
			return true, nil
		case same:
			since = at
		case at.Sub(began) > patience:
			return false, nil
		default:
			since = time.Time{}
		}
		time.Sleep(again)
	}
}

func cause(ctx context.Context, err error) error {
	if err == nil {
		return context.Cause(ctx)
	}
	return err
}

// compare asks each gate of each door, and Envoy's own filter where that can be configured to the same; those of the routes by each
// listener in turn; then what stays open, and the command.
func (r *Run) compare(ctx context.Context) (found *Disagreement, err error) {
	r.states++
	clear(r.answers)
	for _, d := range slices.Backward(r.options.Doors) { // the one first that may need time
		for i, policy := range r.world.Gates {
			if found, err = r.compareGate(ctx, d, r.Envoy.Ingress, gatePath(d, i), policy); err != nil || found != nil {
				return found, err
			}
			if found, err = r.compareNative(ctx, d, i, policy); err != nil || found != nil {
				return found, err
			}
		}
		for i, policy := range r.world.routed(d.Can(door.Levels) == nil) {
			for _, ingress := range r.ingresses() {
				if found, err = r.compareGate(ctx, d, ingress, pathOf(d, i), policy); err != nil || found != nil {
					return found, err
				}
			}
		}
	}
	for _, w := range r.watches {
		if found, err = r.compareHealth(ctx, w); err != nil || found != nil {
			return found, err
		}
	}
	if r.options.Explain > 0 && r.states%r.options.Explain == 0 {
		return r.compareExplained(ctx)
	}
	return nil, nil
}

// want is what the model says of a door's gate.
func (r *Run) want(d door.Door, policy Policy) Answer {
	want := r.world.judge(policy, d.Can(door.Ghosts) != nil)
	if r.options.Wrong != nil {
		want = r.options.Wrong(d, want)
	}
	return want
}

// compareGate compares a gate to the model.
func (r *Run) compareGate(ctx context.Context, d door.Door, ingress, path string, policy Policy) (*Disagreement, error) {
	var got Answer
	want := r.want(d, policy)
	same, err := r.agree(ctx, d.Name()+" and the model", func() (_ bool, err error) {
		got, err = r.answer(ingress, path)
		return got == want, err
	})
	if err != nil {
		return nil, err
	}
	r.count(d.Name(), "the model", ingress, policy)
	if !same {
		return &Disagreement{"the model", r.describe(path, policy), fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want)}, nil
	}
	listener := "ingress"
	if ingress == r.second {
		listener = "second"
	}
	r.answers[place{listener, path}] = got
	return nil, nil
}

// count counts a comparison, and what was special of the state in which it was made.
func (r *Run) count(who, with, ingress string, policy Policy) {
	pair := who + " and " + with
	r.Compared[pair]++
	if ingress == r.second {
		r.Compared[pair+", by the second listener"]++
	}
	for _, need := range policy.Clusters {
		if !r.world.Clusters[need.Cluster].Present {
			r.Compared[pair+", of a cluster that is gone"]++
			if r.calls.open(need.Cluster) {
				r.Compared[pair+", of a cluster that is gone and has a call open"]++
			}
			return
		}
	}
}

func (r *Run) describe(where string, policy Policy) string {
	var counts []Counts
	for _, need := range policy.Clusters {
		counts = append(counts, r.world.Clusters[need.Cluster].Counts())
	}
	return fmt.Sprintf("%s %+v of %+v", where, policy, counts)
}

const envoysOwn = "Envoy's own filter"

// compareNative compares a gate to Envoy's own filter, where that can be configured to the same. One that reads the gauges of a
// cluster that is gone has another answer there, by the documentation: that is a ghost, and is counted by its name.
func (r *Run) compareNative(ctx context.Context, d door.Door, i int, policy Policy) (*Disagreement, error) {
	if !policy.equivalent() {
		return nil, nil
	}
	gone := r.world.gone(policy)
	ghost := gone != "" && d.Can(door.Ghosts) == nil
	var got Answer
	var status int
	same, err := r.agree(ctx, d.Name()+" and "+envoysOwn, func() (bool, error) {
		reply, _, err := r.Get(r.Envoy.Ingress, nativePath(i), "*/*")
		if err != nil {
			return false, err
		}
		status = reply.StatusCode
		if ghost {
			// Envoy's own knows that it is gone.
			return status == 503, nil
		}
		got, err = r.answer(r.Envoy.Ingress, gatePath(d, i))
		return status == got.Status, err
	})
	if err != nil {
		return nil, err
	}
	r.count(d.Name(), envoysOwn, r.Envoy.Ingress, policy)
	if ghost {
		if got, err = r.answer(r.Envoy.Ingress, gatePath(d, i)); err != nil {
			return nil, err
		}
		if got.Status != status {
			r.Ghosts[d.Name()+" "+gone]++
		}
	}
	if !same {
		return &Disagreement{envoysOwn, r.describe(gatePath(d, i), policy), fmt.Sprint(got.Status), fmt.Sprint(status)}, nil
	}
	return nil, nil
}

// gone names the first cluster of a policy that is not there, "" where all are.
func (w *World) gone(p Policy) string {
	for _, r := range p.Clusters {
		if !w.Clusters[r.Cluster].Present {
			return name(r.Cluster)
		}
	}
	return ""
}

// answer probes, and reads the reason from the report.
func (r *Run) answer(ingress, path string) (Answer, error) {
	reply, body, err := r.Get(ingress, path, "application/json")
	if err != nil {
		return Answer{}, err
	}
	var report struct{ Output string }
	if err := json.Unmarshal([]byte(body), &report); err != nil {
		if body == "unavailable\n" { // what is too old has no report
			return Answer{Status: reply.StatusCode, Details: "no report"}, nil
		}
		return Answer{}, fmt.Errorf("%s: %d %q: %w", path, reply.StatusCode, body, err)
	}
	return Answer{reply.StatusCode, report.Output, reply.Header.Get("x-envoy-degraded") == "true"}, nil
}
