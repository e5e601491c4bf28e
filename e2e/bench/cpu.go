package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"healthgate/e2e/testbed"
)

// cpu is the CPU time that a process has used.
type cpu struct{ worker, main, process time.Duration }

// cpuOf returns the CPU time of an Envoy, as the kernel's scheduler counts it.
func cpuOf(pid int) (cpu, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return cpu{}, fmt.Errorf("no process %d: %v", pid, err)
	}
	var used cpu
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			continue // the thread has just ended
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

// ownCPU returns the CPU time of this process.
func ownCPU() (time.Duration, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
}

// perSecond returns the CPU time that each Envoy uses per second, over some time during which nothing new is done to it.
func (b *bench) perSecond(over time.Duration, pids ...int) ([]cpu, error) {
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
	rate := func(from, to time.Duration) time.Duration { return time.Duration(float64(to-from) / took) }
	for i, from := range before {
		to := after[i]
		after[i] = cpu{rate(from.worker, to.worker), rate(from.main, to.main), rate(from.process, to.process)}
	}
	return after, nil
}

// Round is the figures of one contender in one round.
type Round struct {
	Rate    float64       // probes per second
	P50     time.Duration // latency
	P99     time.Duration
	Worker  time.Duration // CPU time of Envoy's worker per probe
	Process time.Duration // CPU time of Envoy per probe, minus the CPU time of an idle Envoy
	Load    time.Duration // CPU time of the load per probe

	requests, rejected int64
}

// measure divides the CPU time that Envoy uses under a load by the probes of the load. idle is the CPU time per second of an idle Envoy.
func measure(pid int, idle time.Duration, load func() (testbed.Outcome, error)) (Round, error) {
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
	if did.Requests == 0 {
		return Round{}, errors.New("no probe was answered")
	}
	worker := after.worker - before.worker
	process := max(worker, after.process-before.process-time.Duration(idle.Seconds()*float64(took)))
	n := time.Duration(did.Requests)
	return Round{
		Rate: float64(did.Requests) / did.Took.Seconds(), P50: did.P50, P99: did.P99,
		Worker: worker / n, Process: process / n, Load: (ownAfter - own) / n,
		requests: did.Requests, rejected: did.Requests - did.Answers["200"],
	}, nil
}
