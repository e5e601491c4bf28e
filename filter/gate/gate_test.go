package gate

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/policy"
)

// epoch is when a test begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fakeHost is a host whose stats a test sets.
type fakeHost struct {
	mutex    sync.Mutex
	gauges   map[string]*number
	counters map[string]*number
	own      map[string]*number
	lines    []string
	now      time.Time
}

type number struct {
	mutex sync.Mutex
	value uint64
}

func (n *number) Get() uint64 {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.value
}

func (n *number) Record(value uint64) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.value = value
}

func (n *number) Increment(by int64) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.value += uint64(by)
}

func newFakeHost() *fakeHost {
	h := &fakeHost{gauges: map[string]*number{}, counters: map[string]*number{}, own: map[string]*number{}, now: epoch}
	h.set(envoystats.ServerLive, 1)
	return h
}

func named(numbers map[string]*number, name string) *number {
	if numbers[name] == nil {
		numbers[name] = &number{}
	}
	return numbers[name]
}

func (h *fakeHost) Gauge(name string) envoystats.Value   { return named(h.gauges, name) }
func (h *fakeHost) Counter(name string) envoystats.Value { return named(h.gauges, name) }
func (h *fakeHost) Now() time.Time                       { return h.now }
func (h *fakeHost) NewCounter(name string) Counter       { return named(h.counters, name) }
func (h *fakeHost) NewGauge(name string) SettableGauge   { return named(h.own, name) }
func (h *fakeHost) Info(line string)                     { h.log("info: " + line) }
func (h *fakeHost) Warn(line string)                     { h.log("warn: " + line) }

func (h *fakeHost) log(line string) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.lines = append(h.lines, line)
}

func (h *fakeHost) set(gauge string, value uint64) { named(h.gauges, gauge).Record(value) }

func (h *fakeHost) setCluster(name string, c policy.Counts) {
	h.set("cluster."+name+".membership_healthy", c.Healthy)
	h.set("cluster."+name+".membership_degraded", c.Degraded)
	h.set("cluster."+name+".membership_total", c.Total)
}

// of returns the counts of a cluster.
func of(healthy, degraded, total uint64) policy.Counts {
	return policy.Counts{Healthy: healthy, Degraded: degraded, Total: total}
}

