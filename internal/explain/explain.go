// Package explain says of a running Envoy what each gate answers, by which numbers, and what the next step is. It asks admin,
// and a gate itself where its listener can be reached.
package explain

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"

	"healthgate/filter"
	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// Report is what a look at Envoy has found.
type Report struct {
	At       time.Time      `json:"at"`
	Admin    string         `json:"admin"`   // where it was asked
	Version  string         `json:"version"` // Envoy's own
	State    string         `json:"state"`   // LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING
	Uptime   string         `json:"uptime"`  // as in 2h3m1s
	Gates    []Gate         `json:"gates"`
	Findings []lint.Finding `json:"findings"` // in the configuration that it has
}

// Fine says whether each gate passes and lint finds nothing.
func (r *Report) Fine() bool {
	return len(r.Findings) == 0 && !slices.ContainsFunc(r.Gates, func(g Gate) bool { return !g.Answer.Passing })
}

// Gate is one path on one listener.
type Gate struct {
	Name     string    `json:"name"` // its stat_prefix
	Listener string    `json:"listener"`
	Address  string    `json:"address"` // of the listener, or "" where it is not known
	Path     string    `json:"path"`
	Answer   Answer    `json:"answer"`
	Clusters []Cluster `json:"clusters"`
	Probe    *Probe    `json:"probe,omitempty"` // nil where none was made
	Next     string    `json:"next,omitempty"`  // what to do; "" where it passes
	Unknown  []string  `json:"unknown"`         // what can't be told from outside
}

// Answer is what a probe gets now.
type Answer struct {
	Passing bool   `json:"passing"`
	Status  int    `json:"status"`
	Details string `json:"details"`         // as in the access log; "" where it is not known
	Since   string `json:"since,omitempty"` // where the gate tells by its report
	By      string `json:"by"`              // probe: it was asked; numbers: computed as the gate would
}

// Cluster is one that the gate asks.
type Cluster struct {
	Name     string `json:"name"`
	Healthy  uint64 `json:"healthy"`
	Degraded uint64 `json:"degraded"`
	Excluded uint64 `json:"excluded"`
	Total    uint64 `json:"total"`
	Needs    string `json:"needs"`   // what is asked of it
	Reason   string `json:"reason"`  // ok, or why it fails
	Failing  []Host `json:"failing"` // the first of its hosts that don't serve
}

// Host is one that is not healthy.
type Host struct {
	Address string `json:"address"`
	Why     string `json:"why"`
}

// maxFailing is how many hosts of a cluster are told: of some thousand, nobody reads more.
const maxFailing = 20

// Options say how to look.
type Options struct {
	Probe bool // ask the gates themselves, too; each counts it as a probe
}

// Look looks at Envoy once.
func Look(ctx context.Context, admin *envoyadmin.Client, options Options) (*Report, error) {
	// An admin that hangs is told of soon: a dump may take a minute.
	if _, err := admin.ServerInfo(ctx); err != nil {
		return nil, err
	}
	dump, err := admin.ConfigDump(ctx)
	if err != nil {
		return nil, err
	}
	served, findings, err := lint.Live("config_dump", dump)
	if err != nil {
		return nil, fmt.Errorf("admin at %s: the answer to /config_dump is not Envoy's: %w", admin.Address(), err)
	}
	seen, err := observe(ctx, admin, served)
	if err != nil {
		return nil, err
	}
	report := seen.report(admin.Address(), served)
	report.Findings = append(report.Findings, findings...)
	if !options.Probe {
		return report, nil
	}
	for i := range report.Gates {
		seen.ask(ctx, admin, served[i], &report.Gates[i])
	}
	return report, nil
}

// seen is what admin says at one moment, beside its configuration.
type seen struct {
	at        time.Time
	info      *adminv3.ServerInfo
	stats     map[string]uint64
	clusters  map[string]*adminv3.ClusterStatus
	addresses map[string]string // of listeners, by name
}

