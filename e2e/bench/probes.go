package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"healthgate/e2e/testbed"
)

// rounds loads each contender in each round, in an order that changes, after a round that is not counted.
func (b *bench) rounds(envoy *testbed.Envoy, n int, contenders []string, load func(string) (outcome, error)) (map[string][]Round, error) {
	idle, err := b.idle(min(b.Window, 2*time.Second), envoy.Pid())
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
			r, err := measure(envoy.Pid(), idle[0].process, func() (outcome, error) { return load(contender) })
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

// probes compares the contenders that answer GET /.
func (b *bench) probes(results *Results) error {
	p := Probes{Run: b.made}
	smallestKinds := []string{smallest, byModule}
	if b.made.Substitute {
		smallestKinds = append(smallestKinds, empty, emptyGo)
	}
	// Contenders that are compared most closely are neighbours.
	most := append(append([]string{direct, native}, smallestKinds...), byPlugin)
	compare := func(s size, rounds int, http2 bool, contenders ...string) (Table, error) {
		envoy, addresses, err := b.start(s, contenders...)
		if err != nil {
			return Table{}, err
		}
		defer envoy.Kill()
		seen, err := b.rounds(envoy, rounds, contenders, func(contender string) (outcome, error) {
			return probes(addresses[contender], http2, atFullRate(b.Load, 0))
		})
		return table(s.Name, native, contenders, seen), err
	}
	for i, s := range sizes {
		contenders, rounds := []string{native, byModule, byPlugin}, b.Rounds
		if i == small {
			contenders, rounds = most, 2*b.Rounds
		}
		progress("probes, %s: %d rounds of %d contenders", s.Name, rounds, len(contenders))
		t, err := compare(s, rounds, false, contenders...)
		if err != nil {
			return err
		}
		// The script keeps the main thread busy long after its probes: it would be in the figures of all others.
		rounds = max(1, b.Rounds/4)
		progress("probes, %s: %d rounds of the script", s.Name, rounds)
		script, err := compare(s, rounds, false, native, lua)
		if err != nil {
			return err
		}
		t.Rows = append(t.Rows, script.row(lua))
		p.Sizes = append(p.Sizes, t)
	}
	contenders := append(append([]string{native}, smallestKinds...), byPlugin)
	progress("probes over HTTP/2: %d rounds of %d contenders", b.Rounds, len(contenders))
	var err error
	if p.HTTP2, err = compare(sizes[small], b.Rounds, true, contenders...); err != nil {
		return err
	}
	results.Probes = &p
	return nil
}

// traffic compares what other traffic pays, and a Check with the same call to a host.
func (b *bench) traffic(results *Results) error {
	contenders := []string{direct, byModule, byPlugin, moduleEverywhere, pluginEverywhere, native, lua}
	envoy, addresses, err := b.start(sizes[small], contenders...)
	if err != nil {
		return err
	}
	defer envoy.Kill()
	t := Traffic{Run: b.made}
	for _, k := range kinds {
		progress("traffic, %s: %d rounds of %d contenders", k.Name, b.Rounds, len(contenders))
		seen, err := b.rounds(envoy, b.Rounds, contenders, func(contender string) (outcome, error) {
			return calls(b.ctx, addresses[contender], k, b.Load)
		})
		if err != nil {
			return err
		}
		t.Kinds = append(t.Kinds, table(k.Name, direct, contenders, seen))
	}
	progress("Checks: %d rounds of 2 contenders", b.Rounds)
	seen, err := b.rounds(envoy, b.Rounds, []string{direct, byModule}, func(contender string) (outcome, error) {
		k := checkAHost
		if contender == byModule {
			k = check
		}
		return calls(b.ctx, addresses[contender], k, b.Load)
	})
	if err != nil {
		return err
	}
	t.Checks = table(check.Name, direct, []string{direct, byModule}, seen)
	results.Traffic = &t
	return nil
}

// memory compares the memory of an Envoy with each variant to that with Envoy's own filter.
func (b *bench) memory(results *Results) error {
	m := MemoryResults{Run: b.made, FileMiB: map[string]float64{}}
	for variant, file := range map[string]string{byPlugin: b.plugin.Object(), byModule: b.module.Object()} {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		m.FileMiB[variant] = float64(info.Size()) / (1 << 20)
	}
	for _, s := range []size{sizes[small], sizes[thousand]} {
		for _, contender := range []string{native, byModule, byPlugin} {
			progress("memory, %s, %s: %d probes", s.Name, contender, b.Probes)
			row, err := b.memoryOf(s, contender)
			if err != nil {
				return err
			}
			m.Rows = append(m.Rows, row)
		}
	}
	results.Memory = &m
	return nil
}

func (b *bench) memoryOf(s size, contender string) (Memory, error) {
	m := Memory{Size: s.Name, Contender: contender}
	envoy, addresses, err := b.start(s, contender)
	if err != nil {
		return m, err
	}
	defer envoy.Kill()
	if _, err := probes(addresses[contender], false, atFullRate(0, connections)); err != nil {
		return m, err
	}
	if m.IdleMiB, err = envoy.ResidentMiB(); err != nil {
		return m, err
	}
	if _, err := probes(addresses[contender], false, atFullRate(0, b.Probes)); err != nil {
		return m, err
	}
	m.UsedMiB, err = envoy.ResidentMiB()
	return m, err
}
