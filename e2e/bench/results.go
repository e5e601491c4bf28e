package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// Results are what a run has shown; results.json holds them.
type Results struct {
	Date        string            `json:"date"`
	Versions    map[string]string `json:"versions"`
	Host        string            `json:"host"`
	Bed         string            `json:"bed"` // what took the place of what
	Settings    settings          `json:"settings"`
	Connections int               `json:"connections"`
	Probes      []Table           `json:"probes"` // one for each scenario
	Latency     []Distribution    `json:"latency"`
	Checks      Table             `json:"checks"`
	Traffic     []Table           `json:"traffic"`
	Main        []Main            `json:"main_thread"` // one for each scenario
	Memory      []Memory          `json:"memory"`
	Objects     []Object          `json:"objects"`
	Hosts       Timeline          `json:"hosts_timeline"`
	Drain       Timeline          `json:"drain_timeline"`
	Targets     []Target          `json:"targets"`
}

// Table is one comparison.
type Table struct {
	Name string `json:"name"`
	Peer string `json:"peer"` // whom the ratios are to
	Rows []Row  `json:"rows"`
}

// Row is one contender of it. Times are microseconds.
type Row struct {
	Contender string `json:"contender"`
	Rate      Spread `json:"rate"`
	P50       Spread `json:"p50_us"`
	P99       Spread `json:"p99_us"`
	Worker    Spread `json:"worker_us"`
	Process   Spread `json:"process_us"`
	// To the peer in the same round.
	RateRatio    Spread `json:"rate_ratio"`
	WorkerRatio  Spread `json:"worker_ratio"`
	ProcessRatio Spread `json:"process_ratio"`
}

// Memory is that of one Envoy.
type Memory struct {
	Scenario          string  `json:"scenario"`
	Contender         string  `json:"contender"`
	StartMilliseconds Spread  `json:"start_ms"`
	IdleMiB           float64 `json:"idle_mib"`
	UsedMiB           float64 `json:"used_mib"`
}

// Main is what Envoy's main thread does while nobody asks anything, with the stock door and without.
type Main struct {
	Scenario       string `json:"scenario"`
	Gauges         int    `json:"gauges"`          // that Envoy has
	Percent        Spread `json:"percent"`         // of a core
	WithoutPercent Spread `json:"percent_without"` // of a core, in an Envoy with nothing of Healthgate's
	// Over all that was measured, since with very many gauges a look may come but once a second.
	OwnPercent float64 `json:"percent_own"`      // of a core, the door's
	Looks      float64 `json:"looks_per_second"` // at all gauges
	PerLook    float64 `json:"us_per_look"`      // of the door's time
}

// own is what of it is the door's.
func (m Main) own() float64 { return m.OwnPercent }

// Object is the file of a door.
type Object struct {
	Door string  `json:"door"`
	MiB  float64 `json:"mib"`
}

// Distribution is how long one contender's probes took, over all rounds.
type Distribution struct {
	Contender string       `json:"contender"`
	Points    [][2]float64 `json:"points"` // microseconds, and how many per cent took no longer
}

// distributions adds up the rounds.
func distributions(contenders []string, seen map[string][]Round) (all []Distribution) {
	for _, contender := range contenders {
		sum, n := latencies{}, int64(0)
		for _, r := range seen[contender] {
			for end, count := range r.latencies {
				sum[end] += count
				n += count
			}
		}
		d := Distribution{Contender: contender}
		before, so := -1.0, int64(0)
		for _, end := range slices.Sorted(maps.Keys(sum)) {
			so += sum[end]
			percent := 100 * float64(so) / float64(n)
			if percent-before >= 0.5 || percent > 98 { // what nobody could see is left out
				d.Points = append(d.Points, [2]float64{end, math.Round(1000*percent) / 1000})
				before = percent
			}
		}
		all = append(all, d)
	}
	return all
}

// Target is what was aimed at.
type Target struct {
	What string  `json:"what"`
	Want string  `json:"want"`
	Got  float64 `json:"got"`
	Met  bool    `json:"met"`
}

