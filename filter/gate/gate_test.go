package gate

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

// epoch is when a test starts.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fakeEnvoy is an Envoy whose stats a test sets.
type fakeEnvoy struct {
	mutex sync.Mutex
	stats map[string]*stat
	lines []string
	now   time.Time
	asked atomic.Int64 // how often for the time
}

type stat struct {
	value  atomic.Uint64
	broken bool // any use of it panics
	zeros  int  // how often it still reads 0, as if Envoy were about to write it
	reads  atomic.Uint64
}

func (s *stat) check() {
	if s.broken {
		panic("a bug")
	}
}

func (s *stat) Record(value uint64) { s.check(); s.value.Store(value) }
func (s *stat) Increment(by int64)  { s.check(); s.value.Add(uint64(by)) }
func (s *stat) Get() uint64 {
	s.check()
	s.reads.Add(1)
	if s.zeros > 0 {
		s.zeros--
		return 0
	}
	return s.value.Load()
}

func newFakeEnvoy() *fakeEnvoy {
	envoy := &fakeEnvoy{stats: map[string]*stat{}, now: epoch}
	envoy.set(envoystats.ServerLive, 1)
	return envoy
}

func (envoy *fakeEnvoy) stat(name string) *stat {
	envoy.mutex.Lock()
	defer envoy.mutex.Unlock()
	if envoy.stats[name] == nil {
		envoy.stats[name] = &stat{}
	}
	return envoy.stats[name]
}

func (envoy *fakeEnvoy) Gauge(name string) envoystats.Value   { return envoy.stat(name) }
func (envoy *fakeEnvoy) Counter(name string) envoystats.Value { return envoy.stat(name) }
func (envoy *fakeEnvoy) Now() time.Time                       { envoy.asked.Add(1); return envoy.now }
func (envoy *fakeEnvoy) NewCounter(name string) Counter       { return envoy.stat(name) }
func (envoy *fakeEnvoy) NewGauge(name string) SettableGauge   { return envoy.stat(name) }
func (envoy *fakeEnvoy) Info(line string)                     { envoy.log("info: " + line) }
func (envoy *fakeEnvoy) Warn(line string)                     { envoy.log("warn: " + line) }

func (envoy *fakeEnvoy) log(line string) {
	envoy.mutex.Lock()
	defer envoy.mutex.Unlock()
	envoy.lines = append(envoy.lines, line)
}

func (envoy *fakeEnvoy) set(name string, value uint64) { envoy.stat(name).Record(value) }

func (envoy *fakeEnvoy) setCluster(name string, c policy.Counts) {
	envoy.set("cluster."+name+".membership_healthy", c.Healthy)
	envoy.set("cluster."+name+".membership_degraded", c.Degraded)
	envoy.set("cluster."+name+".membership_total", c.Total)
}

// of returns the counts of a cluster.
func of(healthy, degraded, total uint64) policy.Counts {
	return policy.Counts{Healthy: healthy, Degraded: degraded, Total: total}
}

// counted returns the counters of the prefix default that are not 0, as "name=value".
func (envoy *fakeEnvoy) counted() (counted []string) {
	for name, s := range envoy.stats {
		if counter, ours := strings.CutPrefix(name, "healthgate.default."); ours && counter != "healthy" && s.Get() > 0 {
			counted = append(counted, fmt.Sprintf("%s=%d", counter, s.Get()))
		}
	}
	slices.Sort(counted)
	return counted
}

