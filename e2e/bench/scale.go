package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"healthgate/e2e/testbed"
)

// samples is the module's counter of samples.
const samples = "healthgate.looks"

// Watched counts an Envoy's health checks and a prober's probes while something was measured. All hosts are healthy then, so a failed check
// is false, and so is a probe that is not answered with 200.
type Watched struct {
	Checks   int64 `json:"checks"`
	Failed   int64 `json:"failed_checks"`
	Probes   int64 `json:"probes"`
	Rejected int64 `json:"rejected_probes"` // answered, with another status than 200
	Lost     int64 `json:"lost_probes"`     // not answered
}

func (w *Watched) add(other Watched) {
	w.Checks += other.Checks
	w.Failed += other.Failed
	w.Probes += other.Probes
	w.Rejected += other.Rejected
	w.Lost += other.Lost
}

// watch probes Envoys and counts their health checks while it measures something, and adds the counts to their rows.
func watch(envoys []*scaleEnvoy, rows []ScaleRow, measure func() error) error {
	before := make([]Watched, len(envoys))
	for i, e := range envoys {
		var err error
		if before[i], err = e.countChecks(); err != nil {
			return err
		}
	}
	var probers []*testbed.Load
	for _, e := range envoys {
		p := testbed.Pace{PerSecond: proberRate}
		probers = append(probers, testbed.StartProbes(p, "http://"+e.address+"/", testbed.ProbeOptions{NewConnections: true}))
	}
	err := measure()
	for i, e := range envoys {
		did, probeErr := probers[i].Stop()
		lost := did.Answers[testbed.NoAnswer]
		rows[i].add(Watched{Probes: did.Requests, Lost: lost, Rejected: did.Requests - lost - did.Answers["200"]})
		checks, logErr := e.countChecks()
		err = errors.Join(err, probeErr, logErr)
		checks.Checks -= before[i].Checks
		checks.Failed -= before[i].Failed
		rows[i].add(checks)
	}
	return err
}

// mainThreads measures how much of a core the main thread and all threads of each Envoy use while only a prober sends requests.
func (b *bench) mainThreads(envoys []*scaleEnvoy, rows []ScaleRow) error {
	var pids []int
	for _, e := range envoys {
		pids = append(pids, e.Pid())
	}
	used, err := b.perSecond(b.Window, pids...)
	if err != nil {
		return err
	}
	for i, e := range envoys {
		rows[i].MainPercent, rows[i].AllPercent = 100*used[i].main.Seconds(), 100*used[i].process.Seconds()
		if rows[i].MiB, err = e.ResidentMiB(); err != nil {
			return err
		}
	}
	return nil
}

// scale measures Envoys with many clusters, filter chains and overrides beside the same ones without Healthgate. It writes the results
// after each size. If a size fails, the results have its error, and the next size is measured.
func (b *bench) scale(results *Results) error {
	s := &Scale{Run: b.made}
	results.Scale = s
	var failed error
	note := func(err error) {
		if err != nil {
			progress("error: %v", err)
			s.Errors = append(s.Errors, err.Error())
		}
		failed = errors.Join(failed, err, b.save())
	}
	for _, n := range b.Chains {
		rows, err := b.byChains(n)
		s.Chains = append(s.Chains, rows...)
		note(err)
	}
	for _, n := range b.Clusters {
		rows, routes, err := b.byClusters(n)
		s.Clusters = append(s.Clusters, rows...)
		s.Routes = append(s.Routes, routes...)
		note(err)
	}
	return failed
}

// rowsOf returns the rows of a size, one for each Envoy.
func rowsOf(size int, names ...string) (rows []ScaleRow) {
	for _, name := range names {
		rows = append(rows, ScaleRow{Size: size, Envoy: name})
	}
	return rows
}

// routesAt returns the number of clusters at which updates of the routes are measured.
func (b *bench) routesAt() (at int) {
	for _, n := range b.Clusters {
		if n <= b.RouteSize {
			at = max(at, n)
		}
	}
	return at
}

