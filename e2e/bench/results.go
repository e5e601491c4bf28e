package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"healthgate/e2e/testbed"
)

// Results are the figures of all parts. A part that is not measured again keeps its figures in results.json.
type Results struct {
	Probes *Probes `json:"probes,omitempty"`
	Scale  *Scale  `json:"scale,omitempty"`
}

// Run says how a part was measured.
type Run struct {
	Date       string            `json:"date"`
	Command    string            `json:"command"`
	Host       string            `json:"host"`
	Versions   map[string]string `json:"versions"`
	Settings   settings          `json:"settings"`
	Substitute bool              `json:"contrib_host_of_the_tests"` // in place of contrib's golang extension
}

// Probes is the part about probes, and the memory of an Envoy after them.
type Probes struct {
	Run
	Sizes   []Table            `json:"sizes"`
	Memory  []Memory           `json:"memory"`
	FileMiB map[string]float64 `json:"file_mib"` // size of the plugin or module
}

// Memory is the memory of one Envoy after many probes.
type Memory struct {
	Size      string  `json:"size"`
	Contender string  `json:"contender"`
	MiB       float64 `json:"mib"`
}

// Scale is the part about many clusters, filter chains and route overrides.
type Scale struct {
	Run
	Clusters []ScaleRow `json:"clusters"`
	Chains   []ScaleRow `json:"chains"`
	Routes   []ScaleRow `json:"routes"`
	Errors   []string   `json:"errors"` // of sizes that could not be measured completely
}

// ScaleRow is one Envoy of one size. Figures that were not measured are 0 or empty. Times are in milliseconds.
type ScaleRow struct {
	Size        int       `json:"size"`
	Envoy       string    `json:"envoy"`
	MainPercent float64   `json:"main_percent"` // of a core
	AllPercent  float64   `json:"all_percent"`  // of a core, all threads of the process
	MiB         float64   `json:"mib"`
	Period      float64   `json:"period_ms"` // between two passes
	Delays      []float64 `json:"delays_ms"` // from a change of hosts to the reply that shows it
	Starts      []float64 `json:"starts_ms"`
	Updates     []float64 `json:"updates_ms"`
	Watched
}

// find returns the row of an Envoy of a size.
func find(rows []ScaleRow, size int, envoy string) ScaleRow {
	for _, row := range rows {
		if row.Size == size && row.Envoy == envoy {
			return row
		}
	}
	return ScaleRow{}
}

// Spread is the distribution of a figure over the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"` // first quartile
	Q3     float64 `json:"q3"` // third quartile
}

// spreadOf returns the distribution of values, zero without any.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	// Interpolated between the two nearest values.
	at := func(share float64) float64 {
		position := share * float64(len(sorted)-1)
		low := int(position)
		high := min(low+1, len(sorted)-1)
		return sorted[low] + (position-float64(low))*(sorted[high]-sorted[low])
	}
	return Spread{Median: at(0.5), Q1: at(0.25), Q3: at(0.75)}
}

func median(values []float64) float64 { return spreadOf(values).Median }

// Table is a comparison in Envoys of one size.
type Table struct {
	Name string `json:"name"`
	Rows []Row  `json:"rows"`
}

// Row is a contender of a comparison. Times are in microseconds, ratios to Envoy's own filter.
type Row struct {
	Contender   string `json:"contender"`
	Rate        Spread `json:"rate"`
	P50         Spread `json:"p50_us"`
	P99         Spread `json:"p99_us"`
	Worker      Spread `json:"worker_us"`
	Process     Spread `json:"process_us"`
	Load        Spread `json:"load_us"`
	Requests    int64  `json:"requests"`
	Rejected    int64  `json:"rejected"` // not answered with 200
	RateRatio   Spread `json:"rate_ratio"`
	WorkerRatio Spread `json:"worker_ratio"`
	// Ratios to the smallest contender that is loaded in the same way, if there is one.
	RateToSmallest   Spread `json:"rate_to_smallest"`
	WorkerToSmallest Spread `json:"worker_to_smallest"`
}

// table summarizes rounds. A ratio compares two contenders in the same round.
func table(name string, contenders []string, seen map[string][]Round) Table {
	t := Table{Name: name}
	for _, contender := range contenders {
		spread := func(figure func(r Round) float64) Spread {
			var values []float64
			for _, r := range seen[contender] {
				values = append(values, figure(r))
			}
			return spreadOf(values)
		}
		us := func(time func(r Round) time.Duration) Spread {
			return spread(func(r Round) float64 { return float64(time(r)) / 1e3 })
		}
		ratio := func(peer string, figure func(r Round) float64) Spread {
			var values []float64
			for i, other := range seen[peer] {
				values = append(values, figure(seen[contender][i])/figure(other))
			}
			return spreadOf(values)
		}
		var requests, rejected int64
		for _, r := range seen[contender] {
			requests += r.requests
			rejected += r.rejected
		}
		rate := func(r Round) float64 { return r.Rate }
		worker := func(r Round) float64 { return float64(r.Worker) }
		t.Rows = append(t.Rows, Row{
			Contender:        contender,
			Rate:             spread(rate),
			P50:              us(func(r Round) time.Duration { return r.P50 }),
			P99:              us(func(r Round) time.Duration { return r.P99 }),
			Worker:           us(func(r Round) time.Duration { return r.Worker }),
			Process:          us(func(r Round) time.Duration { return r.Process }),
			Load:             us(func(r Round) time.Duration { return r.Load }),
			Requests:         requests,
			Rejected:         rejected,
			RateRatio:        ratio(native, rate),
			WorkerRatio:      ratio(native, worker),
			RateToSmallest:   ratio(smallestLike[contender], rate),
			WorkerToSmallest: ratio(smallestLike[contender], worker),
		})
	}
	return t
}

