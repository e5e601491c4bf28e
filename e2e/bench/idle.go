package main

import (
	"context"
	"time"

	"healthgate/e2e/bed"
)

// looks is how often an idle Envoy is looked at.
const looks = 5

// idleOf is what a process uses of a second when nobody asks it anything.
func idleOf(ctx context.Context, pid int, over time.Duration) (cpu, error) {
	before, err := cpuOf(pid)
	if err != nil {
		return cpu{}, err
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return cpu{}, context.Cause(ctx)
	case <-time.After(over):
	}
	after, err := cpuOf(pid)
	if err != nil {
		return cpu{}, err
	}
	took := time.Since(began).Seconds()
	share := func(used time.Duration) time.Duration { return time.Duration(float64(used) / took) }
	return cpu{share(after.worker - before.worker), share(after.main - before.main), share(after.process - before.process)}, nil
}

// idle compares what the main thread of an Envoy with the stock door does, which samples all gauges, to that of one without.
func (b *bench) idle(results *Results) error {
	for _, s := range scenarios {
		say("the main thread, %s: %d looks of %v at two Envoys", s.Name, looks, b.Idle)
		without, _, err := b.start(s, native)
		if err != nil {
			return err
		}
		defer without.Kill()
		with, _, err := b.start(s, byStock)
		if err != nil {
			return err
		}
		defer with.Kill()
		main := Main{Scenario: s.Name}
		var own, others, rates []float64
		for look := range looks + 1 {
			figures, err := b.lookAt(with, without)
			if err != nil {
				return err
			}
			if look == 0 { // they have just started
				continue
			}
			own, others = append(own, 100*figures.with), append(others, 100*figures.without)
			rates = append(rates, figures.rate)
		}
		main.Percent, main.WithoutPercent = spreadOf(own), spreadOf(others)
		main.OwnPercent, main.Looks = mean(own)-mean(others), mean(rates)
		if main.Looks > 0 {
			main.PerLook = main.OwnPercent / 100 / main.Looks * 1e6
		}
		main.Gauges, err = gauges(with)
		if err != nil {
			return err
		}
		results.Main = append(results.Main, main)
		with.Kill()
		without.Kill()
	}
	return nil
}

func mean(values []float64) (sum float64) {
	for _, v := range values {
		sum += v / float64(len(values))
	}
	return sum
}

// figures are of one look at two idle Envoys: the share of a core that each one's main thread uses, and how often the door looks at all
// gauges in a second.
type figures struct{ with, without, rate float64 }

func (b *bench) lookAt(with, without *bed.Envoy) (f figures, err error) {
	const counter = "healthgate.looks"
	before, err := with.Stats(counter)
	if err != nil {
		return f, err
	}
	began := time.Now()
	type idling struct {
		of  cpu
		err error
	}
	other := make(chan idling, 1)
	go func() {
		used, err := idleOf(b.ctx, without.Pid(), b.Idle)
		other <- idling{used, err}
	}()
	used, err := idleOf(b.ctx, with.Pid(), b.Idle)
	took := time.Since(began)
	idle := <-other
	if err == nil {
		err = idle.err
	}
	if err != nil {
		return f, err
	}
	after, err := with.Stats(counter)
	return figures{used.main.Seconds(), idle.of.main.Seconds(), float64(after[counter]-before[counter]) / took.Seconds()}, err
}

// gauges counts those of an Envoy.
func gauges(envoy *bed.Envoy) (n int, err error) {
	text, err := envoy.Get("/stats?type=Gauges")
	for i := range text {
		if text[i] == '\n' {
			n++
		}
	}
	return n, err
}

// memory compares an Envoy with a door to one that has nothing of Healthgate's.
func (b *bench) memory(results *Results) error {
	for _, d := range b.doors {
		size, err := sizeMiB(d.Object())
		if err != nil {
			return err
		}
		results.Objects = append(results.Objects, Object{d.Name(), size})
	}
	for _, s := range []scenario{scenarios[small], scenarios[thousand]} {
		for _, contender := range []string{native, byContrib, byStock} {
			say("memory and start, %s, %s: %d starts, %d probes", s.Name, contender, b.Starts, b.Probes)
			m, err := b.memoryOf(s, contender)
			if err != nil {
				return err
			}
			results.Memory = append(results.Memory, m)
		}
	}
	return nil
}

func (b *bench) memoryOf(s scenario, contender string) (Memory, error) {
	m := Memory{Scenario: s.Name, Contender: contender}
	var starts []float64
	var envoy *bed.Envoy
	var addresses map[string]string
	var err error
	for range b.Starts {
		if envoy != nil {
			envoy.Kill()
		}
		began := time.Now()
		if envoy, addresses, err = b.start(s, contender); err != nil {
			return m, err
		}
		starts = append(starts, float64(time.Since(began).Milliseconds()))
	}
	defer envoy.Kill()
	m.StartMilliseconds = spreadOf(starts)
	if _, err := probes(addresses[contender], 0, connections); err != nil {
		return m, err
	}
	if m.IdleMiB, err = envoy.ResidentMiB(); err != nil {
		return m, err
	}
	if _, err := probes(addresses[contender], 0, b.Probes); err != nil {
		return m, err
	}
	m.UsedMiB, err = envoy.ResidentMiB()
	return m, err
}