// byClusters measures the main thread, the time between samples and the delay of a reply with a number of clusters, and at one of the sizes
// updates of the routes.
func (b *bench) byClusters(n int) (rows, routes []ScaleRow, err error) {
	progress("%d clusters: starting three Envoys", n)
	rows = rowsOf(n, withoutUs, withModule, withStale)
	var envoys []*scaleEnvoy
	for i := range rows {
		e, l, err := b.launch(rows[i].Envoy, n, 1)
		if err != nil {
			return rows, nil, err
		}
		defer e.end()
		envoys = append(envoys, e)
		rows[i].add(Watched{Probes: l.rejected, Rejected: l.rejected})
	}
	progress("%d clusters: main threads for %v", n, b.Window)
	err = b.period(envoys[1], &rows[1], func() error {
		return watch(envoys, rows, func() error { return b.mainThreads(envoys, rows) })
	})
	if err != nil {
		return rows, nil, err
	}
	if n == b.routesAt() {
		if routes, err = b.byRoutes(envoys[:2]); err != nil {
			return rows, routes, err
		}
	}
	progress("%d clusters: %d changes of hosts", n, b.Changes)
	for i := range b.Changes {
		delay, err := envoys[1].changeHosts(b.ctx, i%2 == 1)
		if err != nil {
			return rows, routes, err
		}
		rows[1].Delays = append(rows[1].Delays, milliseconds(delay))
	}
	return rows, routes, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// countSamples returns how many samples the module has taken, and when. It keeps the main thread busy, so it is called neither while that
// is measured nor while checks are counted.
func countSamples(e *scaleEnvoy) (n uint64, at time.Time, err error) {
	text, err := e.Get("/stats?type=Counters&filter=" + url.QueryEscape("^"+strings.ReplaceAll(samples, ".", "[.]")+"$"))
	if err == nil {
		_, err = fmt.Sscanf(text, samples+": %d", &n)
	}
	return n, time.Now(), err
}

// period measures the mean time between two samples while something else is measured. If the admin interface is too slow for it, the other
// figures are kept.
func (b *bench) period(e *scaleEnvoy, row *ScaleRow, measure func() error) error {
	before, began, failed := countSamples(e)
	if err := measure(); err != nil {
		return err
	}
	if failed == nil {
		failed = testbed.WaitFor(b.ctx, 30*time.Second, func() error {
			after, now, err := countSamples(e)
			if err == nil && after == before {
				err = errors.New("no sample is taken")
			}
			if err == nil {
				row.Period = milliseconds(now.Sub(began)) / float64(after-before)
			}
			return err
		})
	}
	if failed != nil {
		progress("no time between samples of %s, %d clusters: %v", e.name, e.clusters, failed)
	}
	return nil
}

// byRoutes measures updates of the routes, each with overrides for other clusters.
func (b *bench) byRoutes(envoys []*scaleEnvoy) ([]ScaleRow, error) {
	n := envoys[0].clusters
	progress("%d clusters: %d updates of the routes by RDS, with %d overrides", n, b.Updates, b.Overrides)
	rows := rowsOf(n, withoutUs, withModule)
	err := watch(envoys, rows, func() error {
		for update := range b.Updates {
			for i, e := range envoys {
				took, rejected, err := e.updateRoutes(b.ctx, b.Overrides, update*b.Overrides)
				if err != nil {
					return err
				}
				rows[i].Updates = append(rows[i].Updates, milliseconds(took))
				rows[i].add(Watched{Probes: int64(b.Overrides), Rejected: rejected})
			}
		}
		return nil
	})
	return rows, err
}

// byChains measures starts, updates of the listener and the main thread with a number of filter chains, each with a gate.
func (b *bench) byChains(n int) ([]ScaleRow, error) {
	progress("%d filter chains: %d starts of two Envoys", n, b.Starts)
	rows := rowsOf(n, withoutUs, withModule)
	envoys := make([]*scaleEnvoy, len(rows))
	for range b.Starts {
		for i := range rows {
			if envoys[i] != nil {
				envoys[i].end()
			}
			e, l, err := b.launch(rows[i].Envoy, b.ChainedSize, n)
			if err != nil {
				return rows, err
			}
			defer e.end()
			envoys[i] = e
			rows[i].Starts = append(rows[i].Starts, milliseconds(l.took))
			rows[i].add(Watched{Probes: l.rejected, Rejected: l.rejected})
		}
	}
	progress("%d filter chains: %d updates of the listener by LDS", n, b.Updates)
	err := watch(envoys, rows, func() error {
		for range b.Updates {
			for i, e := range envoys {
				took, err := e.updateListener(b.ctx)
				if err != nil {
					return err
				}
				rows[i].Updates = append(rows[i].Updates, milliseconds(took))
				if err := e.awaitDrained(b.ctx); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return rows, err
	}
	progress("%d filter chains: main threads for %v", n, b.Window)
	return rows, watch(envoys, rows, func() error { return b.mainThreads(envoys, rows) })
}
