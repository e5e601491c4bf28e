package main

import (
	"fmt"
	"reflect"
	"testing"
)

// worldOf has one cluster with hosts in some states.
func worldOf(name string, states ...string) *World {
	w := newWorld()
	c := w.Clusters[name]
	clear(c.Hosts)
	for i, state := range states {
		c.Hosts[i] = &Host{State: state, Weight: 1, Server: firstState(name)}
	}
	return w
}

func TestCountsAgreeWithEnvoy(t *testing.T) {
	w := worldOf("shared0", "HEALTHY", "UNKNOWN", "DEGRADED", "TIMEOUT", "UNHEALTHY", "DRAINING")
	if got, want := w.Clusters["shared0"].Counts(), (Counts{2, 1, 1, 6}); got != want {
		t.Errorf("by EDS: got %+v, want %+v", got, want)
	}
	w.apply(Event{Kind: "remove", Cluster: "shared0"})
	w.apply(Event{Kind: "host", Cluster: "shared0", Host: 9, State: "HEALTHY"})
	if got, want := w.Clusters["shared0"].Counts(), (Counts{2, 1, 1, 6}); got != want {
		t.Errorf("a removed cluster: got %+v, want the gauges as they were: %+v", got, want)
	}
	w.apply(Event{Kind: "add", Cluster: "shared0"})
	if got, want := w.Clusters["shared0"].Counts(), (Counts{3, 1, 1, 7}); got != want {
		t.Errorf("added again: got %+v, want %+v", got, want)
	}
	w.apply(Event{Kind: "rename", Cluster: "shared0", Other: "absent1"})
	if got, want := w.Clusters["absent1"].Counts(), (Counts{3, 1, 1, 7}); got != want || w.Clusters["shared0"].Present {
		t.Errorf("renamed: got %+v, want %+v", got, want)
	}
	w = worldOf(fresh, "HEALTHY", "HEALTHY")
	w.apply(Event{Kind: "server", Cluster: fresh, Host: 1, State: "degraded"})
	if got, want := w.Clusters[fresh].Counts(), (Counts{0, 1, 1, 2}); got != want {
		t.Errorf("before the first check: got %+v, want %+v", got, want)
	}
	w = worldOf(ejecting, "HEALTHY", "HEALTHY")
	w.apply(Event{Kind: "eject", Cluster: ejecting, Host: 1})
	if got, want := w.Clusters[ejecting].Counts(), (Counts{1, 0, 0, 2}); got != want {
		t.Errorf("ejected: got %+v, want %+v", got, want)
	}
	w.apply(Event{Kind: "host", Cluster: ejecting, Host: 1, State: "HEALTHY", Locality: 1})
	if got, want := w.Clusters[ejecting].Counts(), (Counts{2, 0, 0, 2}); got != want {
		t.Errorf("ejected, then in another locality: got %+v, want %+v", got, want)
	}
}

