package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// seen has admin's answers at one time.
type seen struct {
	*dump
	at        time.Time
	info      *adminv3.ServerInfo
	stats     map[string]uint64
	hosts     map[string]*adminv3.ClusterStatus // by the name of the cluster
	addresses map[string]string                 // of listeners, by name
}

// readNumbers reads the numbers of the gates, and the named clusters or all.
func readNumbers(ctx context.Context, admin *envoyadmin.Client, dump *dump, names ...string) (*seen, error) {
	s := &seen{at: time.Now(), dump: dump}
	var err error
	if s.info, err = admin.ServerInfo(ctx); err != nil {
		return nil, err
	}
	if s.stats, err = admin.Stats(ctx, pattern(dump.served)); err != nil {
		return nil, err
	}
	if s.hosts, err = admin.Clusters(ctx, names...); err != nil {
		return nil, err
	}
	s.addresses, err = admin.Listeners(ctx)
	return s, err
}

// addressOf returns the address of a gate's listener. Envoy generates a name for a listener without one.
func (s *seen) addressOf(served lint.Served) string {
	if served.Listener != "" {
		return s.addresses[served.Listener] // "" if it is not bound
	}
	if served.Address != "" {
		return served.Address
	}
	var unnamed []string
	for name, address := range s.addresses {
		if !slices.ContainsFunc(s.served, func(other lint.Served) bool { return other.Listener == name }) {
			unnamed = append(unnamed, address)
		}
	}
	if len(unnamed) == 1 {
		return unnamed[0]
	}
	return ""
}

// report returns the report of all gates.
func (s *seen) report(admin string) *Report {
	r := &Report{
		At: s.at, Admin: admin, Version: version(s.info.GetVersion()), State: s.info.GetState().String(),
		Uptime: s.info.GetUptimeCurrentEpoch().AsDuration().Round(time.Second).String(),
		Gates:  []Gate{}, Findings: []lint.Finding{}, Problems: []Problem{}, Notes: s.refusedBefore(),
	}
	for _, gate := range s.served {
		g := s.evaluate(gate)
		g.Address = s.addressOf(gate)
		r.Gates = append(r.Gates, g)
	}
	s.problems(r)
	return r
}

// problems adds the problems of Envoy as a whole.
func (s *seen) problems(r *Report) {
	add := func(what, next string) { r.Problems = append(r.Problems, Problem{what, next}) }
	for _, refused := range s.refused {
		r.Problems = append(r.Problems, refused.problem())
	}
	for _, waits := range s.warming {
		what := fmt.Sprintf("%s %q is warming", waits.kind, waits.name)
		switch {
		case waits.replaces:
			r.Notes = append(r.Notes, what+": a newer configuration waits, and the one before is active")
		case waits.kind == "listener":
			add(what+": it does not listen yet",
				"it waits for its routes (RDS), secrets (SDS) or filters (ECDS): see whether the control plane sends them")
		case slices.ContainsFunc(clustersOf(s.served), func(c policy.Cluster) bool { return c.Name == waits.name }):
			add(what+": Envoy does not use it yet", "it waits for its endpoints (EDS), DNS or its first health checks")
		}
	}
	state := s.info.GetState()
	if state == adminv3.ServerInfo_PRE_INITIALIZING || state == adminv3.ServerInfo_INITIALIZING {
		add("Envoy is "+r.State+": its listeners are not open yet",
			"it waits for its clusters, or for xDS: see Envoy's log and /init_dump on admin")
	}
	if len(r.Gates) == 0 {
		next := "check that this is the right Envoy, then run `healthgate lint` on its configuration"
		if len(s.refused) > 0 || len(s.warming) > 0 || state != adminv3.ServerInfo_LIVE {
			next = "see the other problems: a refused or waiting configuration may have a gate"
		}
		add("no gate is in its active configuration", next)
	}
}

// version returns the number in <commit>/<version>/<state>/<build>/<TLS library>.
func version(long string) string {
	if parts := strings.Split(long, "/"); len(parts) > 1 {
		return parts[1]
	}
	return long
}

// evaluate computes a gate's answer, as the gate does.
func (s *seen) evaluate(served lint.Served) Gate {
	g := Gate{Listener: served.Listener, Path: served.Path, Clusters: []Cluster{}, Unknown: []string{}, Problems: []string{}}
	c := served.Config
	if c == nil {
		g.Answer = Answer{Status: 503, Details: policy.Error.Details(), By: "numbers"}
		g.Next = fmt.Sprintf("fix its configuration (%v); Envoy's log has it after \"healthgate:\"", served.Err)
		return g
	}
	g.Name = c.StatPrefix
	samples := make([]policy.Sample, len(c.Clusters))
	for i, cluster := range c.Clusters {
		samples[i] = s.sample(c, cluster)
		samples[i].Unknown = (served.Module || c.Admin != nil) && s.hosts[cluster.Name] == nil
		g.Clusters = append(g.Clusters, s.cluster(cluster, samples[i]))
	}
	verdict := c.Evaluate(samples)
	if s.draining(c) {
		verdict = policy.Verdict{Reason: policy.Draining}
	}
	g.answer(c, verdict)
	s.uncertain(served, &g, verdict)
	if g.Next = s.nextStep(c, &g, verdict.Reason); served.NotAsked {
		g.Answer = Answer{By: "numbers"}
		g.Next = "no route enables this gate: enable it on the probe's route (see not-enabled below)"
	}
	return g
}

