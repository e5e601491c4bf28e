package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Spread is a figure as it was seen over the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"` // a quarter of the rounds were below
	Q3     float64 `json:"q3"` // a quarter were above
}

// spreadOf summarizes values; it is zero where there are none.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	// Between the two nearest, by their distance.
	at := func(share float64) float64 {
		where := share * float64(len(sorted)-1)
		low := int(where)
		high := min(low+1, len(sorted)-1)
		return sorted[low] + (where-float64(low))*(sorted[high]-sorted[low])
	}
	return Spread{Median: at(0.5), Q1: at(0.25), Q3: at(0.75)}
}

// Round is what one contender did in one round.
type Round struct {
	Rate    float64       // requests, calls or messages a second
	P50     time.Duration // of a request
	P99     time.Duration
	Worker  time.Duration // CPU time of Envoy's worker thread a request
	Process time.Duration // CPU time of Envoy's process a request, without what it uses when nobody asks it anything

	latencies latencies
}

// cpu is the CPU time that a process has used.
type cpu struct{ worker, main, process time.Duration }

// cpuOf reads a process's CPU time, in nanoseconds as the scheduler counts it, from /proc.
func cpuOf(pid int) (cpu, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return cpu{}, fmt.Errorf("process %d is not there: %v", pid, err)
	}
	var used cpu
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			continue // a thread that has just ended
		}
		fields := strings.Fields(string(text))
		if len(fields) == 0 {
			return cpu{}, fmt.Errorf("%s/schedstat is empty: this kernel does not count", task)
		}
		ns, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return cpu{}, err
		}
		used.process += time.Duration(ns)
		if name, err := os.ReadFile(filepath.Join(task, "comm")); err == nil && bytes.HasPrefix(name, []byte("wrk:worker")) {
			used.worker += time.Duration(ns)
		}
		if filepath.Base(task) == strconv.Itoa(pid) {
			used.main += time.Duration(ns)
		}
	}
	return used, nil
}

// measure runs a load, and divides what Envoy used by what the load did. An idle process uses so much of each second.
func measure(pid int, idle float64, load func() (done, error)) (Round, error) {
	before, err := cpuOf(pid)
	if err != nil {
		return Round{}, err
	}
	began := time.Now()
	did, err := load()
	if err != nil {
		return Round{}, err
	}
	took := time.Since(began)
	after, err := cpuOf(pid)
	if err != nil {
		return Round{}, err
	}
	if did.requests == 0 {
		return Round{}, fmt.Errorf("not one request was answered")
	}
	worker := after.worker - before.worker
	process := max(worker, after.process-before.process-time.Duration(idle*float64(took)))
	n := time.Duration(did.requests)
	return Round{Rate: float64(did.requests) / did.took.Seconds(), P50: did.p50, P99: did.p99, Worker: worker / n, Process: process / n,
		latencies: did.latencies}, nil
}