// table summarizes the rounds.
func table(name string, contenders []string, seen map[string][]Round, peer string) Table {
	t := Table{Name: name, Peer: peer}
	for _, contender := range contenders {
		of := func(figure func(r, peer Round) float64) Spread {
			var values []float64
			for i, r := range seen[contender] {
				values = append(values, figure(r, seen[peer][i]))
			}
			return spreadOf(values)
		}
		us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
		t.Rows = append(t.Rows, Row{
			Contender:    contender,
			Rate:         of(func(r, _ Round) float64 { return r.Rate }),
			P50:          of(func(r, _ Round) float64 { return us(r.P50) }),
			P99:          of(func(r, _ Round) float64 { return us(r.P99) }),
			Worker:       of(func(r, _ Round) float64 { return us(r.Worker) }),
			Process:      of(func(r, _ Round) float64 { return us(r.Process) }),
			RateRatio:    of(func(r, p Round) float64 { return r.Rate / p.Rate }),
			WorkerRatio:  of(func(r, p Round) float64 { return us(r.Worker) / us(p.Worker) }),
			ProcessRatio: of(func(r, p Round) float64 { return us(r.Process) / us(p.Process) }),
		})
	}
	return t
}

func (t Table) row(contender string) Row {
	if i := indexOf(t.Rows, contender); i >= 0 {
		return t.Rows[i]
	}
	return Row{}
}

// judge holds the results against what was aimed at.
func (r *Results) judge() {
	atLeast := func(what string, least, got float64) {
		r.Targets = append(r.Targets, Target{what, fmt.Sprintf(">= %.2f", least), got, got >= least})
	}
	atMost := func(what, want string, most, got float64) {
		r.Targets = append(r.Targets, Target{what, want, got, got <= most})
	}
	base := r.Probes[small]
	atLeast("contrib door: probes a second, to native's", 0.90, base.row(byContrib).RateRatio.Median)
	atLeast("stock door: probes a second, to native's", 0.97, base.row(byStock).RateRatio.Median)
	atMost("stock door: the worker's time a probe, to native's", "<= 1.12", 1.12, base.row(byStock).WorkerRatio.Median)
	for _, contender := range []string{byContrib, byStock} {
		for _, t := range r.Probes[hundred:] {
			flat := t.row(contender).WorkerRatio.Median / base.row(contender).WorkerRatio.Median
			atMost(doorOf(contender)+" door: the worker's time a probe with "+t.Name+", to that with 3 hosts (both to native's)", "<= 1.10", 1.10, flat)
		}
	}
	for _, t := range r.Traffic {
		for _, contender := range []string{byContrib, byStock} {
			w := t.row(contender).WorkerRatio
			same := w.Q1 <= 1 && w.Q3 >= 1 || w.Median >= 0.97 && w.Median <= 1.03
			r.Targets = append(r.Targets, Target{doorOf(contender) + " door: the worker's time for traffic, " + t.Name + ", to that without a filter",
				"1.00, by its quartiles or within 0.03", w.Median, same})
		}
	}
	atMost("stock door: of a core, the main thread with 1,000 more clusters, %", "<= 2.5", 2.5, r.Main[thousand].own())
	atMost("stock door: memory after the probes, more than Envoy's alone, MiB", "<= 9", 9, r.grown(scenarios[small].Name, byStock))
	atMost("stock door: its file, MiB", "<= 7", 7, r.Objects[1].MiB)
}

// grown is how much more memory an Envoy has with a door.
func (r *Results) grown(scenario, contender string) float64 {
	used := map[string]float64{}
	for _, m := range r.Memory {
		if m.Scenario == scenario {
			used[m.Contender] = m.UsedMiB
		}
	}
	return used[contender] - used[native]
}

// versions are those of what was run.
func versions() (map[string]string, error) {
	commit, err := exec.Command("git", "-C", bed.Root(), "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		commit = []byte("unknown") // not a checkout
	}
	envoy, err := bed.EnvoyVersion()
	if err != nil {
		return nil, err
	}
	return map[string]string{"healthgate": strings.TrimSpace(string(commit)), "go": runtime.Version(), "envoy": envoy}, nil
}

func hostOf() string {
	model := "an unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s/%s, shared by Envoy and the load", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH)
}

func bedOf(d door.Door) string {
	if !door.HasStandIn(d) {
		return "Both doors run as they are: the plugin by this Envoy's own golang extension, the dynamic module by any."
	}
	return "The stock door runs as it is. For the contrib door this Envoy lacks the golang extension: the stand-in (`e2e/standin`) takes its\n" +
		"place, and its cost is in that door's figures. The `empty plugin` shows that cost: it answers at once, without Go; the `empty plugin in\n" +
		"Go` does so by Envoy's Go SDK. The contrib host has code of its own in the stand-in's place, whose cost no run here has seen."
}