// answer sets the reply of a verdict.
func (g *Gate) answer(c *config.Config, v policy.Verdict) {
	g.Answer = Answer{Passing: v.Passing, Status: c.Unhealthy.Status, Details: v.Reason.Details(), By: "numbers"}
	if v.Passing {
		g.Answer.Status = c.Healthy.Status
	}
}

// draining reports whether the gate sees that Envoy drains.
func (s *seen) draining(c *config.Config) bool {
	live, kept := s.stats["server.live"]
	switch {
	case c.IgnoreDrain:
		return false
	case c.Admin != nil:
		return s.info.GetState() == adminv3.ServerInfo_DRAINING
	}
	return kept && live == 0
}

// sample returns a cluster's host counts from the gate's source.
func (s *seen) sample(c *config.Config, cluster policy.Cluster) (sample policy.Sample) {
	if c.Admin == nil {
		scope := envoystats.ClusterScope(cluster.StatName)
		sample.Healthy, sample.Degraded = s.stats[scope+"membership_healthy"], s.stats[scope+"membership_degraded"]
		sample.Total, sample.Excluded = s.stats[scope+"membership_total"], s.stats[scope+"membership_excluded"]
		return sample
	}
	for _, host := range s.hosts[cluster.Name].GetHostStatuses() {
		sample.Total++
		switch envoyadmin.State(host.GetHealthStatus()) {
		case envoyadmin.Healthy:
			sample.Healthy++
		case envoyadmin.Degraded:
			sample.Degraded++
		}
		if envoyadmin.Excluded(host.GetHealthStatus()) {
			sample.Excluded++
		}
	}
	return sample
}

// cluster describes a cluster, with its unhealthy hosts.
func (s *seen) cluster(asked policy.Cluster, sample policy.Sample) Cluster {
	c := Cluster{Name: asked.Name, Healthy: sample.Healthy, Degraded: sample.Degraded, Excluded: sample.Excluded, Total: sample.Total,
		Needs: needs(asked.Rule), Reason: asked.Evaluate(sample).Reason.String(), Failing: []Host{}}
	for _, host := range s.hosts[asked.Name].GetHostStatuses() {
		state := envoyadmin.State(host.GetHealthStatus())
		if state != envoyadmin.Healthy && state != envoyadmin.Degraded && len(c.Failing) < maxFailing {
			c.Failing = append(c.Failing, Host{envoyadmin.Endpoint(host.GetAddress()), state})
		}
	}
	return c
}

// needs describes a rule.
func needs(r policy.Rule) string {
	var all []string
	if r.MinHealthy > 0 {
		all = append(all, fmt.Sprint(r.MinHealthy))
	}
	if r.MinHealthyPercent > 0 {
		all = append(all, fmt.Sprint(r.MinHealthyPercent, " %"))
	}
	text := cmp.Or(strings.Join(all, " and "), "nothing")
	if r.IgnoreDegraded && len(all) > 0 {
		text += ", degraded hosts not counted"
	}
	return text
}

// uncertain adds the facts that the numbers do not show, and a probe may show.
func (s *seen) uncertain(served lint.Served, g *Gate, v policy.Verdict) {
	c := served.Config
	unknown := func(condition bool, what string) {
		if condition {
			g.Unknown = append(g.Unknown, what)
		}
	}
	if c.Hold.Configured() && v.Reason != policy.Draining {
		healthy, kept := uint64(0), false
		for _, scope := range scopesOf(s.stats, served.Prefixes[:min(1, len(served.Prefixes))]) {
			if healthy, kept = s.stats[scope+"healthy"]; kept {
				break
			}
		}
		held := kept && (healthy == 1) != v.Passing // with hold the gauge is updated between probes too
		if held {
			g.answer(c, policy.Verdict{Reason: policy.Held, Passing: healthy == 1})
		}
		unknown(!held, "hold: whether a change of the answer is pending")
	}
	unknown(c.StaleAfter > 0, "stale_after: the age of the last health check")
	_, kept := s.stats["server.live"]
	unknown(!kept && c.Admin == nil && !c.IgnoreDrain,
		"drain: Envoy has no stat server.live, so the gate may not see a drain (stats, in docs/lint.md)")
	unknown(c.Admin == nil && slices.ContainsFunc(g.Clusters, func(cluster Cluster) bool { return cluster.Total == 0 }),
		"a stats matcher of the listener: the gate may not see a stat that admin has, or the other way round")
}
