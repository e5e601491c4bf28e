package lifecycle

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
	"healthgate/filter/envoystats"
	"healthgate/filter/gate"
)

// fakeEnvoy is an Envoy with stats and a log.
type fakeEnvoy struct {
	mutex sync.Mutex
	stats map[string]*stat
	lines []string
}

// fakeFilter is Envoy's side of one filter's configuration.
type fakeFilter struct {
	*fakeEnvoy
	gone    *atomic.Bool  // Envoy has destroyed it
	defined *atomic.Int64 // definitions of stats
	broken  *atomic.Bool  // reading a stat panics
}

type stat struct{ value atomic.Uint64 }

// running returns the number of goroutines in the test's bubble once all are blocked. Those outside it may belong to another test.
func running() int {
	synctest.Wait()
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), ", synctest bubble ")
}

const destroyed = "destroyed"

func newFakeEnvoy() *fakeEnvoy {
	e := &fakeEnvoy{stats: map[string]*stat{}}
	e.set("server.live", 1)
	e.set("cluster.service.membership_healthy", 1)
	e.set("cluster.service.membership_total", 1)
	e.set("cluster.service.health_check.attempt", 1)
	return e
}

// newFilter returns the side of another configuration.
func (e *fakeEnvoy) newFilter() fakeFilter {
	return fakeFilter{e, &atomic.Bool{}, &atomic.Int64{}, &atomic.Bool{}}
}

func (e *fakeEnvoy) stat(name string) *stat {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.stats[name] == nil {
		e.stats[name] = &stat{}
	}
	return e.stats[name]
}

func (e *fakeEnvoy) set(name string, value uint64) { e.stat(name).value.Store(value) }
func (e *fakeEnvoy) get(name string) uint64        { return e.stat(name).value.Load() }

// handle is a stat of one filter's configuration.
type handle struct {
	side fakeFilter
	stat *stat
}

func (h handle) check() {
	if h.side.gone.Load() {
		panic(destroyed)
	}
	if h.side.broken.Load() {
		panic("a bug")
	}
}
func (h handle) Get() uint64         { h.check(); return h.stat.value.Load() }
func (h handle) Record(value uint64) { h.check(); h.stat.value.Store(value) }
func (h handle) Increment(by int64)  { h.check(); h.stat.value.Add(uint64(by)) }

func (h fakeFilter) define(name string) handle {
	h.defined.Add(1)
	handle := handle{h, h.stat(name)}
	handle.check()
	return handle
}

func (h fakeFilter) Gauge(name string) envoystats.Value      { return h.define(name) }
func (h fakeFilter) Counter(name string) envoystats.Value    { return h.define(name) }
func (h fakeFilter) NewCounter(name string) gate.Counter     { return h.define(name) }
func (h fakeFilter) NewGauge(name string) gate.SettableGauge { return h.define(name) }
func (h fakeFilter) Info(line string)                        { h.log("info: " + line) }
func (h fakeFilter) Warn(line string)                        { h.log("warn: " + line) }
func (h fakeFilter) Error(line string)                       { h.log("error: " + line) }
func (h fakeFilter) Now() time.Time                          { return time.Now() }
func (h fakeFilter) IsGone(cause any) bool                   { return cause == destroyed }

func (e *fakeEnvoy) log(line string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.lines = append(e.lines, line)
}

