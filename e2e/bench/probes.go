package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"healthgate/e2e/testbed"
)

const (
	// connections is how many clients send probes at the same time, each on its own connection.
	connections = 4
	// proberRate is how many probes per second a prober sends while scale is measured.
	proberRate = 20
)

// sendProbes sends GET / to an address at full rate. It fails unless each probe is answered.
func sendProbes(address string, p testbed.Pace) (testbed.Outcome, error) {
	p.Clients = connections
	did, err := testbed.StartProbes(p, "http://"+address+"/", testbed.ProbeOptions{}).Wait()
	if lost := did.Answers[testbed.NoAnswer]; err == nil && lost > 0 {
		err = fmt.Errorf("%d of %d probes were not answered", lost, did.Requests)
	}
	return did, err
}

// rounds loads each contender in each round, after a round that is not counted. The order changes from round to round.
func (b *bench) rounds(envoy *testbed.Envoy, addresses map[string]string, n int, contenders []string) (map[string][]Round, error) {
	idle, err := b.perSecond(min(b.Window, 2*time.Second), envoy.Pid())
	if err != nil {
		return nil, err
	}
	seen := map[string][]Round{}
	for round := -1; round < n; round++ {
		for i := range contenders {
			if err := context.Cause(b.ctx); err != nil {
				return nil, err
			}
			contender := contenders[(i+round+1)%len(contenders)]
			r, err := measure(envoy.Pid(), idle[0].process, func() (testbed.Outcome, error) {
				return sendProbes(addresses[contender], testbed.Pace{For: b.Load})
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", contender, err)
			}
			if round >= 0 {
				seen[contender] = append(seen[contender], r)
			}
		}
	}
	return seen, nil
}

// compare starts an Envoy of a size, and compares contenders in it.
func (b *bench) compare(s size, rounds int, contenders ...string) (Table, error) {
	progress("probes, %s: %d rounds of %d contenders", s.Name, rounds, len(contenders))
	envoy, addresses, err := b.start(s, contenders...)
	if err != nil {
		return Table{}, err
	}
	defer envoy.Kill()
	seen, err := b.rounds(envoy, addresses, rounds, contenders)
	return table(s.Name, contenders, seen), err
}

// probes compares the contenders in Envoys of several sizes, and the memory of an Envoy with each variant.
func (b *bench) probes(results *Results) error {
	p := Probes{Run: b.made, FileMiB: map[string]float64{}}
	for i, s := range sizes {
		contenders, rounds := []string{native, byModule, byPlugin}, b.Rounds
		if i == small {
			// The contenders that are compared most closely are neighbours.
			contenders, rounds = []string{direct, native, smallest, byModule, byPlugin}, 2*b.Rounds
			if b.made.Substitute {
				contenders = []string{direct, native, smallest, byModule, empty, emptyGo, byPlugin}
			}
		}
		t, err := b.compare(s, rounds, contenders...)
		if err != nil {
			return err
		}
		// The script runs in a separate Envoy: it keeps the main thread busy long after its probes.
		script, err := b.compare(s, max(1, b.Rounds/4), native, lua)
		if err != nil {
			return err
		}
		t.Rows = append(t.Rows, script.row(lua))
		p.Sizes = append(p.Sizes, t)
	}
	for variant, file := range map[string]string{byPlugin: b.plugin.Object(), byModule: b.module.Object()} {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		p.FileMiB[variant] = float64(info.Size()) / (1 << 20)
	}
	for _, s := range []size{sizes[small], sizes[thousand]} {
		for _, contender := range []string{native, byModule, byPlugin} {
			progress("memory, %s, %s: %d probes", s.Name, contender, b.Probes)
			used, err := b.memoryOf(s, contender)
			if err != nil {
				return err
			}
			p.Memory = append(p.Memory, Memory{s.Name, contender, used})
		}
	}
	results.Probes = &p
	return nil
}

// memoryOf returns the memory of an Envoy with one contender after many probes.
func (b *bench) memoryOf(s size, contender string) (float64, error) {
	envoy, addresses, err := b.start(s, contender)
	if err != nil {
		return 0, err
	}
	defer envoy.Kill()
	if _, err := sendProbes(addresses[contender], testbed.Pace{Requests: b.Probes}); err != nil {
		return 0, err
	}
	return envoy.ResidentMiB()
}