func TestAnswersFollowTheDocumentation(t *testing.T) {
	ok, degraded := Answer{Status: 200, Details: "healthgate_ok"}, Answer{Status: 200, Details: "healthgate_ok", Degraded: true}
	failed := func(why string) Answer { return Answer{Status: 503, Details: "healthgate_cluster_" + why} }
	two := []Requirement{{Name: "shared0", MinHealthy: 1}, {Name: "shared1", MinHealthy: 1}}
	for _, test := range []struct {
		name        string
		config      Config
		seesRemoved bool
		want        Answer
	}{
		{"degraded hosts count", Config{Clusters: []Requirement{{Name: "shared0", MinHealthy: 2}}}, true, degraded},
		{"without need of them", Config{Clusters: []Requirement{{Name: "shared0", MinHealthy: 1}}}, true, ok},
		{"or they do not", Config{Clusters: []Requirement{{Name: "shared0", MinHealthy: 2, Degraded: "ignore"}}}, true, failed("unhealthy")},
		{"50 per cent of 4", Config{Clusters: []Requirement{{Name: "shared0", MinPercent: 50}}}, true, degraded},
		{"51 per cent of 4", Config{Clusters: []Requirement{{Name: "shared0", MinPercent: 51}}}, true, failed("unhealthy")},
		{"66 per cent of 3", Config{Clusters: []Requirement{{Name: "shared0", MinPercent: 66, Excluded: "ignore"}}}, true, degraded},
		{"67 per cent of 3", Config{Clusters: []Requirement{{Name: "shared0", MinPercent: 67, Excluded: "ignore"}}}, true, failed("unhealthy")},
		{"no hosts", Config{Clusters: []Requirement{{Name: "shared1", MinHealthy: 1}}}, true, failed("empty")},
		{"no hosts, and some per cent of them", Config{Clusters: []Requirement{{Name: "shared1", MinPercent: 1}}}, true, failed("empty")},
		{"no hosts, and nothing required", Config{Clusters: []Requirement{{Name: "shared1"}}}, true, ok},
		{"all", Config{Clusters: two, Require: "all"}, true, failed("empty")},
		{"any", Config{Clusters: two, Require: "any"}, true, ok},
		{"one of two", Config{Clusters: two, Require: 1}, true, ok},
		{"two of two, from JSON", Config{Clusters: two, Require: 2.0}, true, failed("empty")},
		{"removed", Config{Clusters: []Requirement{{Name: "shared2"}}}, true, failed("unknown")},
		{"removed, by its gauges", Config{Clusters: []Requirement{{Name: "shared2", MinHealthy: 1}}}, false, ok},
		{"never existed", Config{Clusters: []Requirement{{Name: "absent0"}}}, true, failed("unknown")},
		{"never existed, by its gauges", Config{Clusters: []Requirement{{Name: "absent0"}}}, false, ok},
	} {
		w := worldOf("shared0", "HEALTHY", "DEGRADED", "TIMEOUT", "DRAINING")
		clear(w.Clusters["shared1"].Hosts)
		w.apply(Event{Kind: "remove", Cluster: "shared2"})
		if got := w.evaluate(test.config, test.seesRemoved); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestOverridesMergeKeyByKey(t *testing.T) {
	w := newWorld()
	narrow := []Requirement{{Name: "own0", MinHealthy: 1}}
	w.Filters[0] = Config{Clusters: []Requirement{{Name: "shared0"}}, Require: "all", Drain: "fail"}
	w.Wider[allRoutes][0] = &Config{Drain: "ignore", Require: "any"}
	w.Wider["a"][0] = &Config{Hold: &Hold{"2s", "1s"}}
	w.Routes[4] = &Config{Clusters: narrow, StaleAfter: "0s"}
	filter := w.Filters[0].Clusters
	for _, test := range []struct {
		place  Place
		levels bool
		want   Config
	}{
		{Place{0, "a", 4}, true, Config{narrow, "any", "ignore", &Hold{"2s", "1s"}, "0s"}},
		{Place{0, "a", 4}, false, Config{narrow, "all", "fail", nil, "0s"}},
		{Place{0, "a", -1}, true, Config{filter, "any", "ignore", &Hold{"2s", "1s"}, ""}},
		{Place{0, "a", -1}, false, Config{filter, "all", "fail", &Hold{"2s", "1s"}, ""}},
		{Place{0, "b", -1}, true, Config{filter, "any", "ignore", nil, ""}},
		{Place{0, "b", -1}, false, Config{filter, "any", "ignore", nil, ""}},
	} {
		if got := w.merged(test.place, test.levels); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%+v, all levels %v: got %v, want %v", test.place, test.levels, got, test.want)
		}
	}
	if gates := len(w.places()); gates != len(virtualHosts)*filters+routes+routes*3/4 {
		t.Errorf("there are %d gates", gates)
	}
	w.apply(Event{Kind: "override", Level: "route", Route: 4})
	if gates := len(w.places()); gates != len(virtualHosts)*filters+routes+routes*3/4-2 {
		t.Errorf("there are %d gates after one has been removed", gates)
	}
}

// A list of events could not be shortened otherwise.
func TestEveryEventCanBeAppliedToEveryWorld(t *testing.T) {
	g := newGenerator(Options{Seed: 7})
	w := newWorld()
	seen := map[string]bool{}
	for range 20_000 {
		e := g.Next(w)
		if g.IntN(3) > 0 { // others are left out
			if w.apply(e) {
				seen[e.Kind] = true
			}
		}
		for _, gate := range w.places() {
			for _, levels := range []bool{true, false} {
				c := w.merged(gate, levels)
				if n, number := c.Require.(int); len(c.Clusters) == 0 || number && n > len(c.Clusters) {
					t.Fatalf("%s gives %+v %s, which Healthgate refuses", asJSON(e), gate, c)
				}
				if c.staleAfter() > 0 && (len(c.Clusters) != 1 || c.Clusters[0].Name != checked) {
					t.Fatalf("%s gives %+v %s: the model knows the age of %s alone", asJSON(e), gate, c, checked)
				}
			}
		}
	}
	for _, k := range kinds {
		if k.weight > 0 && !seen[k.name] {
			t.Errorf("no event %q in 20000", k.name)
		}
	}
}

func TestKindsThatAreLeftOutAreNotGenerated(t *testing.T) {
	without, err := parseWithout("freeze,reset,hold,stale")
	if err != nil {
		t.Fatal(err)
	}
	g, w := newGenerator(Options{Seed: 3, Without: without}), newWorld()
	for range 5000 {
		e := g.Next(w)
		w.apply(e)
		if without[e.Kind] || e.Kind == "long freeze" {
			t.Fatalf("got %s", asJSON(e))
		}
		if c := e.Config; c != nil && c.timed() {
			t.Fatalf("got %s", asJSON(e))
		}
	}
	if _, err := parseWithout("freezing"); err == nil {
		t.Error("an unknown kind is accepted")
	}
}

func TestEnvoysOwnFilterIsComparedIfItCanBeConfiguredAlike(t *testing.T) {
	for want, configs := range map[bool][]Config{
		true: {{Clusters: []Requirement{{Name: "own0", MinPercent: 50, Degraded: "count"}}, Require: "all", Drain: "fail", StaleAfter: "0s"}},
		false: {{Clusters: []Requirement{{Name: "own0", MinHealthy: 1}}}, {Drain: "ignore"}, {Require: "any"}, {Hold: &Hold{"0s", "1s"}},
			{Clusters: []Requirement{{Name: "own0", Excluded: "ignore"}}}, {StaleAfter: "2s"}},
	} {
		for _, c := range configs {
			if c.native() != want {
				t.Error(fmt.Sprint(c), "native:", c.native())
			}
		}
	}
}