// logged counts the lines that contain a text.
func (e *fakeEnvoy) logged(text string) int {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	n := 0
	for _, line := range e.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func raw(t testing.TB, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

func configure(t testing.TB, p *Process, text string, side Envoy) *Configuration {
	t.Helper()
	decoded, err := config.Decode(raw(t, text), config.Plugin)
	if err != nil {
		t.Fatal(err)
	}
	c := p.Configure(decoded, side)
	t.Cleanup(c.End)
	return c
}

// override returns a route override, also for a broken text.
func override(t testing.TB, p *Process, text string) *Override {
	t.Helper()
	written := raw(t, text)
	decoded, err := config.DecodeOverride(written, config.Plugin)
	o := p.NewBrokenOverride(written, err)
	if err == nil {
		o = p.NewOverride(decoded)
	}
	t.Cleanup(o.End)
	return o
}

func answer(t testing.TB, c *Configuration, want string) {
	t.Helper()
	if got := c.Answer(false).Details; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestARouteUnderTwoFiltersHasTwoGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		filters := []*Configuration{
			configure(t, p, `{"clusters": ["service"], "stat_prefix": "https"}`, envoy.newFilter()),
			configure(t, p, `{"clusters": ["service"], "stat_prefix": "http"}`, envoy.newFilter()),
		}
		route := override(t, p, `{"path": "/readyz", "hold": {"unhealthy_after": "10s"}, "stale_after": "60s"}`)
		expect := func(want string) {
			t.Helper()
			for turn := range 4 {
				answer(t, route.MergeInto(filters[turn%2]), want)
			}
		}
		expect("healthgate_ok")
		goroutines := running()
		envoy.set("cluster.service.membership_healthy", 0)
		expect("healthgate_held")
		time.Sleep(9 * time.Second)
		expect("healthgate_held")
		time.Sleep(3 * time.Second)
		expect("healthgate_cluster_unhealthy")
		time.Sleep(50 * time.Second)
		expect("healthgate_stale")
		if now := running(); now != goroutines {
			t.Errorf("%d goroutines became %d", goroutines, now)
		}
		for _, prefix := range []string{"https", "http"} {
			if n := envoy.logged("gate " + prefix + " changed from 200"); n != 1 {
				t.Errorf("%s: %d lines for one change", prefix, n)
			}
		}
	})
}

func TestNarrowerLevelOverridesWiderOnes(t *testing.T) {
	for _, test := range []struct {
		name                    string
		filter, wide, mid, deep string
		path, want              string
	}{
		{"each level has another key", `{"clusters": ["service"]}`, `{"path": "/a"}`, `{"drain": "ignore"}`, `{"clusters": ["unknown"]}`, "/a",
			"healthgate_cluster_empty"},
		{"the narrowest wins", `{"clusters": ["unknown"]}`, `{"path": "/a"}`, `{"path": "/b"}`, `{"path": "/c", "clusters": ["service"]}`, "/c",
			"healthgate_ok"},
		{"empty overrides", `{"clusters": ["service"]}`, `{}`, `{}`, `{}`, "/", "healthgate_ok"},
		{"the widest is broken", `{"clusters": ["service"]}`, `{"paht": "/a"}`, `{}`, `{}`, "/", "healthgate_error"},
		{"the middle one is broken", `{"clusters": ["service"]}`, `{}`, `{"require": 9}`, `{"path": "/c"}`, "/c", "healthgate_error"},
		{"only a narrower level would complete it", `{"clusters": ["service"]}`, `{"require": 2}`, `{"clusters": ["service", "b"]}`, `{}`, "/",
			"healthgate_error"},
		{"the narrowest is broken", `{"clusters": ["service"]}`, `{}`, `{}`, `{"clusters": []}`, "/", "healthgate_error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			envoy, p := newFakeEnvoy(), &Process{}
			c := configure(t, p, test.filter, envoy.newFilter())
			for _, level := range []string{test.wide, test.mid, test.deep} {
				c = override(t, p, level).MergeInto(c)
			}
			if !c.IsProbe("GET", test.path, "") {
				t.Fatalf("%s is not a probe", test.path)
			}
			answer(t, c, test.want)
			if test.want != "healthgate_error" {
				return
			}
			answer(t, c, test.want)
			if n := envoy.logged("error: healthgate: a route's configuration can't be used"); n != 1 {
				t.Errorf("got %d lines, want 1", n)
			}
			if got := envoy.get("healthgate.default.failed_error"); got != 2 {
				t.Errorf("%d were counted by the filter, want 2", got)
			}
			if c.HasReports() {
				t.Error("it has reports")
			}
		})
	}
}

func TestLevelInBetweenStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		side := envoy.newFilter()
		f := configure(t, p, `{"clusters": ["service"]}`, side)
		before, goroutines := side.defined.Load(), running()
		between := override(t, p, `{"hold": {"unhealthy_after": "1s"}, "stat_prefix": "between",
			"source": "admin", "admin": {"address": "unix:///nowhere"}}`)
		broken := override(t, p, `{"paht": "/"}`)
		override(t, p, `{"path": "/x"}`).MergeInto(between.MergeInto(f))
		override(t, p, `{"path": "/x"}`).MergeInto(broken.MergeInto(f))
		time.Sleep(time.Hour)
		if defined, more := side.defined.Load()-before, running()-goroutines; defined != 0 || more != 0 {
			t.Errorf("%d stats were defined and %d more goroutines run", defined, more)
		}
		if n := envoy.logged("between") + envoy.logged("paht"); n != 0 {
			t.Errorf("%d lines were logged", n)
		}
	})
}

