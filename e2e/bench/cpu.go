package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpu is CPU time that a process has used.
type cpu struct{ worker, main, process time.Duration }

// cpuOf reads the CPU time of an Envoy, in nanoseconds as the scheduler counts it.
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

// ownCPU is the CPU time of this process.
func ownCPU() (time.Duration, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
}

// idle measures the CPU time that each of some Envoys uses in a second while it is left alone.
func (b *bench) idle(over time.Duration, pids ...int) ([]cpu, error) {
	read := func() (all []cpu, err error) {
		for _, pid := range pids {
			used, err := cpuOf(pid)
			if err != nil {
				return nil, err
			}
			all = append(all, used)
		}
		return all, nil
	}
	before, err := read()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := b.pause(over); err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	after, err := read()
	if err != nil {
		return nil, err
	}
	perSecond := func(from, to time.Duration) time.Duration { return time.Duration(float64(to-from) / took) }
	for i, from := range before {
		to := &after[i]
		*to = cpu{perSecond(from.worker, to.worker), perSecond(from.main, to.main), perSecond(from.process, to.process)}
	}
	return after, nil
}

// Round has the figures of one contender in one round.
type Round struct {
	Rate    float64       // requests, calls or messages a second
	P50     time.Duration // of a request
	P99     time.Duration
	Worker  time.Duration // CPU time of Envoy's worker for a request
	Process time.Duration // CPU time of Envoy for a request, less the CPU time of an idle Envoy
	Load    time.Duration // CPU time of the load for a request

	requests, rejected int64
}

// measure divides the CPU time that Envoy uses under a load by the requests of the load, less the time that it uses in a second when it
// is idle.
func measure(pid int, idle time.Duration, load func() (outcome, error)) (Round, error) {
	before, err := cpuOf(pid)
	if err != nil {
		return Round{}, err
	}
	own, err := ownCPU()
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
	ownAfter, err := ownCPU()
	if err != nil {
		return Round{}, err
	}
	if did.requests == 0 {
		return Round{}, fmt.Errorf("no request was answered")
	}
	worker := after.worker - before.worker
	process := max(worker, after.process-before.process-time.Duration(idle.Seconds()*float64(took)))
	n := time.Duration(did.requests)
	return Round{Rate: float64(did.requests) / did.took.Seconds(), P50: did.p50, P99: did.p99,
		Worker: worker / n, Process: process / n, Load: (ownAfter - own) / n, requests: did.requests, rejected: did.rejected}, nil
}
