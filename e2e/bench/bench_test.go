package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSpreadIsMedianAndQuartiles(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{7}, Spread{7, 7, 7}},
		{[]float64{5, 1, 3, 2, 4}, Spread{3, 2, 4}},
		{[]float64{4, 1, 2, 3}, Spread{2.5, 1.75, 3.25}},
	} {
		if got := spreadOf(test.values); got != test.want {
			t.Errorf("%v: got %+v, want %+v", test.values, got, test.want)
		}
	}
}

// Noise in a whole round changes no ratio.
func TestRatiosAreTakenWithinARound(t *testing.T) {
	round := func(rate, worker float64) Round { return Round{Rate: rate, Worker: worker} }
	row := table("probes", []string{native, smallest, byModule}, map[string][]Round{
		native:   {round(1000, 10), round(100, 100), round(10, 1000)},
		smallest: {round(250, 16), round(25, 160), round(2.5, 1600)},
		byModule: {round(500, 20), round(50, 200), round(5, 2000)},
	}).Row(byModule)
	for name, test := range map[string]struct {
		got  Spread
		want float64
	}{
		"rate":               {row.RateRatio, 0.5},
		"worker":             {row.WorkerRatio, 2},
		"rate to smallest":   {row.RateToSmallest, 2},
		"worker to smallest": {row.WorkerToSmallest, 1.25},
	} {
		if want := (Spread{test.want, test.want, test.want}); test.got != want {
			t.Errorf("%s: got %+v, want %+v", name, test.got, want)
		}
	}
}

// scaleResults has one size in each table, changed by a test.
func scaleResults(change func(s *Scale)) *Results {
	watched := Watched{Checks: 100, Probes: 100}
	s := &Scale{}
	for _, rows := range []*[]*ScaleRow{&s.Clusters, &s.Chains, &s.Routes} {
		*rows = []*ScaleRow{
			{Size: 1, Envoy: withoutUs, MainPercent: 1, Starts: []float64{100}, Updates: []float64{10}, Watched: watched},
			{Size: 1, Envoy: withModule, MainPercent: 3.5, Starts: []float64{120}, Updates: []float64{12}, Watched: watched},
			{Size: 1, Envoy: withSmallest, MainPercent: 9, Starts: []float64{900}, Updates: []float64{90}, Watched: watched},
		}
	}
	change(s)
	return &Results{Scale: s}
}

func TestScaleMeetsItsGoals(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *Scale)
		missed string
	}{
		"at each bound":               {func(*Scale) {}, ""},
		"failures without Healthgate": {func(s *Scale) { s.Chains[0].Failed, s.Routes[2].Rejected = 3, 3 }, ""},
		"main thread by clusters":     {func(s *Scale) { s.Clusters[1].MainPercent = 3.6 }, "main thread"},
		"main thread by chains":       {func(s *Scale) { s.Chains[1].MainPercent = 3.6 }, "main thread"},
		"start":                       {func(s *Scale) { s.Chains[1].Starts = []float64{121} }, "start"},
		"listener":                    {func(s *Scale) { s.Chains[1].Updates = []float64{12.1} }, "update of the listener"},
		"routes":                      {func(s *Scale) { s.Routes[1].Updates = []float64{12.1} }, "update of the routes"},
		"routes are missing":          {func(s *Scale) { s.Routes = nil }, "update of the routes"},
		"a check":                     {func(s *Scale) { s.Routes[1].Failed = 1 }, "failed health checks"},
		"a probe is rejected":         {func(s *Scale) { s.Clusters[1].Rejected = 1 }, "probes not answered"},
		"a probe is lost":             {func(s *Scale) { s.Clusters[1].Lost = 1 }, "probes not answered"},
	} {
		goals := scaleResults(test.change).Goals()
		if len(goals) != 6 {
			t.Fatalf("%s: %d goals, want 6", name, len(goals))
		}
		for _, g := range goals {
			if missed := test.missed != "" && strings.Contains(g.What, test.missed); g.Met == missed {
				t.Errorf("%s: %+v", name, g)
			}
		}
	}
}

// `go -C e2e run ./bench -only none` writes the committed page and picture again.
func TestCommittedPageIsOfTheCommittedResults(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "results.json"), []byte(read(t, ".", "results.json")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), quick, "none", dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"results.json", "RESULTS.md", "cost.svg"} {
		if read(t, dir, name) != read(t, ".", name) {
			t.Errorf("%s is another", name)
		}
	}
}

