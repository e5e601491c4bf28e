package dynamicmodule

import (
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"healthgate/filter/dynamicmodule/fakeenvoy"
)

// Whatever is registered and unregistered between passes.
func TestRegisteredGaugesHaveTheValuesOfTheLastPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fakeenvoy.Reset()
		s := newSampler()
		registered := map[string][]*gauge{}
		values := map[string]uint64{}
		name := func() string { return fmt.Sprint("g", rapid.IntRange(0, 5).Draw(t, "name")) }
		t.Repeat(map[string]func(*rapid.T){
			"register": func(*rapid.T) {
				n := name()
				registered[n] = append(registered[n], s.register(n)...)
			},
			"unregister": func(*rapid.T) {
				n := name()
				if gauges := registered[n]; len(gauges) > 0 {
					s.unregister(gauges[0])
					registered[n] = gauges[1:]
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
				s.makePass(true)
				for name, gauges := range registered {
					want, found := values[name]
					for _, g := range gauges {
						if g.Get() != want || g.Found() != found || !g.covered.Load() {
							t.Fatalf("%s is %d, found %v, covered %v; want %d, %v", name, g.Get(), g.Found(), g.covered.Load(), want, found)
						}
					}
				}
				for name := range s.gauges {
					if len(registered[name]) == 0 {
						t.Fatalf("%s is sampled, but not registered", name)
					}
				}
			},
		})
	})
}

func TestConcurrentPassesLoseNoGauge(t *testing.T) {
	fakeenvoy.Reset()
	fakeenvoy.Gauge("kept", 1)
	s := newSampler()
	kept := s.register("kept")
	var threads sync.WaitGroup
	for i := range 4 {
		threads.Go(func() {
			for range 500 {
				own := s.register(fmt.Sprint("own", i))
				s.makePass(true)
				if kept[0].Get() != 1 || !kept[0].Found() || !areCovered(own) {
					t.Error("a pass lost a gauge")
				}
				s.unregister(own...)
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
		event string   // add, remove, pass, or final for the last pass before the workers start
		stats []string // that a pass finds
	}
	for name, test := range map[string]struct {
		steps    []step
		statName string // "" for a, the name
		hasStats bool   // at the end
		want     bool
	}{
		"never added":                          {[]step{{"final", nil}}, "", false, false},
		"before Envoy reports":                 {[]step{{"pass", nil}, {"final", []string{"a"}}}, "", true, true},
		"warming: stats without a report":      {[]step{{"final", nil}}, "", true, false},
		"added":                                {[]step{{"final", nil}, {"add", nil}}, "", true, true},
		"added, stats rejected by a matcher":   {[]step{{"final", nil}, {"add", nil}}, "", false, true},
		"removed":                              {[]step{{"final", []string{"a"}}, {"remove", nil}}, "", true, false},
		"removed before the workers start":     {[]step{{"pass", []string{"a"}}, {"remove", nil}, {"final", []string{"a"}}}, "", true, false},
		"added, removed":                       {[]step{{"final", nil}, {"add", nil}, {"remove", nil}}, "", true, false},
		"removed, added":                       {[]step{{"final", []string{"a"}}, {"remove", nil}, {"add", nil}}, "", true, true},
		"before Envoy reports, stats gone":     {[]step{{"final", []string{"a"}}}, "", false, false},
		"alt_stat_name":                        {[]step{{"final", []string{"alt"}}}, "alt", true, true},
		"alt_stat_name, removed":               {[]step{{"final", []string{"alt"}}, {"remove", nil}}, "alt", true, false},
		"alt_stat_name, updated and removed":   {[]step{{"final", []string{"alt"}}, {"add", nil}, {"remove", nil}}, "alt", true, false},
		"another cluster's alt_stat_name is a": {[]step{{"final", []string{"a"}}}, "", true, true}, // the limit that clusters describes
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
			if test.statName == "" {
				test.statName = "a"
			}
			if got := c.has(hashOf("a"), hashOf(test.statName), test.hasStats); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestNumberOfRemovedClustersIsBounded(t *testing.T) {
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
