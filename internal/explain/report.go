package explain

import (
	"context"
	"slices"
	"time"

	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// Report is the state of one Envoy.
type Report struct {
	At       time.Time      `json:"at"`
	Admin    string         `json:"admin"`    // its address
	Version  string         `json:"version"`  // Envoy's own
	State    string         `json:"state"`    // LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING
	Uptime   string         `json:"uptime"`   // as in 2h3m1s
	Problems []Problem      `json:"problems"` // of Envoy as a whole
	Notes    []string       `json:"notes"`    // facts that may explain a problem
	Gates    []Gate         `json:"gates"`
	Findings []lint.Finding `json:"findings"` // of lint, in the configuration that Envoy has
}

// Fine reports whether there are gates, each passes and can be reached, and neither Envoy nor lint has a problem.
func (r *Report) Fine() bool {
	return len(r.Gates) > 0 && len(r.Findings) == 0 && len(r.Problems) == 0 &&
		!slices.ContainsFunc(r.Gates, func(g Gate) bool { return !g.Answer.Passing || len(g.Problems) > 0 })
}

// Problem is something that does not work, with the next step.
type Problem struct {
	What string `json:"what"`
	Next string `json:"next"`
}

// Gate is one path on one listener.
type Gate struct {
	Name     string    `json:"name"` // its stat_prefix
	Listener string    `json:"listener"`
	Address  string    `json:"address"` // of the listener, or "" if it is not known
	Path     string    `json:"path"`
	Answer   Answer    `json:"answer"`
	Clusters []Cluster `json:"clusters"`
	Probe    *Probe    `json:"probe,omitempty"` // nil if none was sent
	Problems []string  `json:"problems"`        // beside the answer: a probe that fails, a listener that drains
	Next     string    `json:"next,omitempty"`  // the next step; "" if all is well
	Unknown  []string  `json:"unknown"`         // facts that can't be known from outside
}

// Answer is the reply that a probe gets now.
type Answer struct {
	Passing bool   `json:"passing"`
	Status  int    `json:"status"`
	Details string `json:"details"`         // as in the access log; "" if not known
	Since   string `json:"since,omitempty"` // if the gate's report has it
	By      string `json:"by"`              // probe: of a real probe; numbers: computed as the gate does
}

// Cluster is one that a gate depends on.
type Cluster struct {
	Name     string `json:"name"`
	Healthy  uint64 `json:"healthy"`
	Degraded uint64 `json:"degraded"`
	Excluded uint64 `json:"excluded"`
	Total    uint64 `json:"total"`
	Needs    string `json:"needs"`   // the gate's condition
	Reason   string `json:"reason"`  // ok, or why it fails
	Failing  []Host `json:"failing"` // the first of its unhealthy hosts
}

// Host is an unhealthy host.
type Host struct {
	Address string `json:"address"`
	Why     string `json:"why"`
}

// maxFailing is the limit of hosts in the report of a cluster.
const maxFailing = 20

// Run reports the state of an Envoy once. With probe it also probes the gates; each counts ten probes.
func Run(ctx context.Context, admin *envoyadmin.Client, probe bool) (*Report, error) {
	// ServerInfo has a short timeout: the dump of a hung Envoy would fail after a minute only.
	if _, err := admin.ServerInfo(ctx); err != nil {
		return nil, err
	}
	dump, err := readDump(ctx, admin)
	if err != nil {
		return nil, err
	}
	seen, err := readNumbers(ctx, admin, dump)
	if err != nil {
		return nil, err
	}
	report := seen.report(admin.Address())
	report.Findings = append(report.Findings, dump.findings...)
	if probe {
		seen.probe(ctx, admin, report.Gates)
	}
	return report, nil
}