func TestPartsThatWereNotMeasuredHaveNoGoals(t *testing.T) {
	results := &Results{}
	if goals := results.Goals(); len(goals) > 0 {
		t.Errorf("got %+v", goals)
	}
	page, err := results.markdown()
	if n := strings.Count(string(page), "Not measured."); err != nil || n != len(parts) {
		t.Errorf("%d sections say that they are not measured, want %d; %v", n, len(parts), err)
	}
}

func TestUnknownPartIsRefused(t *testing.T) {
	err := run(t.Context(), quick, "speed", t.TempDir())
	if err == nil || err.Error() != "-only speed: the parts are probes, scale; or none" {
		t.Errorf("got %v", err)
	}
}

// quick takes seconds and shows that all parts run. Its figures mean nothing.
var quick = settings{
	Rounds: 1, Load: 100 * time.Millisecond, Probes: 2000, Starts: 1, Window: time.Second,
	Clusters: []int{30}, RouteSize: 30, Overrides: 5, Chains: []int{2}, ChainedSize: 10, Updates: 1, Changes: 2,
}

func TestBenchRuns(t *testing.T) {
	dir := t.TempDir()
	if err := run(t.Context(), quick, "probes,scale", dir); err != nil {
		t.Fatal(err)
	}
	results := readResults(t, dir)
	t.Run("each contender answers", func(t *testing.T) {
		counts := map[string]int{}
		for _, table := range results.Probes.Sizes {
			for _, row := range table.Rows {
				counts[row.Contender]++
				if row.Rejected > row.Requests/2 && row.Contender != lua {
					t.Errorf("%s: %d of %d requests of %s were not answered with 200", table.Name, row.Rejected, row.Requests, row.Contender)
				}
				if row.Rate.Median <= 0 || row.Worker.Median <= 0 || row.P99.Median < row.P50.Median || row.Process.Median < row.Worker.Median {
					t.Errorf("%s: %+v", table.Name, row)
				}
			}
		}
		for _, contender := range []string{direct, native, smallest, byModule, emptyGo, byPlugin, lua} {
			if counts[contender] == 0 && (contender != emptyGo || results.Probes.Substitute) {
				t.Errorf("no figure of %s", contender)
			}
		}
	})
	t.Run("scale is measured", func(t *testing.T) { testScale(t, results.Scale) })
	t.Run("each goal has a figure", func(t *testing.T) {
		for _, g := range results.Goals() {
			if math.IsInf(g.Got, 0) || math.IsNaN(g.Got) {
				t.Errorf("%+v", g)
			}
		}
	})
	t.Run("a part that is not measured again keeps its figures", func(t *testing.T) {
		empty := quick
		empty.Clusters, empty.Chains = nil, nil
		if err := run(t.Context(), empty, "scale", dir); err != nil {
			t.Fatal(err)
		}
		after := readResults(t, dir)
		if len(after.Scale.Clusters) > 0 {
			t.Errorf("the part that was measured again has its old figures: %+v", after.Scale)
		}
		after.Scale = results.Scale
		if !reflect.DeepEqual(after, results) {
			t.Error("the figures of other parts have changed")
		}
	})
}

func testScale(t *testing.T, s *Scale) {
	if len(s.Clusters) != 3 || len(s.Chains) != 3 || len(s.Routes) != 3 {
		t.Fatalf("got %d, %d and %d rows", len(s.Clusters), len(s.Chains), len(s.Routes))
	}
	if gated := s.Clusters[1]; gated.Period <= 0 || len(gated.Delays) != quick.Changes {
		t.Errorf("no sample is counted, or a change was not answered: %+v", gated)
	}
	for _, row := range slices.Concat(s.Clusters, s.Chains, s.Routes) {
		if row.Probes == 0 || row.Lost > 0 {
			t.Errorf("%+v", row)
		}
	}
	for _, row := range slices.Concat(s.Clusters, s.Chains) {
		if row.MainPercent <= 0 || row.AllPercent < row.MainPercent || row.MiB <= 0 {
			t.Errorf("%+v", row)
		}
	}
	for _, row := range slices.Concat(s.Chains, s.Routes) {
		if len(row.Updates) != quick.Updates {
			t.Errorf("%+v", row)
		}
	}
}

func readResults(t *testing.T, dir string) *Results {
	t.Helper()
	results := &Results{}
	if err := json.Unmarshal([]byte(read(t, dir, "results.json")), results); err != nil {
		t.Fatal(err)
	}
	return results
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
