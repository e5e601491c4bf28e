package dynamicmodule

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"healthgate/filter/dynamicmodule/fakeenvoy"
)

// Whatever is registered and unregistered between passes, a registered gauge is what Envoy had at the last pass.
func TestGaugesAreWhatTheLastPassHasFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fakeenvoy.Reset()
		s := newSampler()
		const names = 6
		held := map[string][]*gauge{}
		values := map[string]uint64{}
		name := func() string { return fmt.Sprint("g", rapid.IntRange(0, names-1).Draw(t, "name")) }
		check := func() {
			for name, gauges := range held {
				want, found := values[name]
				for _, g := range gauges {
					if g.Get() != want || g.Found() != found || !g.covered.Load() {
						t.Fatalf("%s is %d, found %v, covered %v; want %d, %v", name, g.Get(), g.Found(), g.covered.Load(), want, found)
					}
				}
			}
			for name := range s.gauges {
				if len(held[name]) == 0 {
					t.Fatalf("%s is sampled, though it is not registered", name)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"register": func(*rapid.T) {
				n := name()
				held[n] = append(held[n], s.register(n)...)
			},
			"unregister": func(*rapid.T) {
				n := name()
				if gauges := held[n]; len(gauges) > 0 {
					s.unregister(gauges[0])
					held[n] = gauges[1:]
				}
			},
			"set": func(t *rapid.T) {
				n := name()
				values[n] = rapid.Uint64().Draw(t, "value")
				fakeenvoy.Gauge(n, values[n])
			},
			"remove": func(*rapid.T) {
				n := name()
				delete(values, n)
				fakeenvoy.Remove(n)
			},
			"pass": func(*rapid.T) {
				s.pass(true)
				check()
			},
		})
	})
}

// Passes by workers and the main thread, while gauges come and go.
func TestPassesAtOnce(t *testing.T) {
	fakeenvoy.Reset()
	fakeenvoy.Gauge("kept", 1)
	s := newSampler()
	kept := s.register("kept")[0]
	var threads sync.WaitGroup
	for i := range 4 {
		threads.Go(func() {
			for range 500 {
				g := s.register(fmt.Sprint("own", i))[0]
				s.pass(true)
				if kept.Get() != 1 || !kept.Found() || !g.covered.Load() {
					t.Error("a pass lost a gauge")
				}
				s.unregister(g)
			}
		})
	}
	threads.Wait()
	if len(s.gauges) != 1 {
		t.Errorf("%d gauges are left", len(s.gauges))
	}
}

func TestExistenceOfClusters(t *testing.T) {
	type step struct {
		event string // add, remove, pass, final: a pass with these stats
		stats []string
	}
	for name, test := range map[string]struct {
		steps []step
		stats bool // whether the last pass has found its stats
		want  bool
	}{
		"never there":                          {[]step{{"final", nil}}, false, false},
		"there before Envoy reported anything": {[]step{{"pass", nil}, {"final", []string{"a"}}}, true, true},
		"warming: it has stats, no report":     {[]step{{"final", nil}}, true, false},
		"added":                                {[]step{{"final", nil}, {"add", nil}}, true, true},
		"added, and its stats are not kept":    {[]step{{"final", nil}, {"add", nil}}, false, true},
		"removed":                              {[]step{{"final", []string{"a"}}, {"remove", nil}}, true, false},
		"removed before the workers started":   {[]step{{"pass", []string{"a"}}, {"remove", nil}, {"final", []string{"a"}}}, true, false},
		"added, removed":                       {[]step{{"final", nil}, {"add", nil}, {"remove", nil}}, true, false},
		"removed, added":                       {[]step{{"final", []string{"a"}}, {"remove", nil}, {"add", nil}}, true, true},
		"there before, and then its stats go":  {[]step{{"final", []string{"a"}}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clusters{}
			for _, s := range test.steps {
				switch s.event {
				case "add", "remove":
					c.report("a", "a", s.event == "remove")
				default:
					var hashes []uint64
					for _, stat := range s.stats {
						hashes = append(hashes, hashOf(stat))
					}
					c.collect(hashes, s.event == "final")
				}
			}
			if got := c.has(hashOf("a"), hashOf("a"), test.stats); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestRemovedClustersAreForgotten(t *testing.T) {
	c := &clusters{}
	c.collect(nil, true)
	for i := range 2 * maxRemoved {
		c.report(fmt.Sprint(i), fmt.Sprint(i), false)
		c.report(fmt.Sprint(i), fmt.Sprint(i), true)
	}
	if len(c.reported) != maxRemoved {
		t.Errorf("%d names are remembered", len(c.reported))
	}
}

func TestEnvoyThatReportsNoClustersIsBelievedByItsStats(t *testing.T) {
	c := &clusters{}
	c.setUnaware()
	for _, stats := range []bool{true, false} {
		if got := c.has(1, 2, stats); got != stats {
			t.Errorf("stats %v: got %v", stats, got)
		}
	}
}

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name            string
		costs           []time.Duration // of passes that follow on each other without a pause
		regular, forNew time.Duration   // what the next pass has to wait
		limit           time.Duration
	}{
		{"nothing", nil, 0, 0, 150 * ms},
		{"a cheap pass", []time.Duration{ms / 10}, 50 * ms, 50 * ms, 150 * ms},
		{"a pass of 5 ms", []time.Duration{5 * ms}, 100 * ms, 50 * ms, 300 * ms},
		{"a pass of 100 ms", []time.Duration{100 * ms}, 2000 * ms, 50 * ms, 6000 * ms},
		{"two at once", []time.Duration{100 * ms, 100 * ms}, 4000 * ms, 2000 * ms, 6000 * ms},
		{"three at once", []time.Duration{100 * ms, 100 * ms, 100 * ms}, 6000 * ms, 4000 * ms, 8000 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &pace{}
			for _, cost := range test.costs {
				p.recordPass(time.Hour, cost)
			}
			if got := p.wait(time.Hour, false); got != test.regular {
				t.Errorf("a regular pass waits %v, want %v", got, test.regular)
			}
			if got := p.wait(time.Hour, true); got != test.forNew {
				t.Errorf("a pass for new names waits %v, want %v", got, test.forNew)
			}
			if got := p.ageLimit(); got != test.limit {
				t.Errorf("the age limit is %v, want %v", got, test.limit)
			}
		})
	}
}

// The sampler's own thread: it samples at its pace, and at once for new names.
func TestSamplerRunsUntilEnvoyEnds(t *testing.T) {
	startServing(t)
	f := newFilter(t, `{"clusters": ["service"]}`)
	wantDetails(t, probe(f), "healthgate_ok")
	done := make(chan struct{})
	go func() {
		shared.run()
		close(done)
	}()
	await := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	cluster("service", 0, 0, 1)
	await("a change is never answered", func() bool { return probe(f).Status == 503 })
	before := fakeenvoy.Passes()
	await("passes stop", func() bool { return fakeenvoy.Passes() > before+2 })
	stopped.Store(true)
	defer stopped.Store(false)
	<-done
}
