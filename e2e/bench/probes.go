package main

import (
	"context"
	"fmt"
	"log"
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

// compare loads each contender in each round in an Envoy of a size, after a round that is not counted. The order changes from round to
// round.
func (b *bench) compare(s size, rounds int, contenders ...string) (Table, error) {
	log.Printf("probes, %s: %d rounds of %d contenders", s.Name, rounds, len(contenders))
	envoy, addresses, err := b.start(s, contenders...)
	if err != nil {
		return Table{}, err
	}
	defer envoy.Kill()
	idle, took, err := during(b.idle(min(b.Window, 2*time.Second)), envoy)
	if err != nil {
		return Table{}, err
	}
	seen := map[string][]Round{}
	for round := -1; round < rounds; round++ {
		for i := range contenders {
			if err := context.Cause(b.ctx); err != nil {
				return Table{}, err
			}
			contender := contenders[(i+round+1)%len(contenders)]
			r, err := measure(envoy, idle[0].envoy.Seconds()/took.Seconds(), func() (testbed.Outcome, error) {
				return sendProbes(addresses[contender], testbed.Pace{For: b.Load})
			})
			if err != nil {
				return Table{}, fmt.Errorf("%s: %w", contender, err)
			}
			if round >= 0 {
				seen[contender] = append(seen[contender], r)
			}
		}
	}
	return table(s.Name, contenders, seen), nil
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
		t.Rows = append(t.Rows, script.Row(lua))
		p.Sizes = append(p.Sizes, t)
	}
	for contender, variant := range map[string]testbed.Variant{byPlugin: b.plugin, byModule: b.module} {
		info, err := os.Stat(variant.Object())
		if err != nil {
			return err
		}
		p.FileMiB[contender] = float64(info.Size()) / (1 << 20)
	}
	for _, s := range []size{sizes[small], sizes[thousand]} {
		for _, contender := range []string{native, byModule, byPlugin} {
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
	log.Printf("memory, %s, %s: %d probes", s.Name, contender, b.Probes)
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
