package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"healthgate/e2e/testbed"
)

// usage is the CPU time that an Envoy has used: its worker, its main thread and all of it; and this process.
type usage struct{ worker, main, envoy, own time.Duration }

// readUsage returns the usage so far, as the kernel's scheduler counts it.
func readUsage(envoy *testbed.Envoy) (u usage, err error) {
	threads, err := procfs.AllThreads(envoy.Pid())
	if err != nil {
		return u, err
	}
	for _, thread := range threads {
		stat, err := thread.Schedstat()
		if err != nil {
			continue // the thread has just ended
		}
		used := time.Duration(stat.RunningNanoseconds)
		u.envoy += used
		if name, _ := thread.Comm(); strings.HasPrefix(name, "wrk:worker") {
			u.worker += used
		}
		if thread.PID == envoy.Pid() {
			u.main += used
		}
	}
	if u.envoy == 0 {
		return u, fmt.Errorf("no CPU time of process %d: it has ended, or this kernel does not count", envoy.Pid())
	}
	var own syscall.Rusage
	err = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	u.own = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return u, err
}

// during returns the usage of each Envoy, in order, while do runs, and how long that took.
func during(do func() error, envoys ...*testbed.Envoy) (used []usage, took time.Duration, err error) {
	before := make([]usage, len(envoys))
	for i, envoy := range envoys {
		if before[i], err = readUsage(envoy); err != nil {
			return nil, 0, err
		}
	}
	began := time.Now()
	if err := do(); err != nil {
		return nil, 0, err
	}
	took = time.Since(began)
	for i, envoy := range envoys {
		u, err := readUsage(envoy)
		if err != nil {
			return nil, 0, err
		}
		b := before[i]
		used = append(used, usage{u.worker - b.worker, u.main - b.main, u.envoy - b.envoy, u.own - b.own})
	}
	return used, took, nil
}

// Round is the figures of one contender in one round. Times are in microseconds.
type Round struct {
	Rate     float64 // probes per second
	P50, P99 float64 // latency
	Worker   float64 // CPU time of Envoy's worker per probe
	Process  float64 // CPU time of Envoy per probe, minus the CPU time of an idle Envoy
	Load     float64 // CPU time of the load per probe

	requests, rejected int64
}

// measure divides the CPU time that Envoy uses under a load by the probes of the load. idle is the share of a core that an idle Envoy uses.
func measure(envoy *testbed.Envoy, idle float64, load func() (testbed.Outcome, error)) (Round, error) {
	var did testbed.Outcome
	used, took, err := during(func() (err error) { did, err = load(); return err }, envoy)
	if err != nil {
		return Round{}, err
	}
	if did.Requests == 0 {
		return Round{}, errors.New("no probe was answered")
	}
	u := used[0]
	perProbe := func(d time.Duration) float64 { return float64(d/time.Duration(did.Requests)) / 1e3 }
	return Round{
		Rate: float64(did.Requests) / did.Took.Seconds(), P50: float64(did.P50) / 1e3, P99: float64(did.P99) / 1e3,
		Worker: perProbe(u.worker), Process: perProbe(max(u.worker, u.envoy-time.Duration(idle*float64(took)))), Load: perProbe(u.own),
		requests: did.Requests, rejected: did.Requests - did.Answers["200"],
	}, nil
}