// counted returns the counters that are not 0, as "name=value".
func (h *fakeHost) counted() []string {
	var counted []string
	for name, n := range h.counters {
		if n.value > 0 {
			counted = append(counted, fmt.Sprintf("%s=%d", strings.TrimPrefix(name, "healthgate.default."), n.value))
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

func newGate(t testing.TB, h Envoy, text string) *Gate {
	t.Helper()
	return newGateIn(decode(t, text), h, &Process{})
}

// newGateIn makes the gate of a configuration in a process.
func newGateIn(c *config.Config, h Envoy, process *Process) *Gate {
	return New(c, 0, newSource(c, h), h, process)
}

func newSource(c *config.Config, h Envoy) Source {
	return envoystats.NewSource(c.Clusters, c.StaleAfter, h, &envoystats.Ages{}, h.Now())
}

func TestIsProbe(t *testing.T) {
	for _, test := range []struct {
		method, path, contentType string
		want                      bool
	}{
		{"GET", "/healthz", "", true},
		{"HEAD", "/healthz", "", true},
		{"GET", "/healthz", "application/grpc", true},
		{"GET", "/healthz?", "", true},
		{"GET", "/healthz?x=1&y=?", "", true},
		{"POST", "/healthz", "application/grpc", true},
		{"POST", "/healthz?x=1", "application/grpc", true},
		{"POST", "/healthz", "application/grpc+proto", true},
		{"POST", "/healthz", "", false},
		{"POST", "/healthz", "application/json", false},
		{"POST", "/healthz", "application/grpc-web", false},
		{"POST", "/healthz", "application/grpc;charset=utf-8", false},
		{"POST", "/healthz", "application/grp", false},
		{"POST", "/healthz", "Application/grpc", false},
		{"POST", "/x", "application/grpc", false},
		{"PUT", "/healthz", "application/grpc", false},
		{"get", "/healthz", "", false},
		{"CONNECT", "/healthz", "", false},
		{"", "/healthz", "", false},
		{"GET", "/healthz/", "", false},
		{"GET", "/healthz2", "", false},
		{"GET", "/Healthz", "", false},
		{"GET", "/", "", false},
		{"GET", "", "", false},
		{"GET", "?/healthz", "", false},
		{"GET", "?", "", false},
		{"GET", "/x?/healthz", "", false},
		{"GET", "http://h/healthz", "", false},
		{"GET", "/healthz#fragment", "", false},
	} {
		t.Run(test.method+" "+test.path+" "+test.contentType, func(t *testing.T) {
			if got := IsProbe("/healthz", test.method, test.path, test.contentType); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	if IsProbe("", "GET", "?x", "") != true { // a path that starts with its query is the empty one
		t.Error("the query of an empty path was not cut off")
	}
}

func TestAnswerIsCountedLoggedOnChangeAndPutIntoWords(t *testing.T) {
	h := newFakeHost()
	g := newGate(t, h, `{"clusters": ["a", {"name": "b", "min_healthy_percent": 50}]}`)
	for i, step := range []struct {
		a, b    policy.Counts
		live    uint64
		details string
		header  string
	}{
		{policy.Counts{}, policy.Counts{}, 1, "healthgate_cluster_empty", ""},
		{of(1, 0, 1), of(1, 0, 2), 1, "healthgate_ok", ""},
		{of(1, 0, 1), of(1, 0, 2), 1, "healthgate_ok", ""},
		{of(0, 1, 1), of(1, 0, 2), 1, "healthgate_ok", "x-envoy-degraded"},
		{of(1, 0, 1), of(1, 0, 3), 1, "healthgate_cluster_unhealthy", ""},
		{of(1, 0, 1), of(3, 0, 3), 0, "healthgate_draining", "x-envoy-immediate-health-check-fail"},
		{of(1, 0, 1), of(3, 0, 3), 1, "healthgate_ok", ""},
	} {
		h.setCluster("a", step.a)
		h.setCluster("b", step.b)
		h.set(envoystats.ServerLive, step.live)
		reply := g.Answer()
		if reply.Details != step.details {
			t.Errorf("step %d: got %s, want %s", i, reply.Details, step.details)
		}
		for _, header := range []string{"x-envoy-degraded", "x-envoy-immediate-health-check-fail"} {
			want := ""
			if header == step.header {
				want = "true"
			}
			if got := strings.Join(reply.Headers[header], ""); got != want {
				t.Errorf("step %d: got %s %q, want %q", i, header, got, want)
			}
		}
		pass := step.details == "healthgate_ok"
		if want := map[bool]int{true: 200, false: 503}[pass]; reply.Status != want {
			t.Errorf("step %d: got status %d, want %d", i, reply.Status, want)
		}
		if want := map[bool]int64{true: 0, false: 14}[pass]; reply.GRPCStatus != want {
			t.Errorf("step %d: got gRPC status %d, want %d", i, reply.GRPCStatus, want)
		}
	}
	want := []string{"failed=3", "failed_cluster_empty=1", "failed_cluster_unhealthy=1", "failed_draining=1", "ok=4", "transitions=3"}
	if got := h.counted(); !slices.Equal(got, want) {
		t.Errorf("got counters %v, want %v", got, want)
	}
	if got := h.own["healthgate.default.healthy"].Get(); got != 1 {
		t.Errorf("got gauge healthy %d, want 1", got)
	}
	wantLines := []string{
		`info: healthgate: gate default starts with 503 healthgate_cluster_empty: cluster "a" has 0 healthy and 0 degraded of 0 hosts, cluster "b" has 0 healthy and 0 degraded of 0 hosts`,
		`info: healthgate: gate default turns from 503 to 200 healthgate_ok: cluster "a" has 1 healthy and 0 degraded of 1 hosts, cluster "b" has 1 healthy and 0 degraded of 2 hosts`,
		`info: healthgate: gate default turns from 200 to 503 healthgate_cluster_unhealthy: cluster "a" has 1 healthy and 0 degraded of 1 hosts, cluster "b" has 1 healthy and 0 degraded of 3 hosts`,
		`info: healthgate: gate default turns from 503 to 200 healthgate_ok: cluster "a" has 1 healthy and 0 degraded of 1 hosts, cluster "b" has 3 healthy and 0 degraded of 3 hosts`,
	}
	if !slices.Equal(h.lines, wantLines) {
		t.Errorf("got lines\n%s\nwant\n%s", strings.Join(h.lines, "\n"), strings.Join(wantLines, "\n"))
	}
}

func TestDrainingWinsUnlessIgnored(t *testing.T) {
	for _, test := range []struct {
		drain   string
		healthy uint64
		want    string
	}{
		{"fail", 1, "healthgate_draining"}, {"fail", 0, "healthgate_draining"},
		{"ignore", 1, "healthgate_ok"}, {"ignore", 0, "healthgate_cluster_unhealthy"},
	} {
		t.Run(fmt.Sprintf("drain: %s with %d healthy", test.drain, test.healthy), func(t *testing.T) {
			h := newFakeHost()
			g := newGate(t, h, fmt.Sprintf(`{"clusters": ["a"], "drain": %q}`, test.drain))
			h.setCluster("a", of(test.healthy, 0, 1))
			h.set(envoystats.ServerLive, 0)
			if got := g.Answer().Details; got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestConfiguredResponsesAreSent(t *testing.T) {
	h := newFakeHost()
	g := newGate(t, h, `{"clusters": ["a"], "response": {"healthy": {"status": 202, "body": ""}, "unhealthy": {"status": 500, "body": "down"}}}`)
	if r := g.Answer(); r.Status != 500 || r.Body != "down" {
		t.Errorf("got %d %q", r.Status, r.Body)
	}
	if r := g.Failure(); r.Status != 500 || r.Body != "down" || r.Details != "healthgate_error" {
		t.Errorf("got %d %q %s", r.Status, r.Body, r.Details)
	}
	h.setCluster("a", of(1, 0, 1))
	if r := g.Answer(); r.Status != 202 || r.Body != "" || r.Headers["content-type"] == nil {
		t.Errorf("got %d %q %v", r.Status, r.Body, r.Headers)
	}
	if r := FailClosed(); r.Status != 503 || r.Details != "healthgate_error" || r.GRPCStatus != 14 {
		t.Errorf("got %+v", r)
	}
}

// A body after such a status would be read as the beginning of the next reply.
func TestStatusWithoutABodyHasNone(t *testing.T) {
	for _, status := range []int{204, 205} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			h := newFakeHost()
			g := newGate(t, h, fmt.Sprintf(`{"clusters": ["a"], "response": {"healthy": {"status": %d}, "details": true}}`, status))
			h.setCluster("a", of(1, 0, 1))
			for name, r := range map[string]*Reply{"answer": g.Answer(), "report": g.Report()} {
				if r.Status != status || r.Body != "" || r.Headers["content-type"] != nil || r.Headers["cache-control"] == nil {
					t.Errorf("%s: got %d %q %v", name, r.Status, r.Body, r.Headers)
				}
			}
			h.setCluster("a", of(0, 0, 1))
			if r := g.Report(); r.Status != 503 || !strings.Contains(r.Body, `"fail"`) {
				t.Errorf("got %d %q, want a report of the failure", r.Status, r.Body)
			}
		})
	}
}

func TestGateMadeDuringADrainKnowsOfItFromAnEarlierOne(t *testing.T) {
	h := newFakeHost()
	h.setCluster("a", of(1, 0, 1))
	c := decode(t, `{"clusters": ["a"]}`)
	var process Process
	newGateIn(c, h, &process) // sees live at 1, though it is never asked
	h.set(envoystats.ServerLive, 0)
	if r := newGateIn(c, h, &process).Answer(); r.Details != "healthgate_draining" {
		t.Errorf("got %s, want healthgate_draining", r.Details)
	}
}

// drainSource is a source that has been told.
type drainSource struct {
	Source
	draining, known bool
}

func (d *drainSource) Draining() (draining, known bool) { return d.draining, d.known }

func TestSourceThatKnowsOfADrainIsBelieved(t *testing.T) {
	h := newFakeHost()
	h.set(envoystats.ServerLive, 0) // left out of the stats
	h.setCluster("a", of(1, 0, 1))
	c := decode(t, `{"clusters": ["a"]}`)
	var process Process
	source := &drainSource{Source: envoystats.NewSource(c.Clusters, c.StaleAfter, h, &envoystats.Ages{}, h.Now())}
	g := New(c, 0, source, h, &process)
	source.known = true
	for _, draining := range []bool{false, true, false} {
		source.draining = draining
		want := map[bool]string{true: "healthgate_draining", false: "healthgate_ok"}[draining]
		if got := g.Answer().Details; got != want {
			t.Errorf("draining %v: got %s, want %s", draining, got, want)
		}
	}
	// Others of the process see a drain, and this one's stat is 0: the source knows better, once it has looked.
	visible := newFakeHost()
	other := process.draining.NewReader(visible)
	other.Own()
	visible.set(envoystats.ServerLive, 0)
	other.Own()
	if got := g.Answer().Details; got != "healthgate_ok" {
		t.Errorf("the source says that there is no drain: got %s", got)
	}
	source.known = false
	if got := g.Answer().Details; got != "healthgate_draining" {
		t.Errorf("the source does not know: got %s", got)
	}
	// What the gate's own stat shows is the fresher.
	source.known = true
	h.set(envoystats.ServerLive, 1)
	g.Answer()
	h.set(envoystats.ServerLive, 0)
	if got := g.Answer().Details; got != "healthgate_draining" {
		t.Errorf("the gate's own stat shows a drain: got %s", got)
	}
}

// A hold in one direction alone is a hold.
func TestHoldOfOneDirectionHoldsThat(t *testing.T) {
	for _, test := range []struct {
		name, hold     string
		down, up       string // what a change is answered with at first
		after, afterUp string
	}{
		{"unhealthy_after", `{"unhealthy_after": "2s"}`, "healthgate_held", "healthgate_ok", "healthgate_cluster_unhealthy", "healthgate_ok"},
		{"healthy_after", `{"healthy_after": "2s"}`, "healthgate_cluster_unhealthy", "healthgate_held", "healthgate_cluster_unhealthy", "healthgate_ok"},
		{"neither", `{}`, "healthgate_cluster_unhealthy", "healthgate_ok", "healthgate_cluster_unhealthy", "healthgate_ok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHost()
			h.setCluster("a", of(1, 0, 1))
			g := newGate(t, h, `{"clusters": ["a"], "hold": `+test.hold+`}`)
			for i, step := range []struct {
				at      int // seconds
				healthy uint64
				want    string
			}{{0, 1, "healthgate_ok"}, {1, 0, test.down}, {3, 0, test.after}, {4, 1, test.up}, {6, 1, test.afterUp}} {
				h.now = epoch.Add(time.Duration(step.at) * time.Second)
				h.setCluster("a", of(step.healthy, 0, 1))
				if got := g.Answer().Details; got != step.want {
					t.Errorf("step %d: got %s, want %s", i, got, step.want)
				}
			}
		})
	}
}

// clocked counts how often the clock is read.
type clocked struct {
	constants
	reads int
}

func (c *clocked) Now() time.Time { c.reads++; return epoch }

// Reading a clock is not free.
func TestClockIsReadWhereTheConfigurationAsksForIt(t *testing.T) {
	for more, want := range map[string]int{
		``: 0, `, "hold": {"unhealthy_after": "1s"}`: 1, `, "hold": {"healthy_after": "1s"}`: 1, `, "stale_after": "1s"`: 1, `, "response": {"details": true}`: 1,
	} {
		t.Run(more, func(t *testing.T) {
			h := &clocked{}
			g := newGate(t, h, `{"clusters": ["a"]`+more+`}`)
			g.Answer() // the first is a change
			h.reads = 0
			g.Answer()
			if h.reads != want {
				t.Errorf("got %d reads, want %d", h.reads, want)
			}
		})
	}
}

// between is a gauge that a reader meets while Envoy writes it, so many times.
type between struct {
	number
	times, meets int
}

func (b *between) Get() uint64 {
	value := b.number.Get()
	if b.meets++; b.meets <= b.times {
		return 0
	}
	return value
}

// betweenHost is a host with such a gauge.
type betweenHost struct {
	*fakeHost
	gauge *between
}

func (h betweenHost) Gauge(name string) envoystats.Value {
	if name == "cluster.a.membership_healthy" {
		return h.gauge
	}
	return h.fakeHost.Gauge(name)
}

func TestFailureIsGivenOnlyAfterASecondRead(t *testing.T) {
	for _, test := range []struct {
		name           string
		times          int
		want           string
		reads          int
		healthy, total uint64
	}{
		{"passes at once", 0, "healthgate_ok", 1, 2, 2},
		{"read between two writes", 1, "healthgate_ok", 2, 2, 2},
		{"fails twice", 2, "healthgate_cluster_unhealthy", 2, 2, 2},
		{"fails truly", 0, "healthgate_cluster_unhealthy", 2, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := betweenHost{newFakeHost(), &between{times: test.times}}
			h.gauge.Record(test.healthy)
			h.set("cluster.a.membership_total", test.total)
			g := newGate(t, h, `{"clusters": [{"name": "a", "min_healthy": 2}]}`)
			if got := g.Answer().Details; got != test.want || h.gauge.meets != test.reads {
				t.Errorf("got %s after %d reads, want %s after %d", got, h.gauge.meets, test.want, test.reads)
			}
		})
	}
}

// Probes of many workers at once: each is counted, and the gauge ends in step with the last verdict.
func TestManyWorkersAtOnce(t *testing.T) {
	h := newFakeHost()
	g := newGate(t, h, `{"clusters": ["a"]}`)
	const workers, probes = 8, 2000
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range probes {
				if w == 0 {
					h.set("cluster.a.membership_healthy", uint64(i%2))
					h.set("cluster.a.membership_total", 1)
				}
				g.Answer()
			}
		})
	}
	all.Wait()
	h.setCluster("a", of(1, 0, 1))
	g.Answer()
	if got := h.counters["healthgate.default.ok"].Get() + h.counters["healthgate.default.failed"].Get(); got != workers*probes+1 {
		t.Errorf("%d probes were counted, want %d", got, workers*probes+1)
	}
	if got := h.own["healthgate.default.healthy"].Get(); got != 1 {
		t.Errorf("the gauge is %d after a pass, want 1", got)
	}
	changes := h.counters["healthgate.default.transitions"].Get()
	if got := uint64(len(h.lines)); got != changes+1 { // the first line is no transition
		t.Errorf("%d lines for %d transitions", got, changes)
	}
}

// constants are stats that cost nothing, to see what the gate costs.
type constants struct{}

func (constants) Get() uint64                     { return 1 }
func (constants) Increment(int64)                 {}
func (constants) Record(uint64)                   {}
func (constants) Gauge(string) envoystats.Value   { return constants{} }
func (constants) Counter(string) envoystats.Value { return constants{} }
func (constants) Now() time.Time                  { return time.Now() }
func (constants) NewCounter(string) Counter       { return constants{} }
func (constants) NewGauge(string) SettableGauge   { return constants{} }
func (constants) Info(string)                     {}
func (constants) Warn(string)                     {}

func TestAnswerAllocatesNothing(t *testing.T) {
	for _, more := range []string{
		``, `, "hold": {"unhealthy_after": "1s", "healthy_after": "1s"}`, `, "stale_after": "60s"`, `, "response": {"details": true}`,
	} {
		g := newGate(t, constants{}, `{"clusters": ["a", "b", "c"], "path": "/healthz"`+more+`}`)
		g.Answer() // the first is logged
		if allocated := testing.AllocsPerRun(1000, func() {
			if IsProbe("/healthz", "POST", "/healthz?x=1", "application/grpc+proto") {
				g.Answer()
			}
		}); allocated != 0 {
			t.Errorf("%s: an answer makes %v allocations, want 0", more, allocated)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	for _, clusters := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("clusters=%d", clusters), func(b *testing.B) {
			var names []string
			for i := range clusters {
				names = append(names, fmt.Sprintf("%q", fmt.Sprint("c", i)))
			}
			g := newGate(b, constants{}, `{"clusters": [`+strings.Join(names, ",")+`]}`)
			g.Answer()
			b.ReportAllocs()
			for b.Loop() {
				g.Answer()
			}
		})
	}
}
