package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSpreadIsTheMedianAndTheQuartiles(t *testing.T) {
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

// A ratio is that of two contenders in the same round: noise that hits a whole round does not count.
func TestRatiosAreTakenWithinARound(t *testing.T) {
	round := func(rate float64, worker time.Duration) Round {
		return Round{Rate: rate, Worker: worker, Process: worker}
	}
	rows := table("probes", []string{native, gate}, map[string][]Round{
		native: {round(1000, 10*time.Microsecond), round(100, 100*time.Microsecond), round(10, 1000*time.Microsecond)},
		gate:   {round(500, 20*time.Microsecond), round(50, 200*time.Microsecond), round(5, 2000*time.Microsecond)},
	}, native).Rows
	if got, want := rows[1].RateRatio, (Spread{0.5, 0.5, 0.5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := rows[1].WorkerRatio, (Spread{2, 2, 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// All of it, for moments: that it runs, that each contender answers, and that what it writes can be read. What it measures here
// says nothing.
func TestBenchRuns(t *testing.T) {
	dir := t.TempDir()
	if err := run(t.Context(), settings{Rounds: 1, Load: 50 * time.Millisecond, Probes: 2000, Starts: 1, results: dir}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var results Results
	if err := json.Unmarshal(text, &results); err != nil {
		t.Fatal(err)
	}
	if len(results.Probes) != len(scenarios) || len(results.Traffic) != len(kinds) || len(results.Memory) != 2 || len(results.Targets) < 10 {
		t.Errorf("the results are %s", text)
	}
	for _, table := range append(results.Probes, results.Traffic...) {
		for _, row := range table.Rows {
			if row.Rate.Median <= 0 || row.Worker.Median <= 0 || row.P99.Median < row.P50.Median || row.Process.Median < row.Worker.Median {
				t.Errorf("%s: %+v", table.Name, row)
			}
		}
	}
	markdown, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"| healthgate", "| lua", "stand-in", "| unary, 64 KiB", "What was aimed at"} {
		if !strings.Contains(string(markdown), part) {
			t.Errorf("RESULTS.md lacks %q", part)
		}
	}
}