// row returns the row of a contender, zero without one.
func (t Table) row(contender string) Row {
	for _, row := range t.Rows {
		if row.Contender == contender {
			return row
		}
	}
	return Row{}
}

// Goal is a goal, and whether it is met.
type Goal struct {
	What, Want string
	Got        float64
	Met        bool
}

type goals []Goal

func (g *goals) atLeast(what string, least, got float64) {
	*g = append(*g, Goal{what, fmt.Sprintf("≥ %g", least), got, got >= least})
}

func (g *goals) atMost(what string, most, got float64) {
	*g = append(*g, Goal{what, fmt.Sprintf("≤ %g", most), got, got <= most})
}

// goals returns the goals of the parts that were measured.
func (r *Results) goals() (g goals) {
	if r.Probes != nil {
		r.Probes.goals(&g)
	}
	if r.Scale != nil {
		r.Scale.goals(&g)
	}
	return g
}

func (p Probes) goals(g *goals) {
	base := p.Sizes[small]
	g.atMost("dynamic module: worker CPU per probe, ratio to the smallest module", 1.05, base.row(byModule).WorkerToSmallest.Median)
	if plugin := base.row(byPlugin); plugin.RateToSmallest.Median > 0 {
		g.atLeast("Go plugin: probes per second, ratio to an empty Go plugin", 0.95, plugin.RateToSmallest.Median)
	}
	for _, contender := range []string{byModule, byPlugin} {
		for _, t := range p.Sizes[hundred:] {
			flat := t.row(contender).WorkerRatio.Median / base.row(contender).WorkerRatio.Median
			g.atMost(contender+": worker CPU per probe, ratio to Envoy's own filter, with "+t.Name+" relative to 3 hosts", 1.10, flat)
		}
		g.atMost(contender+": memory after the probes, more than Envoy's own filter, MiB", 12, p.moreMemory(sizes[small].Name, contender))
		g.atMost(contender+": its file, MiB", 12, p.FileMiB[contender])
	}
}

// goals has one line for each kind of goal, with the worst figure of all sizes. A missing figure meets no goal.
func (s Scale) goals(g *goals) {
	worst := func(rows []ScaleRow, figure func(row, without ScaleRow) float64) (worst float64) {
		if len(rows) == 0 {
			return math.Inf(1)
		}
		for _, row := range rows {
			if row.Envoy != withoutUs {
				worst = max(worst, figure(row, find(rows, row.Size, withoutUs)))
			}
		}
		return worst
	}
	starts := func(row, without ScaleRow) float64 { return ratioOf(row.Starts, without.Starts) }
	updates := func(row, without ScaleRow) float64 { return ratioOf(row.Updates, without.Updates) }
	var watched Watched
	for _, row := range slices.Concat(s.Clusters, s.Chains, s.Routes) {
		if row.Envoy != withoutUs {
			watched.add(row.Watched)
		}
	}
	failed, unanswered := float64(watched.Failed), float64(watched.Rejected+watched.Lost)
	if watched.Checks == 0 || watched.Probes == 0 {
		failed, unanswered = math.Inf(1), math.Inf(1)
	}
	const at = "dynamic module, at any size: "
	g.atMost(at+"main thread, more than without, % of a core", 2.5, max(worst(s.Clusters, moreMain), worst(s.Chains, moreMain)))
	g.atMost(at+"start, ratio to without", 1.2, worst(s.Chains, starts))
	g.atMost(at+"update of the listener, ratio to without", 1.2, worst(s.Chains, updates))
	g.atMost(at+"update of the routes, ratio to without", 1.2, worst(s.Routes, updates))
	g.atMost(at+"failed health checks", 0, failed)
	g.atMost(at+"probes not answered with 200", 0, unanswered)
}

// moreMain returns how much more of a core the main thread uses.
func moreMain(row, without ScaleRow) float64 {
	if row.MainPercent == 0 || without.MainPercent == 0 {
		return math.Inf(1)
	}
	return row.MainPercent - without.MainPercent
}

// moreInAll returns how much more of a core all threads use, also for work that is not on the main thread.
func moreInAll(row, without ScaleRow) float64 {
	if row.AllPercent == 0 || without.AllPercent == 0 {
		return math.Inf(1)
	}
	return row.AllPercent - without.AllPercent
}

// ratioOf returns the ratio of two medians.
func ratioOf(values, to []float64) float64 {
	if len(values) == 0 || len(to) == 0 {
		return math.Inf(1)
	}
	return median(values) / median(to)
}

// moreMemory returns how much more memory an Envoy uses than the one with Envoy's own filter.
func (p Probes) moreMemory(size, contender string) float64 {
	used := map[string]float64{}
	for _, m := range p.Memory {
		if m.Size == size {
			used[m.Contender] = m.MiB
		}
	}
	return used[contender] - used[native]
}

// versions returns the versions of the programs that are run.
func versions() (map[string]string, error) {
	commit, err := exec.Command("git", "-C", testbed.Root(), "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		commit = []byte("unknown") // not a checkout
	}
	envoy, err := testbed.EnvoyVersion()
	if err != nil {
		return nil, err
	}
	return map[string]string{"healthgate": strings.TrimSpace(string(commit)), "go": runtime.Version(), "envoy": envoy}, nil
}

func hostName() string {
	model := "an unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s/%s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH)
}