// decode returns a configuration, of the Go plugin unless a variant is given.
func decode(t testing.TB, text string, variant ...config.Variant) *config.Config {
	t.Helper()
	raw := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), raw); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	c, err := config.Decode(raw, append(variant, config.Plugin)[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newGate(t testing.TB, envoy Envoy, text string) *Gate {
	t.Helper()
	return newGateIn(decode(t, text), envoy, &Process{})
}

// newGateIn makes the gate of a configuration in a process.
func newGateIn(c *config.Config, envoy Envoy, process *Process) *Gate {
	return New(c, 0, newSource(c, envoy), envoy, process)
}

func newSource(c *config.Config, envoy Envoy) Source {
	return envoystats.NewSource(c.Clusters, c.StaleAfter, envoy, &envoystats.Ages{}, envoy.Now())
}

// answer compares the details of the gate's reply to a probe.
func answer(t *testing.T, when string, g *Gate, want string) {
	t.Helper()
	if got := g.Answer().Details; got != want {
		t.Errorf("%s: got %s, want %s", when, got, want)
	}
}

func TestIsProbe(t *testing.T) {
	for want, requests := range map[bool][]string{
		true: {
			"GET /healthz", "HEAD /healthz", "GET /healthz application/grpc", "GET /healthz?", "GET /healthz?x=1&y=?",
			"POST /healthz application/grpc", "POST /healthz?x=1 application/grpc", "POST /healthz application/grpc+proto",
		},
		false: {
			"POST /healthz", "POST /healthz application/json", "POST /healthz application/grpc-web", "POST /healthz application/grp",
			"POST /healthz application/grpc;charset=utf-8", "POST /healthz Application/grpc", "POST /x application/grpc",
			"PUT /healthz application/grpc", "get /healthz", "CONNECT /healthz", " /healthz", "GET /healthz/", "GET /healthz2",
			"GET /Healthz", "GET /", "GET ", "GET ?/healthz", "GET ?", "GET /x?/healthz", "GET http://h/healthz", "GET /healthz#fragment",
		},
	} {
		for _, request := range requests {
			t.Run(request, func(t *testing.T) {
				parts := append(strings.Split(request, " "), "")
				if got := IsProbe("/healthz", parts[0], parts[1], parts[2]); got != want {
					t.Errorf("got %v, want %v", got, want)
				}
			})
		}
	}
	if IsProbe("", "GET", "?x", "") != true { // a path that starts with its query is the empty one
		t.Error("the query of an empty path was not cut off")
	}
}

func TestAnswerIsCountedAndItsChangesAreLogged(t *testing.T) {
	envoy := newFakeEnvoy()
	g := newGate(t, envoy, `{"clusters": ["a", {"name": "b", "min_healthy_percent": 50}]}`)
	for i, step := range []struct {
		a, b policy.Counts
		live uint64
		want string // status, gRPC status, details, header
	}{
		{policy.Counts{}, policy.Counts{}, 1, "503 14 healthgate_cluster_empty"},
		{of(1, 0, 1), of(1, 0, 2), 1, "200 0 healthgate_ok"},
		{of(1, 0, 1), of(1, 0, 2), 1, "200 0 healthgate_ok"},
		{of(0, 1, 1), of(1, 0, 2), 1, "200 0 healthgate_ok x-envoy-degraded"},
		{of(1, 0, 1), of(1, 0, 3), 1, "503 14 healthgate_cluster_unhealthy"},
		{of(1, 0, 1), of(3, 0, 3), 0, "503 14 healthgate_draining x-envoy-immediate-health-check-fail"},
		{of(1, 0, 1), of(3, 0, 3), 1, "200 0 healthgate_ok"},
	} {
		envoy.setCluster("a", step.a)
		envoy.setCluster("b", step.b)
		envoy.set(envoystats.ServerLive, step.live)
		reply := g.Answer()
		got := fmt.Sprint(reply.Status, reply.GRPCStatus, " ", reply.Details)
		for header, values := range reply.Headers {
			if slices.Equal(values, []string{"true"}) {
				got += " " + header
			}
		}
		if got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
	want := []string{"failed=3", "failed_cluster_empty=1", "failed_cluster_unhealthy=1", "failed_draining=1", "ok=4", "transitions=3"}
	if got := envoy.counted(); !slices.Equal(got, want) {
		t.Errorf("got counters %v, want %v", got, want)
	}
	if got := envoy.stat("healthgate.default.healthy").Get(); got != 1 {
		t.Errorf("got gauge healthy %d, want 1", got)
	}
	numbers := func(a, b policy.Counts) string {
		return fmt.Sprintf(`: cluster "a" has %d healthy and %d degraded of %d hosts, cluster "b" has %d healthy and %d degraded of %d hosts`,
			a.Healthy, a.Degraded, a.Total, b.Healthy, b.Degraded, b.Total)
	}
	const gate = "info: healthgate: gate default "
	wantLines := []string{
		gate + "starts with 503 healthgate_cluster_empty" + numbers(policy.Counts{}, policy.Counts{}),
		gate + "changed from 503 to 200 healthgate_ok" + numbers(of(1, 0, 1), of(1, 0, 2)),
		gate + "changed from 200 to 503 healthgate_cluster_unhealthy" + numbers(of(1, 0, 1), of(1, 0, 3)),
		gate + "changed from 503 to 200 healthgate_ok" + numbers(of(1, 0, 1), of(3, 0, 3)),
	}
	if !slices.Equal(envoy.lines, wantLines) {
		t.Errorf("got lines\n%s\nwant\n%s", strings.Join(envoy.lines, "\n"), strings.Join(wantLines, "\n"))
	}
}

// Each step is what Envoy has of the cluster a at a time, in seconds, and the reply to a probe, or "" for an evaluation without one.
func TestVerdictOverTime(t *testing.T) {
	const serves, drains = 1, 0
	type step struct {
		at      int
		healthy uint64
		live    uint64
		want    string
	}
	for _, test := range []struct {
		name, more string
		steps      []step
		counted    string
		lines      int
	}{
		{"a drain wins", ``, []step{{0, 1, drains, "503 healthgate_draining"}, {1, 0, drains, "503 healthgate_draining"}},
			"[failed=2 failed_draining=2]", 1},
		{"a drain is ignored", `, "drain": "ignore"`,
			[]step{{0, 1, drains, "200 healthgate_ok"}, {1, 0, drains, "503 healthgate_cluster_unhealthy"}},
			"[failed=1 failed_cluster_unhealthy=1 ok=1 transitions=1]", 2},
		{"hold delays a change, but not a drain", `, "hold": {"unhealthy_after": "3s", "healthy_after": "10s"}`, []step{
			{0, 1, serves, "200 healthgate_ok"}, {1, 0, serves, "200 healthgate_held"}, {2, 0, drains, "503 healthgate_draining"},
			{3, 0, serves, "200 healthgate_held"}, {4, 0, serves, "503 healthgate_cluster_unhealthy"}, {5, 1, serves, "503 healthgate_held"},
			{15, 1, serves, "200 healthgate_ok"},
		}, "[failed=3 failed_cluster_unhealthy=1 failed_draining=1 ok=4 transitions=4]", 5},
		{"hold continues between probes", `, "hold": {"unhealthy_after": "2s"}`, []step{
			{0, 1, serves, "200 healthgate_ok"}, {1, 0, serves, ""}, {2, 0, serves, ""}, {3, 0, serves, ""},
			{3, 0, serves, "503 healthgate_cluster_unhealthy"},
		}, "[failed=1 failed_cluster_unhealthy=1 ok=1 transitions=1]", 2},
		{"hold does not delay the first reply", `, "hold": {"unhealthy_after": "10s", "healthy_after": "10s"}`, []step{
			{0, 0, serves, ""}, {1, 0, serves, ""}, {2, 1, serves, "200 healthgate_ok"}, {3, 0, serves, "200 healthgate_held"},
		}, "[ok=2]", 1},
		{"hold does not delay stale", `, "hold": {"unhealthy_after": "60s"}, "stale_after": "5s"`, []step{
			{0, 1, serves, "200 healthgate_ok"}, {2, 1, serves, ""}, {4, 1, serves, ""}, {6, 1, serves, "503 healthgate_stale"},
		}, "[failed=1 failed_stale=1 ok=1 transitions=1]", 2},
		// Without a probe it may belong to a listener that is still warming beside one that serves.
		{"without a probe nothing is written", `, "hold": {"unhealthy_after": "2s"}`,
			[]step{{0, 0, serves, ""}, {1, 1, serves, ""}, {2, 0, serves, ""}, {3, 1, serves, ""}}, "[]", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			envoy := newFakeEnvoy()
			g := newGate(t, envoy, `{"clusters": ["a"]`+test.more+`}`)
			for i, step := range test.steps {
				envoy.now = epoch.Add(time.Duration(step.at) * time.Second)
				envoy.setCluster("a", of(step.healthy, 0, 1))
				envoy.set(envoystats.ServerLive, step.live)
				if step.want == "" {
					g.Evaluate()
				} else if r := g.Answer(); fmt.Sprint(r.Status, " ", r.Details) != step.want {
					t.Errorf("step %d: got %d %s, want %s", i, r.Status, r.Details, step.want)
				}
			}
			if got := fmt.Sprint(envoy.counted()); got != test.counted || len(envoy.lines) != test.lines {
				t.Errorf("got counters %s and lines %q, want %s and %d lines", got, envoy.lines, test.counted, test.lines)
			}
		})
	}
}

func TestConfiguredResponsesAreSent(t *testing.T) {
	for _, test := range []struct {
		name, response    string
		passing           uint64
		status            int
		body              string
		typed, hasReports bool
	}{
		{"an empty body", `"healthy": {"status": 202, "body": ""}`, 1, 202, "", true, true},
		{"another body", `"unhealthy": {"status": 500, "body": "down"}`, 0, 500, "down", true, true},
		// A body after such a status would be read as the beginning of the next reply.
		{"204", `"healthy": {"status": 204}`, 1, 204, "", false, false},
		{"205", `"healthy": {"status": 205}`, 1, 205, "", false, false},
		{"a failure beside 204", `"healthy": {"status": 204}`, 0, 503, "unavailable\n", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			envoy := newFakeEnvoy()
			g := newGate(t, envoy, `{"clusters": ["a"], "response": {"details": true, `+test.response+`}}`)
			envoy.setCluster("a", of(test.passing, 0, 1))
			r := g.Answer()
			if r.Status != test.status || r.Body != test.body || (r.Headers["content-type"] != nil) != test.typed ||
				r.Headers["cache-control"] == nil {
				t.Errorf("got %d %q %v", r.Status, r.Body, r.Headers)
			}
			if r := g.Report(); r.Status != test.status || strings.HasPrefix(r.Body, "{") != test.hasReports || r.Headers["cache-control"] == nil {
				t.Errorf("got the report %d %q", r.Status, r.Body)
			}
			if r := g.Failure(); r.Status != g.config.Unhealthy.Status || r.Body != g.config.Unhealthy.Body || r.Details != "healthgate_error" {
				t.Errorf("got the failure %d %q %s", r.Status, r.Body, r.Details)
			}
		})
	}
	if r := FailClosed(); r.Status != 503 || r.Details != "healthgate_error" || r.GRPCStatus != 14 {
		t.Errorf("got %+v", r)
	}
}

func TestGateMadeDuringADrainAsksAnEarlierOne(t *testing.T) {
	envoy := newFakeEnvoy()
	envoy.setCluster("a", of(1, 0, 1))
	c := decode(t, `{"clusters": ["a"]}`)
	var process Process
	newGateIn(c, envoy, &process) // reads 1 when it is made
	envoy.set(envoystats.ServerLive, 0)
	answer(t, "made during a drain", newGateIn(c, envoy, &process), "healthgate_draining")
}

// drainSource is a source that knows of draining.
type drainSource struct {
	Source
	draining, known bool
}

func (d *drainSource) Draining() (draining, known bool) { return d.draining, d.known }

func TestSourceThatKnowsOfADrainDecides(t *testing.T) {
	envoy := newFakeEnvoy()
	envoy.set(envoystats.ServerLive, 0) // a stats matcher leaves it out
	envoy.setCluster("a", of(1, 0, 1))
	c := decode(t, `{"clusters": ["a"]}`)
	var process Process
	source := &drainSource{Source: newSource(c, envoy)}
	g := New(c, 0, source, envoy, &process)
	source.known = true
	for _, draining := range []bool{false, true, false} {
		source.draining = draining
		want := map[bool]string{true: "healthgate_draining", false: "healthgate_ok"}[draining]
		answer(t, fmt.Sprint("draining ", draining), g, want)
	}
	// Other gates see a drain, and this gate's stat is 0: the source decides, once it has sampled.
	visible := newFakeEnvoy()
	other := process.draining.NewReader(visible)
	other.OwnDraining()
	visible.set(envoystats.ServerLive, 0)
	other.OwnDraining()
	answer(t, "not draining by the source", g, "healthgate_ok")
	source.known = false
	answer(t, "unknown by the source", g, "healthgate_draining")
	// The gate's own stat is newer.
	source.known = true
	envoy.set(envoystats.ServerLive, 1)
	g.Answer()
	envoy.set(envoystats.ServerLive, 0)
	answer(t, "draining by the gate's own stat", g, "healthgate_draining")
}

func TestClockIsReadOnlyIfTheConfigurationNeedsIt(t *testing.T) {
	for more, want := range map[string]int64{
		``: 0, `, "hold": {"unhealthy_after": "1s"}`: 1, `, "hold": {"healthy_after": "1s"}`: 1, `, "stale_after": "1s"`: 1,
		`, "response": {"details": true}`: 1,
	} {
		t.Run(more, func(t *testing.T) {
			envoy := newFakeEnvoy()
			g := newGate(t, envoy, `{"clusters": ["a"]`+more+`}`)
			g.Answer() // the first one is a change
			envoy.asked.Store(0)
			g.Answer()
			if got := envoy.asked.Load(); got != want {
				t.Errorf("it was read %d times, want %d", got, want)
			}
		})
	}
}

func TestFailureIsConfirmedByASecondSample(t *testing.T) {
	for _, test := range []struct {
		name           string
		zeros          int
		want           string
		reads          uint64
		healthy, total uint64
	}{
		{"passes at once", 0, "healthgate_ok", 1, 2, 2},
		{"first sample between two writes", 1, "healthgate_ok", 2, 2, 2},
		{"fails twice", 2, "healthgate_cluster_unhealthy", 2, 2, 2},
		{"really fails", 0, "healthgate_cluster_unhealthy", 2, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			envoy := newFakeEnvoy()
			envoy.setCluster("a", of(test.healthy, 0, test.total))
			healthy := envoy.stat("cluster.a.membership_healthy")
			healthy.zeros = test.zeros
			g := newGate(t, envoy, `{"clusters": [{"name": "a", "min_healthy": 2}]}`)
			if got := g.Answer().Details; got != test.want || healthy.reads.Load() != test.reads {
				t.Errorf("got %s after %d reads, want %s after %d", got, healthy.reads.Load(), test.want, test.reads)
			}
		})
	}
}