// observe asks admin for what tells of the gates, and for the clusters that are named, or all.
func observe(ctx context.Context, admin *envoyadmin.Client, served []lint.Served, names ...string) (*seen, error) {
	s := &seen{at: time.Now(), clusters: map[string]*adminv3.ClusterStatus{}, addresses: map[string]string{}}
	var err error
	if s.info, err = admin.ServerInfo(ctx); err != nil {
		return nil, err
	}
	if s.stats, err = admin.Stats(ctx, pattern(served)); err != nil {
		return nil, err
	}
	clusters, err := admin.Clusters(ctx, names...)
	if err != nil {
		return nil, err
	}
	for _, cluster := range clusters.GetClusterStatuses() {
		s.clusters[cluster.GetName()] = cluster
	}
	listeners, err := admin.Listeners(ctx)
	if err != nil {
		return nil, err
	}
	for _, listener := range listeners.GetListenerStatuses() {
		s.addresses[listener.GetName()] = envoyadmin.Endpoint(listener.GetLocalAddress())
	}
	return s, nil
}

// configurationCounters grow where Envoy takes a configuration.
const configurationCounters = `listener_manager\.listener_(added|modified|removed)|cluster_manager\.cluster_(added|modified|removed)|http\..*\.rds\..*\.config_reload`

// configured is the sum of these counters, and whether they are kept.
func (s *seen) configured() (sum uint64, kept bool) {
	for name, value := range s.stats {
		if !strings.HasPrefix(name, "cluster.") && !strings.HasPrefix(name, "healthgate.") && name != "server.live" {
			sum, kept = sum+value, true
		}
	}
	return sum, kept
}

// pattern matches the stats that tell of the gates.
func pattern(served []lint.Served) string {
	scopes := map[string]bool{}
	for _, gate := range served {
		if gate.Config == nil {
			continue
		}
		for _, cluster := range gate.Config.Clusters {
			scopes[regexp.QuoteMeta(statScope(cluster))] = true
		}
	}
	all := `^(server\.live|healthgate\..*|` + configurationCounters
	for _, scope := range slices.Sorted(maps.Keys(scopes)) {
		all += "|" + scope + `(membership_(healthy|degraded|excluded|total)|health_check\.attempt)`
	}
	return all + ")$"
}

// statScope is what the names of a cluster's stats begin with: Stats::Utility::sanitizeStatsName.
func statScope(c filter.Cluster) string {
	return strings.TrimRight("cluster."+strings.NewReplacer("://", "_", ":/", "_", ":", "_").Replace(c.StatName), ".") + "."
}

// report judges each gate by what was seen.
func (s *seen) report(admin string, served []lint.Served) *Report {
	r := &Report{
		At: s.at, Admin: admin, Version: version(s.info.GetVersion()), State: s.info.GetState().String(),
		Uptime: s.info.GetUptimeCurrentEpoch().AsDuration().Round(time.Second).String(), Gates: []Gate{}, Findings: []lint.Finding{},
	}
	for _, gate := range served {
		r.Gates = append(r.Gates, s.judge(gate))
	}
	return r
}

// version is the number in <commit>/<version>/<state>/<build>/<TLS library>.
func version(long string) string {
	if parts := strings.Split(long, "/"); len(parts) > 1 {
		return parts[1]
	}
	return long
}

