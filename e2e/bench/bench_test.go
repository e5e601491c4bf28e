package main

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
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
	rows := table("probes", []string{native, byStock}, map[string][]Round{
		native:  {round(1000, 10*time.Microsecond), round(100, 100*time.Microsecond), round(10, 1000*time.Microsecond)},
		byStock: {round(500, 20*time.Microsecond), round(50, 200*time.Microsecond), round(5, 2000*time.Microsecond)},
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
	if err := run(t.Context(), settings{Rounds: 1, Load: 50 * time.Millisecond, Probes: 2000, Starts: 1, Idle: 100 * time.Millisecond, Pace: 5, results: dir}); err != nil {
		t.Fatal(err)
	}
	if err := renderIn(dir); err != nil {
		t.Fatal(err)
	}
	results := &Results{}
	if err := json.Unmarshal([]byte(read(t, dir, "results.json")), results); err != nil {
		t.Fatal(err)
	}
	if len(results.Probes) != len(scenarios) || len(results.Traffic) != len(kinds) || len(results.Main) != len(scenarios) || len(results.Memory) != 6 || len(results.Targets) < 15 {
		t.Errorf("the results are %+v", results)
	}
	for _, table := range append(append(results.Probes, results.Traffic...), results.Checks) {
		for _, row := range table.Rows {
			if row.Rate.Median <= 0 || row.Worker.Median <= 0 || row.P99.Median < row.P50.Median || row.Process.Median < row.Worker.Median {
				t.Errorf("%s: %+v", table.Name, row)
			}
		}
	}
	for _, m := range results.Main {
		if m.Percent.Median <= 0 || m.Gauges == 0 {
			t.Errorf("the main thread: %+v", m)
		}
	}
	markdown := read(t, dir, "RESULTS.md")
	for _, part := range []string{"| healthgate, contrib door", "| healthgate, stock door", "| lua", "stand-in", "| unary, 64 KiB", "What was aimed at", "1,000 more clusters", "a host, through Envoy"} {
		if !strings.Contains(markdown, part) {
			t.Errorf("RESULTS.md lacks %q", part)
		}
	}
	t.Run("its timelines tell what happened", func(t *testing.T) { tell(t, results) })
	t.Run("its pictures can be read", func(t *testing.T) { picture(t, dir, results) })
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tell expects each timeline to have what it is for.
func tell(t *testing.T, results *Results) {
	values := func(s Series) (all []float64) {
		for _, point := range s.Points {
			if len(all) == 0 || all[len(all)-1] != point[1] {
				all = append(all, point[1])
			}
		}
		return all
	}
	hosts, drain := results.Hosts, results.Drain
	if got := values(hosts.Series[0]); !slices.Contains(got, 3) || !slices.Contains(got, 0) {
		t.Errorf("the hosts were %v", got)
	}
	for i := range 2 {
		if got := values(hosts.Series[1+i]); !slices.Contains(got, 200) || !slices.Contains(got, 503) {
			t.Errorf("%s was %v", hosts.Series[1+i].Name, got)
		}
	}
	if got := values(drain.Series[0]); len(got) < 3 || got[0] != 200 || got[1] != 503 || got[len(got)-1] != 0 {
		t.Errorf("the answers of a drain were %v", got)
	}
	if got := values(drain.Series[2]); slices.Max(got) < 2 || got[len(got)-1] != 0 {
		t.Errorf("the calls of a drain were %v", got)
	}
	var marks []string
	for _, mark := range drain.Marks {
		marks = append(marks, mark.Text)
	}
	if last := len(marks) - 1; last < 3 || marks[0] != "healthgate drain: the gate fails" || marks[last-1] != "SIGTERM" || marks[last] != "Envoy has ended" {
		t.Errorf("the marks of a drain are %q", marks)
	}
}

// picture expects pictures that are XML, have their axes' units, and are the same when they are made again.
func picture(t *testing.T, dir string, results *Results) {
	again, err := results.plots()
	if err != nil {
		t.Fatal(err)
	}
	for name, parts := range map[string][]string{
		"cost.svg":    {"µs", "1,000", "the Lua script", "healthgate, stock door"},
		"latency.svg": {"latency, µs", "%", "Envoy&#39;s own filter"},
		"hosts.svg":   {"time, s", "healthy hosts", "answer with hold", "503"},
		"drain.svg":   {"time, s", "calls under way", "SIGTERM"},
	} {
		text := read(t, dir, name)
		if text != string(again[name]) {
			t.Errorf("%s is another when it is made again", name)
		}
		if err := xml.Unmarshal([]byte(text), new(struct{})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %q", name, part)
			}
		}
	}
}
