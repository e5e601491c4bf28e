package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"healthgate/e2e/testbed"
)

// The growth that is allowed between the end of the warm-up and the end.
const (
	memoryGrowth    = 24.0 // MiB
	goroutineGrowth = 10   // for each variant, besides one for each gate that depends on time
	// configurationsLeft is how many configurations may be alive per gate after the load has ended: the gate's own, the overrides that were
	// merged into it, and a few that Go has not freed yet.
	configurationsLeft = 10
	// memoryAfter is the least duration of a run whose memory is compared: earlier, the allocators of Envoy and Go still fill their pools.
	memoryAfter = 5 * time.Minute
)

// checkGrowth ends the load, and compares Envoy's usage after it with the usage after the warm-up.
func (r *Run) checkGrowth(ctx context.Context, warm *usage, log func(string)) error {
	var failed []error
	for _, clients := range r.clients {
		clients.Stop()
		failed = append(failed, clients.failure())
	}
	if warm == nil {
		return errors.Join(append(failed, errors.New("the run ended before the warm-up did"))...)
	}
	var end *usage
	err := testbed.WaitFor(ctx, 20*time.Second, func() error {
		// Go frees the configurations that Envoy has dropped after some garbage collections, which probes cause.
		for range 2000 {
			for _, v := range r.Variants {
				if _, _, err := r.Get("ingress", virtualHosts[0], Place{0, "", -1}.path(v.Name), ""); err != nil {
					return err
				}
			}
		}
		var err error
		if end, err = r.usage(ctx); err != nil {
			return err
		}
		for _, w := range r.watches {
			gauge := "healthgate." + filterName(w.variant, 0) + ".grpc_watchers"
			if stats, err := r.Envoy.Stats(gauge); err != nil || stats[gauge] != uint64(len(r.watches)*watchers) {
				return fmt.Errorf("%s is %d, want %d (%v)", gauge, stats[gauge], len(r.watches)*watchers, err)
			}
		}
		timed := 0
		for _, g := range r.gates {
			if g.config.timed() {
				timed++
			}
		}
		switch {
		case end.configurations > configurationsLeft*len(r.gates):
			return fmt.Errorf("%d configurations are alive, want %d at most", end.configurations, configurationsLeft*len(r.gates))
		case end.goroutines > warm.goroutines+goroutineGrowth*len(r.Variants)+timed:
			return fmt.Errorf("%d waiting goroutines, %d after the warm-up", end.goroutines, warm.goroutines)
		case r.Duration >= memoryAfter && end.memory > warm.memory+memoryGrowth:
			return fmt.Errorf("%.1f MiB, %.1f after the warm-up", end.memory, warm.memory)
		}
		return nil
	})
	if end != nil {
		log(fmt.Sprintf(" end  %s; after the warm-up %s", end, warm))
	}
	if err != nil {
		err = fmt.Errorf("Envoy has grown: %w", err)
	}
	return errors.Join(append(failed, err)...)
}

// usage is the memory and the objects of an Envoy.
type usage struct {
	memory                               float64 // MiB resident
	goroutines, configurations, requests int     // goroutines that wait; configurations and requests: of the Go plugin
}

func (u *usage) String() string {
	return fmt.Sprintf("%.1f MiB, %d waiting goroutines, %d configurations and %d requests of the plugin alive", u.memory, u.goroutines,
		u.configurations, u.requests)
}

// traceGoroutines makes each Go runtime in Envoy list its goroutines in the log, several times in an interval.
func traceGoroutines(every time.Duration) string {
	return fmt.Sprintf("GODEBUG=schedtrace=%d,scheddetail=1", max(every/4, time.Second).Milliseconds())
}

// usage reads /proc, the contrib host's counts, and the traces of the Go schedulers.
func (r *Run) usage(ctx context.Context) (*usage, error) {
	u := &usage{}
	var err error
	if u.memory, err = r.Envoy.ResidentMiB(); err != nil {
		return nil, err
	}
	for _, v := range r.Variants {
		if v.Can(testbed.CountLiveObjects) == nil {
			live, err := v.LiveObjects(r.Envoy)
			if err != nil {
				return nil, err
			}
			u.configurations, u.requests = live.Configurations, live.Requests
		}
	}
	err = testbed.WaitFor(ctx, 20*time.Second, func() error {
		var err error
		u.goroutines, err = waitingGoroutines(r.Envoy.Log(), len(r.Variants))
		return err
	})
	return u, err
}

// waitingGoroutines counts the goroutines that wait for something, in the last traces of so many Go schedulers. Those that can run are left
// out: contrib removes each merged configuration by a timer, so after a freeze thousands of timers run at once, and end.
func waitingGoroutines(log string, schedulers int) (int, error) {
	// The mean of some traces before the last, which may not be complete. Two schedulers write in turn, more or less.
	const mean = 2
	n := mean * schedulers
	traces := regexp.MustCompile(`(?m)^SCHED `).FindAllStringIndex(log, -1)
	if len(traces) <= n {
		return 0, errors.New("the Go schedulers have written no trace yet")
	}
	log = log[traces[len(traces)-1-n][0]:traces[len(traces)-1][0]]
	return len(regexp.MustCompile(`(?m)^  G\d+: status=4\(`).FindAllString(log, -1)) / mean, nil // 4: _Gwaiting
}