func TestErrorBelongsToThePair(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	route := override(t, p, `{"require": 2}`)
	answer(t, route.MergeInto(configure(t, p, `{"clusters": ["service"]}`, envoy.newFilter())), "healthgate_error")
	answer(t, route.MergeInto(configure(t, p, `{"clusters": ["service", {"name": "b", "min_healthy": 0}]}`, envoy.newFilter())),
		"healthgate_ok")
}

func TestBrokenRouteAnswersItsPath(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	f := configure(t, p, `{"clusters": ["service"], "path": "/healthz"}`, envoy.newFilter())
	c := override(t, p, `{"path": "/readyz", "paht": 1}`).MergeInto(f)
	deep := override(t, p, `{"path": "/livez"}`).MergeInto(c)
	for path, want := range map[string][2]bool{"/healthz": {true, true}, "/readyz": {true, true}, "/livez": {false, true},
		"/": {false, false}} {
		t.Run(path, func(t *testing.T) {
			if got := [2]bool{c.IsProbe("GET", path, ""), deep.IsProbe("GET", path, "")}; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	unread := p.NewBrokenOverride(nil, fmt.Errorf("not protobuf")).MergeInto(f)
	if !unread.IsProbe("HEAD", "/healthz?x", "") {
		t.Error("an unreadable override does not answer the filter's path")
	}
	answer(t, unread, "healthgate_error")
}

func TestMergedConfigurationEndsWithEitherSide(t *testing.T) {
	for name, end := range map[string]func(*Configuration, *Override){
		"with the route":  func(_ *Configuration, o *Override) { o.End() },
		"with the filter": func(f *Configuration, _ *Override) { f.End() },
		"with both":       func(f *Configuration, o *Override) { f.End(); o.End(); f.End(); o.End() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				envoy, p := newFakeEnvoy(), &Process{}
				f := configure(t, p, `{"clusters": ["service"]}`, envoy.newFilter())
				wide := override(t, p, `{}`)
				deep := override(t, p, `{"stat_prefix": "deep", "hold": {"unhealthy_after": "1s"}}`)
				between := wide.MergeInto(f)
				c := deep.MergeInto(between)
				answer(t, c, "healthgate_ok")
				end(f, wide)
				synctest.Wait()
				envoy.set("cluster.service.membership_healthy", 0)
				time.Sleep(time.Minute)
				if n := envoy.logged("deep changed"); n != 0 {
					t.Errorf("it is still evaluated: %v", envoy.lines)
				}
				// The delay starts with this probe: the gate was not evaluated since.
				answer(t, c, "healthgate_held")
				if n := len(wide.side.merged) + len(deep.side.merged) + len(between.side.merged); n != 0 {
					t.Errorf("%d pairs are kept", n)
				}
				// A late probe starts nothing that would have to end.
				late := deep.MergeInto(between)
				goroutines := running()
				answer(t, late, "healthgate_held")
				if now := running(); now != goroutines || len(deep.side.merged) != 0 {
					t.Errorf("%d goroutines became %d, and %d pairs are kept", goroutines, now, len(deep.side.merged))
				}
				f.End()
			})
		})
	}
}

func TestNewestGateWritesHealthy(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	f := configure(t, p, `{"clusters": ["service"]}`, envoy.newFilter())
	route := override(t, p, `{"clusters": ["unknown"]}`)
	answer(t, f, "healthgate_ok")
	answer(t, route.MergeInto(f), "healthgate_cluster_empty")
	answer(t, f, "healthgate_ok")
	if got := envoy.get("healthgate.default.healthy"); got != 0 {
		t.Errorf("got %d, want the route's", got)
	}
	route.End()
	if got := envoy.get("healthgate.default.healthy"); got != 1 {
		t.Errorf("got %d after the route has ended, want the filter's", got)
	}
}