// judge computes what a gate answers, as it would itself.
func (s *seen) judge(served lint.Served) Gate {
	g := Gate{Listener: served.Listener, Address: s.addresses[served.Listener], Path: served.Path, Clusters: []Cluster{}, Unknown: []string{}}
	c := served.Config
	if c == nil {
		g.Answer = Answer{Status: 503, Details: filter.Error.Details(), By: "numbers"}
		g.Next = fmt.Sprintf("mend its configuration (%v); Envoy's log has it, \"healthgate:\"", served.Err)
		return g
	}
	g.Name = c.StatPrefix
	samples := make([]filter.Sample, len(c.Clusters))
	for i, cluster := range c.Clusters {
		samples[i] = s.sample(c, cluster)
		samples[i].Unknown = samples[i].Unknown || served.Stock && s.clusters[cluster.Name] == nil
		g.Clusters = append(g.Clusters, s.cluster(cluster, samples[i]))
	}
	verdict := c.Judge(samples)
	if s.draining(c) {
		verdict = filter.Verdict{Reason: filter.Draining}
	}
	g.answer(c, verdict)
	s.uncertain(c, &g, verdict)
	if g.Next = s.next(c, &g, verdict.Reason); served.NotAsked {
		g.Answer = Answer{By: "numbers"}
		g.Next = "no route asks this gate: enable it on the probe's route (see not-enabled below)"
	}
	return g
}

// answer puts a verdict into what a client sees.
func (g *Gate) answer(c *filter.Config, v filter.Verdict) {
	g.Answer = Answer{Passing: v.Passing, Status: c.Unhealthy.Status, Details: v.Reason.Details(), By: "numbers"}
	if v.Passing {
		g.Answer.Status = c.Healthy.Status
	}
}

// draining says whether the gate sees that Envoy fails its health checks.
func (s *seen) draining(c *filter.Config) bool {
	if c.IgnoreDrain {
		return false
	}
	if live, kept := s.stats["server.live"]; kept && c.Admin == nil {
		return live == 0
	}
	return c.Admin != nil && s.info.GetState() == adminv3.ServerInfo_DRAINING
}

// sample is what the gate's source says of a cluster.
func (s *seen) sample(c *filter.Config, cluster filter.Cluster) filter.Sample {
	if c.Admin == nil {
		scope := statScope(cluster)
		return filter.Sample{Counts: filter.Counts{Healthy: s.stats[scope+"membership_healthy"], Degraded: s.stats[scope+"membership_degraded"],
			Total: s.stats[scope+"membership_total"], Excluded: s.stats[scope+"membership_excluded"]}}
	}
	status := s.clusters[cluster.Name]
	if status == nil {
		return filter.Sample{Unknown: true}
	}
	counts := filter.Counts{}
	for _, host := range status.GetHostStatuses() {
		counts.Total++
		switch envoyadmin.State(host.GetHealthStatus()) {
		case envoyadmin.Healthy:
			counts.Healthy++
		case envoyadmin.Degraded:
			counts.Degraded++
		}
		if envoyadmin.Excluded(host.GetHealthStatus()) {
			counts.Excluded++
		}
	}
	return filter.Sample{Counts: counts}
}

// cluster says how one is, and which of its hosts fail.
func (s *seen) cluster(asked filter.Cluster, sample filter.Sample) Cluster {
	c := Cluster{Name: asked.Name, Healthy: sample.Healthy, Degraded: sample.Degraded, Excluded: sample.Excluded, Total: sample.Total,
		Needs: needs(asked.Rule), Reason: asked.Judge(sample).Reason.String(), Failing: []Host{}}
	for _, host := range s.clusters[asked.Name].GetHostStatuses() {
		state := envoyadmin.State(host.GetHealthStatus())
		if state == envoyadmin.Healthy || state == envoyadmin.Degraded {
			continue
		}
		if len(c.Failing) < maxFailing {
			c.Failing = append(c.Failing, Host{envoyadmin.Endpoint(host.GetAddress()), state})
		}
	}
	return c
}

// needs is a rule in words.
func needs(r filter.Rule) string {
	var all []string
	if r.MinHealthy > 0 {
		all = append(all, fmt.Sprint(r.MinHealthy))
	}
	if r.MinHealthyPercent > 0 {
		all = append(all, fmt.Sprint(r.MinHealthyPercent, " %"))
	}
	if len(all) == 0 {
		return "nothing"
	}
	text := strings.Join(all, " and ")
	if r.IgnoreDegraded {
		text += ", degraded hosts not counted"
	}
	return text
}
