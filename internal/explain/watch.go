package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"healthgate/internal/envoyadmin"
)

// Change is a change of state between two polls.
type Change struct {
	At time.Time `json:"at"`
	Subject
	From string `json:"from"` // "" at first
	To   string `json:"to"`
}

// Subject is the owner of a state. The zero Subject is admin.
type Subject struct {
	Gate    string `json:"gate,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	Host    string `json:"host,omitempty"`
	Problem string `json:"problem,omitempty"` // of Envoy as a whole
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
	dump       *dump
	configured uint64    // seen.configured at that time
	dumped     time.Time // the time at which the configuration was read; zero before
}

// maxAge is the age at which the configuration is read again, even if no counter has grown.
const maxAge = 30 * time.Second

func (w *watcher) poll(ctx context.Context) (*Report, error) {
	s, err := w.readNumbers(ctx, time.Since(w.dumped) > maxAge)
	if err != nil {
		return nil, err
	}
	if sum, kept := s.configured(); sum != w.configured && kept {
		if s, err = w.readNumbers(ctx, true); err != nil {
			return nil, err
		}
		w.configured = sum
	}
	return s.report(w.admin.Address()), nil
}

// readNumbers reads the numbers of the gates, and before them the configuration if it is outdated.
func (w *watcher) readNumbers(ctx context.Context, outdated bool) (*seen, error) {
	if outdated {
		read, err := readDump(ctx, w.admin)
		if err != nil {
			return nil, err
		}
		w.dump, w.dumped = read, time.Now()
	}
	var names []string
	for _, cluster := range clustersOf(w.dump.served) {
		names = append(names, cluster.Name)
	}
	return readNumbers(ctx, w.admin, w.dump, names...)
}

// Watch polls every interval and reports each change, including the first state, until the context ends or notify fails. It sends no
// probes, which the gates would count.
func Watch(ctx context.Context, admin *envoyadmin.Client, interval time.Duration, notify func(Change) error) error {
	w := &watcher{admin: admin}
	known := map[Subject]string{}
	for ticker := time.NewTicker(interval); ; {
		at := time.Now()
		report, err := w.poll(ctx)
		states := map[Subject]string{{}: answers}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the context has ended, so the poll failed
		case err != nil: // the other states are unchanged
			states[Subject{}] = err.Error()
		default:
			report.states(states)
		}
		for _, change := range changes(known, states, err == nil) {
			if change == (Change{To: answers}) { // at the start
				continue
			}
			change.At = at
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
func changes(known, states map[Subject]string, complete bool) (all []Change) {
	for what, to := range states {
		if from := known[what]; from != to {
			all = append(all, Change{Subject: what, From: from, To: to})
			known[what] = to
		}
	}
	for what, from := range known {
		if _, there := states[what]; complete && !there {
			all = append(all, Change{Subject: what, From: from, To: what.gone()})
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
func (r *Report) states(states map[Subject]string) {
	for _, problem := range r.Problems {
		states[Subject{Problem: problem.What}] = problem.Next
	}
	for _, g := range r.Gates {
		name := g.Name + " (" + g.Listener + g.Path + ")"
		states[Subject{Gate: name}] = fmt.Sprintf("%d %s", g.Answer.Status, g.Answer.Details)
		for _, c := range g.Clusters {
			counts := fmt.Sprintf("%d healthy and %d degraded of %d hosts", c.Healthy, c.Degraded, c.Total)
			if c.Excluded > 0 {
				counts += fmt.Sprintf(", %d excluded", c.Excluded)
			}
			states[Subject{Gate: name, Cluster: c.Name}] = counts
			for _, host := range c.Failing {
				states[Subject{Cluster: c.Name, Host: host.Address}] = host.Why
			}
		}
	}
}

const (
	answers = "answers" // the state of admin
	over    = "over"    // the last state of a problem
)

// gone returns the last state of a subject that is no longer in the report. A host is in the report only while it is unhealthy.
func (s Subject) gone() string {
	switch {
	case s.Problem != "":
		return over
	case s.Host != "":
		return "healthy, or removed"
	}
	return "gone"
}
