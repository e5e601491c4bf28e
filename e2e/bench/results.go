package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"

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

// MiB returns the memory of an Envoy, zero if it was not measured.
func (p Probes) MiB(size, contender string) float64 {
	return first(p.Memory, func(m Memory) bool { return m.Size == size && m.Contender == contender }).MiB
}

// Scale is the part about many clusters, filter chains and route overrides.
type Scale struct {
	Run
	Clusters []*ScaleRow `json:"clusters"`
	Chains   []*ScaleRow `json:"chains"`
	Routes   []*ScaleRow `json:"routes"`
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

// ours reports whether the row is of an Envoy with Healthgate.
func (r *ScaleRow) ours() bool { return r.Envoy == withModule || r.Envoy == withStale }

// Watched counts an Envoy's health checks and a prober's probes while something was measured. All hosts are healthy then, so a failed check
// is false, and so is a probe that is not answered with 200.
type Watched struct {
	Checks   int64 `json:"checks"`
	Failed   int64 `json:"failed_checks"`
	Probes   int64 `json:"probes"`
	Rejected int64 `json:"rejected_probes"` // answered, with another status than 200
	Lost     int64 `json:"lost_probes"`     // not answered
}

func (w *Watched) add(other Watched) {
	w.Checks += other.Checks
	w.Failed += other.Failed
	w.Probes += other.Probes
	w.Rejected += other.Rejected
	w.Lost += other.Lost
}

// without returns the row of the Envoy without Healthgate of the same size.
func without(rows []*ScaleRow, row *ScaleRow) *ScaleRow {
	return first(rows, func(r *ScaleRow) bool { return r.Size == row.Size && r.Envoy == withoutUs })
}

// first returns the first value that fits, zero without one.
func first[V any](values []V, fits func(V) bool) (found V) {
	if i := slices.IndexFunc(values, fits); i >= 0 {
		found = values[i]
	}
	return found
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
		row := Row{Contender: contender}
		for _, r := range seen[contender] {
			row.Requests += r.requests
			row.Rejected += r.rejected
		}
		figures := func(of string, figure func(Round) float64) (values []float64) {
			for _, r := range seen[of] {
				values = append(values, figure(r))
			}
			return values
		}
		spread := func(figure func(Round) float64) Spread { return spreadOf(figures(contender, figure)) }
		ratio := func(peer string, figure func(Round) float64) Spread {
			values, others := figures(contender, figure), figures(peer, figure)
			for i, other := range others {
				values[i] /= other
			}
			return spreadOf(values[:len(others)])
		}
		rate := func(r Round) float64 { return r.Rate }
		worker := func(r Round) float64 { return r.Worker }
		row.Rate, row.RateRatio, row.RateToSmallest = spread(rate), ratio(native, rate), ratio(smallestLike[contender], rate)
		row.Worker, row.WorkerRatio, row.WorkerToSmallest = spread(worker), ratio(native, worker), ratio(smallestLike[contender], worker)
		row.P50 = spread(func(r Round) float64 { return r.P50 })
		row.P99 = spread(func(r Round) float64 { return r.P99 })
		row.Process = spread(func(r Round) float64 { return r.Process })
		row.Load = spread(func(r Round) float64 { return r.Load })
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Row returns the row of a contender, zero without one.
func (t Table) Row(contender string) Row {
	return first(t.Rows, func(r Row) bool { return r.Contender == contender })
}

// Goal is a goal, and whether it is met.
type Goal struct {
	What, Want string
	Got        float64
	Met        bool
}

func atLeast(what string, least, got float64) Goal {
	return Goal{what, fmt.Sprintf("≥ %g", least), got, got >= least}
}

func atMost(what string, most, got float64) Goal {
	return Goal{what, fmt.Sprintf("≤ %g", most), got, got <= most}
}

// Goals returns the goals of the parts that were measured.
func (r *Results) Goals() (g []Goal) {
	if r.Probes != nil {
		g = r.Probes.goals()
	}
	if r.Scale != nil {
		g = append(g, r.Scale.goals()...)
	}
	return g
}

func (p Probes) goals() []Goal {
	base := p.Sizes[small]
	g := []Goal{atMost("dynamic module: worker CPU per probe, ratio to the smallest module", 1.05, base.Row(byModule).WorkerToSmallest.Median)}
	if plugin := base.Row(byPlugin); plugin.RateToSmallest.Median > 0 {
		g = append(g, atLeast("Go plugin: probes per second, ratio to an empty Go plugin", 0.95, plugin.RateToSmallest.Median))
	}
	for _, contender := range []string{byModule, byPlugin} {
		for _, t := range p.Sizes[hundred:] {
			flat := t.Row(contender).WorkerRatio.Median / base.Row(contender).WorkerRatio.Median
			g = append(g, atMost(contender+": worker CPU per probe, ratio to Envoy's own filter, with "+t.Name+" relative to 3 hosts", 1.10, flat))
		}
		more := p.MiB(base.Name, contender) - p.MiB(base.Name, native)
		g = append(g, atMost(contender+": memory after the probes, more than Envoy's own filter, MiB", 12, more),
			atMost(contender+": its file, MiB", 12, p.FileMiB[contender]))
	}
	return g
}

// goals has one line for each kind of goal, with the worst figure of all sizes. Without one it is infinite.
func (s Scale) goals() []Goal {
	worst := func(rows []*ScaleRow, figure func(row, without *ScaleRow) float64) (worst float64) {
		if len(rows) == 0 {
			return math.Inf(1)
		}
		for _, row := range rows {
			if row.ours() {
				worst = max(worst, figure(row, without(rows, row)))
			}
		}
		return worst
	}
	main := func(row, without *ScaleRow) float64 { return row.MainPercent - without.MainPercent }
	starts := func(row, without *ScaleRow) float64 { return ratio(row.Starts, without.Starts) }
	updates := func(row, without *ScaleRow) float64 { return ratio(row.Updates, without.Updates) }
	var watched Watched
	for _, row := range slices.Concat(s.Clusters, s.Chains, s.Routes) {
		if row.ours() {
			watched.add(row.Watched)
		}
	}
	const at = "dynamic module, at any size: "
	return []Goal{
		atMost(at+"main thread, more than without, % of a core", 2.5, max(worst(s.Clusters, main), worst(s.Chains, main))),
		atMost(at+"start, ratio to without", 1.2, worst(s.Chains, starts)),
		atMost(at+"update of the listener, ratio to without", 1.2, worst(s.Chains, updates)),
		atMost(at+"update of the routes, ratio to without", 1.2, worst(s.Routes, updates)),
		atMost(at+"failed health checks", 0, float64(watched.Failed)),
		atMost(at+"probes not answered with 200", 0, float64(watched.Rejected+watched.Lost)),
	}
}

// ratio returns the ratio of two medians.
func ratio(values, to []float64) float64 { return median(values) / median(to) }

// versions returns the versions of the programs that are run.
func versions() (map[string]string, error) {
	commit, err := exec.Command("git", "-C", testbed.Root(), "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		commit = []byte("unknown") // not a checkout
	}
	envoy, err := testbed.EnvoyVersion()
	return map[string]string{"healthgate": strings.TrimSpace(string(commit)), "go": runtime.Version(), "envoy": envoy}, err
}

func hostName() string {
	model := "an unknown processor"
	text, _ := os.ReadFile("/proc/cpuinfo")
	if line := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); line != nil {
		model = string(line[1])
	}
	return fmt.Sprintf("%d cores of %s, %s/%s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH)
}
