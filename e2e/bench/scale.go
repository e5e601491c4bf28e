package main

import (
	"errors"
	"log"
	"time"

	"healthgate/e2e/testbed"
)

// scale measures Envoys with many clusters, filter chains and overrides beside the same ones without Healthgate.
func (b *bench) scale(results *Results) error {
	s := &Scale{Run: b.made}
	for _, n := range b.Chains {
		if err := b.byChains(s, n); err != nil {
			return err
		}
	}
	for _, n := range b.Clusters {
		if err := b.byClusters(s, n); err != nil {
			return err
		}
	}
	results.Scale = s
	return nil
}

// addRows adds a row for each of these Envoys to a table.
func addRows(table *[]*ScaleRow, size int, names ...string) []*ScaleRow {
	var rows []*ScaleRow
	for _, name := range names {
		rows = append(rows, &ScaleRow{Size: size, Envoy: name})
	}
	*table = append(*table, rows...)
	return rows
}

// byClusters measures the main thread, the time between samples and the delay of a reply with a number of clusters, and for one
// number updates of the routes.
func (b *bench) byClusters(s *Scale, n int) error {
	log.Printf("%d clusters: starting three Envoys", n)
	var envoys []*scaleEnvoy
	for _, row := range addRows(&s.Clusters, n, withoutUs, withModule, withStale) {
		e, _, err := b.launch(row, n, 1)
		defer e.end()
		if err != nil {
			return err
		}
		envoys = append(envoys, e)
	}
	gated := envoys[1]
	samples, began, err := gated.countSamples()
	if err != nil {
		return err
	}
	if err := b.mainThreads(envoys); err != nil {
		return err
	}
	later, ended, err := gated.countSamples()
	if err != nil {
		return err
	}
	gated.row.Period = milliseconds(ended.Sub(began)) / float64(later-samples)
	log.Printf("%d clusters: %d changes of hosts", n, b.Changes)
	for i := range b.Changes {
		delay, err := gated.changeHosts(i%2 == 1)
		if err != nil {
			return err
		}
		gated.row.Delays = append(gated.row.Delays, milliseconds(delay))
	}
	if n == b.RouteSize {
		return b.byRoutes(s, n, envoys[:2])
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// byRoutes measures updates of the routes, each with overrides for other clusters, in these two Envoys and in one with the smallest module.
func (b *bench) byRoutes(s *Scale, n int, envoys []*scaleEnvoy) error {
	log.Printf("%d clusters: %d updates of the routes by RDS, with %d overrides", n, b.Updates, b.Overrides)
	rows := addRows(&s.Routes, n, withoutUs, withModule, withSmallest)
	e, _, err := b.launch(rows[2], n, 1)
	defer e.end()
	if err != nil {
		return err
	}
	envoys[0].row, envoys[1].row = rows[0], rows[1]
	envoys = append(envoys, e)
	return watch(envoys, func() error {
		for update := range b.Updates {
			for _, e := range envoys {
				if err := e.updateRoutes(b.Overrides, update*b.Overrides); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// byChains measures starts, updates of the listener and the main thread with a number of filter chains, each with a gate.
func (b *bench) byChains(s *Scale, n int) error {
	log.Printf("%d filter chains: %d starts of three Envoys", n, b.Starts)
	rows := addRows(&s.Chains, n, withoutUs, withModule, withSmallest)
	envoys := make([]*scaleEnvoy, len(rows))
	for start := range b.Starts {
		for i, row := range rows {
			if start > 0 {
				envoys[i].end()
			}
			e, took, err := b.launch(row, b.ChainedSize, n)
			defer e.end()
			if err != nil {
				return err
			}
			row.Starts = append(row.Starts, milliseconds(took))
			envoys[i] = e
		}
	}
	log.Printf("%d filter chains: %d updates of the listener by LDS", n, b.Updates)
	err := watch(envoys, func() error {
		for range b.Updates {
			for _, e := range envoys {
				if err := e.updateListener(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.mainThreads(envoys)
}

// mainThreads measures how much of a core the main thread and all threads of each Envoy use while only a prober sends requests.
func (b *bench) mainThreads(envoys []*scaleEnvoy) error {
	log.Printf("main threads for %v", b.Window)
	var measured []*testbed.Envoy
	for _, e := range envoys {
		measured = append(measured, e.Envoy)
	}
	return watch(envoys, func() error {
		used, took, err := during(b.idle(b.Window), measured...)
		if err != nil {
			return err
		}
		for i, e := range envoys {
			e.row.MainPercent = 100 * used[i].main.Seconds() / took.Seconds()
			e.row.AllPercent = 100 * used[i].envoy.Seconds() / took.Seconds()
			if e.row.MiB, err = e.ResidentMiB(); err != nil {
				return err
			}
		}
		return nil
	})
}

// watch probes Envoys and counts their health checks while it measures something, and adds the counts to their rows.
func watch(envoys []*scaleEnvoy, measure func() error) error {
	var before []Watched
	var probers []*testbed.Load
	for _, e := range envoys {
		checks, err := e.countChecks()
		if err != nil {
			return err
		}
		before = append(before, checks)
	}
	for _, e := range envoys {
		p := testbed.Pace{PerSecond: proberRate}
		probers = append(probers, testbed.StartProbes(p, e.url("/"), testbed.ProbeOptions{NewConnections: true}))
	}
	err := measure()
	for i, e := range envoys {
		did, probeErr := probers[i].Stop()
		lost := did.Answers[testbed.NoAnswer]
		checks, logErr := e.countChecks()
		err = errors.Join(err, probeErr, logErr)
		e.row.add(Watched{
			Checks: checks.Checks - before[i].Checks, Failed: checks.Failed - before[i].Failed,
			Probes: did.Requests, Lost: lost, Rejected: did.Requests - lost - did.Answers["200"],
		})
	}
	return err
}
