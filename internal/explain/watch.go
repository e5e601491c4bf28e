package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// Change is a change of state between two polls.
type Change struct {
	At      time.Time `json:"at"`
	Gate    string    `json:"gate,omitempty"`
	Cluster string    `json:"cluster,omitempty"`
	Host    string    `json:"host,omitempty"`
	Problem string    `json:"problem,omitempty"` // of Envoy as a whole
	From    string    `json:"from"`              // "" at first
	To      string    `json:"to"`
}

// String returns the change on one line.
func (c Change) String() string {
	what := "admin"
	switch {
	case c.Problem != "" && c.To == over:
		return "no longer a problem: " + c.Problem
	case c.Problem != "":
		return fmt.Sprintf("problem: %s; next: %s", c.Problem, c.To)
	case c.Host != "":
		what = fmt.Sprintf("cluster %s host %s", c.Cluster, c.Host)
	case c.Cluster != "":
		what = fmt.Sprintf("gate %s cluster %s", c.Gate, c.Cluster)
	case c.Gate != "":
		what = "gate " + c.Gate
	}
	if c.From == "" {
		return fmt.Sprintf("%s: %s", what, c.To)
	}
	return fmt.Sprintf("%s: %s, was %s", what, c.To, c.From)
}

// watcher polls admin. It reads the expensive config_dump only if the configuration may have changed.
type watcher struct {
	admin      *envoyadmin.Client
	read       *dump
	served     []lint.Served
	configured uint64    // seen.configured at that time
	dumped     time.Time // the time at which the configuration was read; zero before
}

// maxAge is the age at which the configuration is read again, even if no counter has grown.
const maxAge = 30 * time.Second

func (w *watcher) poll(ctx context.Context) (*Report, error) {
	if time.Since(w.dumped) > maxAge {
		if err := w.dump(ctx); err != nil {
			return nil, err
		}
	}
	s, err := observe(ctx, w.admin, w.read, w.served, w.names()...)
	if err != nil {
		return nil, err
	}
	if sum, kept := s.configured(); sum != w.configured && kept {
		if err := w.dump(ctx); err != nil {
			return nil, err
		}
		w.configured = sum
		if s, err = observe(ctx, w.admin, w.read, w.served, w.names()...); err != nil {
			return nil, err
		}
	}
	return s.report(w.admin.Address(), w.served), nil
}

func (w *watcher) dump(ctx context.Context) error {
	text, err := w.admin.ConfigDump(ctx)
	if err != nil {
		return err
	}
	served, _, err := lint.Live("config_dump", text)
	if err != nil {
		return err
	}
	if w.read, err = readDump(text); err == nil {
		w.served, w.dumped = served, time.Now()
	}
	return err
}

// names returns the clusters of the gates.
func (w *watcher) names() []string {
	var names []string
	for _, gate := range w.served {
		if gate.Config == nil {
			continue
		}
		for _, cluster := range gate.Config.Clusters {
			if !slices.Contains(names, cluster.Name) {
				names = append(names, cluster.Name)
			}
		}
	}
	return names
}

// Watch polls every interval and reports each change, including the first state, until the context ends or notify fails. It sends no
// probes, which the gates would count.
func Watch(ctx context.Context, admin *envoyadmin.Client, interval time.Duration, notify func(Change) error) error {
	w := &watcher{admin: admin}
	known := map[Change]string{} // by the subject of a change, its last state
	for ticker := time.NewTicker(interval); ; {
		at := time.Now()
		report, err := w.poll(ctx)
		states := map[Change]string{{}: "answers"}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the context has ended, so the poll failed
		case err != nil: // the other states are unchanged
			states = map[Change]string{{}: err.Error()}
		default:
			report.states(states)
		}
		for _, change := range changes(known, states, err == nil) {
			if change.At = at; change == (Change{At: at, To: "answers"}) { // at the start
				continue
			}
			if err := notify(change); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// changes returns the changes in the order of gates, clusters and hosts, and updates known.
func changes(known, states map[Change]string, complete bool) []Change {
	var all []Change
	for what, to := range states {
		if from := known[what]; from != to {
			what.From, what.To = from, to
			all = append(all, what)
		}
	}
	for what, from := range known {
		if _, there := states[what]; complete && !there {
			what.From, what.To = from, gone(what)
			all = append(all, what)
		}
	}
	for _, change := range all {
		what := Change{Gate: change.Gate, Cluster: change.Cluster, Host: change.Host, Problem: change.Problem}
		if known[what] = change.To; states[what] == "" && complete {
			delete(known, what)
		}
	}
	slices.SortFunc(all, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Problem, b.Problem), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Gate, b.Gate),
			cmp.Compare(a.Cluster, b.Cluster))
	})
	return all
}

// states adds each state of a report.
func (r *Report) states(states map[Change]string) {
	for _, problem := range r.Problems {
		states[Change{Problem: problem.What}] = problem.Next
	}
	for _, g := range r.Gates {
		name := g.Name + " (" + g.Listener + g.Path + ")"
		states[Change{Gate: name}] = fmt.Sprintf("%d %s", g.Answer.Status, g.Answer.Details)
		for _, c := range g.Clusters {
			states[Change{Gate: name, Cluster: c.Name}] = c.counts()
			for _, host := range c.Failing {
				states[Change{Cluster: c.Name, Host: host.Address}] = host.Why
			}
		}
	}
}

// over is the last state of a problem.
const over = "over"

// gone returns the last state of a subject that is no longer in the report. A host is in the report only while it is unhealthy.
func gone(what Change) string {
	switch {
	case what.Problem != "":
		return over
	case what.Host != "":
		return "healthy, or removed"
	}
	return "gone"
}

func (c Cluster) counts() string {
	text := fmt.Sprintf("%d healthy and %d degraded of %d hosts", c.Healthy, c.Degraded, c.Total)
	if c.Excluded > 0 {
		text += fmt.Sprintf(", %d excluded", c.Excluded)
	}
	return text
}