// Without recovery the panic of a goroutine would end Envoy, and this test.
func TestGoroutinesSurviveADestroyedConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy := newFakeEnvoy()
		side := envoy.newFilter()
		c := configure(t, &Process{}, `{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`, side)
		side.gone.Store(true)
		time.Sleep(time.Minute)
		side.gone.Store(false)
		// Evaluation has ended: it would find a healthy host now.
		time.Sleep(time.Minute)
		if got := envoy.get("healthgate.default.healthy"); got != 0 {
			t.Errorf("healthy is %d without an evaluation", got)
		}
		if n := envoy.logged("panic"); n != 0 {
			t.Errorf("%d lines for an expected panic", n)
		}
		side.gone.Store(true)
		c.End()
	})
}

func TestEvaluationContinuesAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy := newFakeEnvoy()
		side := envoy.newFilter()
		c := configure(t, &Process{}, `{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`, side)
		answer(t, c, "healthgate_ok")
		side.broken.Store(true)
		time.Sleep(10 * time.Second)
		if n := envoy.logged("error: healthgate: panic between probes: a bug: "); n != 1 {
			t.Errorf("%d lines within a minute, want 1: %q", n, envoy.lines)
		}
		time.Sleep(time.Minute)
		if n := envoy.logged("error: healthgate: panic between probes: a bug: "); n != 2 {
			t.Errorf("%d lines after a minute, want 2: %q", n, envoy.lines)
		}
		if got := c.Failure(); got != gate.FailClosed() {
			t.Errorf("an uncounted failure is %+v", got)
		}
		side.broken.Store(false)
		envoy.set("cluster.service.membership_healthy", 0)
		time.Sleep(10 * time.Second)
		if got := envoy.get("healthgate.default.healthy"); got != 0 {
			t.Errorf("healthy is %d: the gate is not evaluated any more", got)
		}
		c.End()
	})
}

func TestPanicWhileAGateIsMadeStartsNothing(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	side := envoy.newFilter()
	f := configure(t, p, `{"clusters": ["service"]}`, side)
	route := override(t, p, `{"stat_prefix": "route", "hold": {"unhealthy_after": "1s"}}`).MergeInto(f)
	side.broken.Store(true)
	for range 2 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			route.Answer(false)
		}()
	}
	if len(route.ends) != 0 || route.gate.Load() != nil {
		t.Errorf("%d things are still to end", len(route.ends))
	}
	side.broken.Store(false)
	answer(t, route, "healthgate_ok")
}

// muteFilter is a fakeFilter whose log panics.
type muteFilter struct{ fakeFilter }

func (muteFilter) Error(string) { panic("no log") }

func TestEndCompletesIfAPanicCannotBeLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, &Process{}, `{"clusters": ["service"]}`, muteFilter{newFakeEnvoy().newFilter()})
		ended := 0
		c.ends = append(c.ends, func() { ended++ }, func() { panic("a bug") })
		panics := 0
		for range 2 { // the second call must not wait for ever
			func() {
				defer func() {
					if recover() != nil {
						panics++
					}
				}()
				c.End()
			}()
		}
		if ended != 1 || panics != 1 {
			t.Errorf("%d ends have run and %d calls have panicked, want 1 and 1", ended, panics)
		}
	})
}

func TestWarningIsLoggedOnceAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		c := configure(t, p, `{"clusters": ["unknown"]}`, envoy.newFilter())
		gone := configure(t, p, `{"clusters": ["unknown"], "stat_prefix": "gone"}`, envoy.newFilter())
		time.Sleep(29 * time.Second)
		gone.End()
		if n := envoy.logged("has shown no host yet"); n != 0 {
			t.Errorf("%d warnings before their time", n)
		}
		time.Sleep(time.Hour)
		if n := envoy.logged(`warn: healthgate: gate default: cluster "unknown" has shown no host yet`); n != 1 ||
			envoy.logged("gate gone: ") != 0 {
			t.Errorf("%d warnings, want 1, and none of the ended configuration: %q", n, envoy.lines)
		}
		c.End()
	})
}

func TestSharedPartsEndWithAConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		before := running()
		c := configure(t, p, `{"clusters": ["service"], "source": "admin", "admin": {"address": "unix:///nowhere"}}`, envoy.newFilter())
		if now := running(); now <= before {
			t.Fatal("no poller was started")
		}
		f := configure(t, p, `{"clusters": ["service"]}`, envoy.newFilter())
		for range 10 {
			o := override(t, p, `{"path": "/x"}`)
			answer(t, o.MergeInto(f), "healthgate_ok")
			o.End()
		}
		if n := len(f.side.merged); n != 0 {
			t.Errorf("the filter keeps %d ended overrides", n)
		}
		c.End()
		f.End()
		time.Sleep(time.Minute)
		if now := running(); now != before {
			t.Errorf("%d goroutines run, %d before", now, before)
		}
		// A counter without readers may be reset: then its first value is a change.
		envoy.set("cluster.service.health_check.attempt", 0)
		again := configure(t, p, `{"clusters": ["service"], "stale_after": "5s"}`, envoy.newFilter())
		time.Sleep(4 * time.Second)
		answer(t, again, "healthgate_ok")
		again.End()
	})
}

// A probe must not fail because a listener was updated.
func TestNextConfigurationUsesTheLastPollOfAdmin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var polls atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/clusters" {
			io.WriteString(w, `{"state": "LIVE"}`)
			return
		}
		if polls.Add(1) > 1 {
			<-r.Context().Done()
			return
		}
		io.WriteString(w, `{"cluster_statuses": [{"name": "service", "host_statuses": [{"health_status": {"eds_health_status": "HEALTHY"}}]}]}`)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	p, side := &Process{}, newFakeEnvoy().newFilter()
	text := fmt.Sprintf(`{"clusters": ["service"], "source": "admin", "stale_after": "60s",
		"admin": {"address": "unix://%s", "interval": "60s"}}`, path)
	last := configure(t, p, text, side)
	for deadline := time.Now().Add(10 * time.Second); last.Answer(false).Details != "healthgate_ok"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %d polls it answers %s", polls.Load(), last.Answer(false).Details)
		}
	}
	last.End()
	answer(t, configure(t, p, text, side), "healthgate_ok")
}

func TestAcceptsJSON(t *testing.T) {
	for accept, want := range map[string]bool{
		"application/json": true, "application/health+json": true, "text/html, Application/JSON ;q=0.1": true,
		"": false, "*/*": false, "application/*": false, "application/jsonx": false, "text/plain;a=application/json": false, ",,;": false,
	} {
		t.Run(accept, func(t *testing.T) {
			if got := AcceptsJSON(accept); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// For the race detector.
func TestConfigurationsAndRoutesChangeUnderProbes(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	var filters [2]atomic.Pointer[Configuration]
	var routes [2]atomic.Pointer[Override]
	renew := func(i int) {
		next := configure(t, p, `{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`, envoy.newFilter())
		if old := filters[i].Swap(next); old != nil {
			old.End()
		}
		if old := routes[i].Swap(override(t, p, fmt.Sprintf(`{"path": "/%d"}`, i))); old != nil {
			old.End()
		}
	}
	renew(0)
	renew(1)
	done := make(chan struct{})
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for turn := w; ; turn++ {
				select {
				case <-done:
					return
				default:
				}
				if got := routes[turn/2%2].Load().MergeInto(filters[turn%2].Load()).Answer(false).Details; got != "healthgate_ok" {
					t.Errorf("got %s, want healthgate_ok", got)
					return
				}
			}
		})
	}
	for i := range 200 {
		renew(i % 2)
	}
	close(done)
	workers.Wait()
	kept := 0
	for i := range filters {
		kept += len(filters[i].Load().side.merged)
	}
	if kept > 4 {
		t.Errorf("%d pairs of two filters and two routes are kept", kept)
	}
}

// Envoy frees a filter's configuration once End has returned, so End waits for its pairs, also for those that the other side ends.
func TestEndWaitsForThePairs(t *testing.T) {
	for _, overrideFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("override first ", overrideFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &Process{Lazy: true}
				c := configure(t, p, `{"clusters": ["service"]}`, newFakeEnvoy().newFilter())
				o := override(t, p, `{"path": "/x"}`)
				merged := o.MergeInto(c)
				merged.Gate()
				first, second := o.End, c.End
				if !overrideFirst {
					first, second = second, first
				}
				release, ended := make(chan struct{}), make(chan struct{})
				merged.ends = append(merged.ends, func() { <-release })
				go first()
				synctest.Wait()
				go func() {
					second()
					close(ended)
				}()
				synctest.Wait()
				select {
				case <-ended:
					t.Error("the other side has ended before the pair")
				default:
				}
				close(release)
				<-ended
			})
		})
	}
}
