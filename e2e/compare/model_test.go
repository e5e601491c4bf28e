package main

import "testing"

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
				t.Errorf("%s: native is %v", c, c.native())
			}
		}
	}
}