// Each probe is counted, and the gauge agrees with the last verdict.
func TestConcurrentProbes(t *testing.T) {
	envoy := newFakeEnvoy()
	g := newGate(t, envoy, `{"clusters": ["a"]}`)
	const workers, probes = 8, 2000
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range probes {
				if w == 0 {
					envoy.set("cluster.a.membership_healthy", uint64(i%2))
					envoy.set("cluster.a.membership_total", 1)
				}
				g.Answer()
			}
		})
	}
	all.Wait()
	envoy.setCluster("a", of(1, 0, 1))
	g.Answer()
	if got := envoy.stat("healthgate.default.ok").Get() + envoy.stat("healthgate.default.failed").Get(); got != workers*probes+1 {
		t.Errorf("%d probes were counted, want %d", got, workers*probes+1)
	}
	if got := envoy.stat("healthgate.default.healthy").Get(); got != 1 {
		t.Errorf("the gauge is %d after a pass, want 1", got)
	}
	changes := envoy.stat("healthgate.default.transitions").Get()
	if got := uint64(len(envoy.lines)); got != changes+1 { // the first line is no transition
		t.Errorf("%d lines for %d transitions", got, changes)
	}
}

func TestAnswerAllocatesNothing(t *testing.T) {
	for _, more := range []string{
		``, `, "hold": {"unhealthy_after": "1s", "healthy_after": "1s"}`, `, "stale_after": "60s"`, `, "response": {"details": true}`,
	} {
		envoy := newFakeEnvoy()
		for _, cluster := range []string{"a", "b", "c"} {
			envoy.setCluster(cluster, of(1, 0, 1))
		}
		g := newGate(t, envoy, `{"clusters": ["a", "b", "c"], "path": "/healthz"`+more+`}`)
		g.Answer() // the first one is logged
		if allocated := testing.AllocsPerRun(1000, func() {
			if IsProbe("/healthz", "POST", "/healthz?x=1", "application/grpc+proto") {
				g.Answer()
			}
		}); allocated != 0 {
			t.Errorf("%s: an answer makes %v allocations, want 0", more, allocated)
		}
	}
}
