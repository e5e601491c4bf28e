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

// fakeEnvoy is an Envoy: its stats by name, its log.
type fakeEnvoy struct {
	mutex sync.Mutex
	stats map[string]*stat
	lines []string
}

// fakeHost is what it shows of itself to one filter's configuration.
type fakeHost struct {
	*fakeEnvoy
	gone    *atomic.Bool
	defined *atomic.Int64 // stats that were asked for
	broken  *atomic.Bool  // reading a stat is a bug
}

type stat struct{ value atomic.Uint64 }

// running is how many goroutines the test's bubble has, once none of them can go on. Those outside of it may be what is left of another test.
func running() int {
	synctest.Wait()
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), ", synctest bubble ")
}

const goneWord = "it has gone"

func newFakeEnvoy() *fakeEnvoy {
	e := &fakeEnvoy{stats: map[string]*stat{}}
	e.set("server.live", 1)
	e.set("cluster.service.membership_healthy", 1)
	e.set("cluster.service.membership_total", 1)
	e.set("cluster.service.health_check.attempt", 1)
	return e
}

// host is the side of one more configuration.
func (e *fakeEnvoy) host() fakeHost {
	return fakeHost{e, &atomic.Bool{}, &atomic.Int64{}, &atomic.Bool{}}
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

// handle is a stat as one configuration holds it.
type handle struct {
	host fakeHost
	stat *stat
}

func (h handle) check() {
	if h.host.gone.Load() {
		panic(goneWord)
	}
	if h.host.broken.Load() {
		panic("a bug")
	}
}
func (h handle) Get() uint64         { h.check(); return h.stat.value.Load() }
func (h handle) Record(value uint64) { h.check(); h.stat.value.Store(value) }
func (h handle) Increment(by int64)  { h.check(); h.stat.value.Add(uint64(by)) }

func (h fakeHost) define(name string) handle {
	h.defined.Add(1)
	handle := handle{h, h.stat(name)}
	handle.check()
	return handle
}

func (h fakeHost) Gauge(name string) envoystats.Value      { return h.define(name) }
func (h fakeHost) Counter(name string) envoystats.Value    { return h.define(name) }
func (h fakeHost) NewCounter(name string) gate.Counter     { return h.define(name) }
func (h fakeHost) NewGauge(name string) gate.SettableGauge { return h.define(name) }
func (h fakeHost) Info(line string)                        { h.log("info: " + line) }
func (h fakeHost) Warn(line string)                        { h.log("warn: " + line) }
func (h fakeHost) Error(line string)                       { h.log("error: " + line) }
func (h fakeHost) Now() time.Time                          { return time.Now() }
func (h fakeHost) IsGone(cause any) bool                   { return cause == goneWord }

func (e *fakeEnvoy) log(line string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.lines = append(e.lines, line)
}

// logged counts the lines that have a text.
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

func configure(t testing.TB, p *Process, text string, host Envoy) *Configuration {
	t.Helper()
	decoded, err := config.Decode(raw(t, text), config.Plugin)
	if err != nil {
		t.Fatal(err)
	}
	c := p.Configure(decoded, host)
	t.Cleanup(c.End)
	return c
}

// override is a route's configuration; what is wrong with it is for its probes.
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

func TestProbesOfARouteByTurnsUnderTwoFiltersAskTwoGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		https, http := envoy.host(), envoy.host()
		filters := []*Configuration{
			configure(t, p, `{"clusters": ["service"], "stat_prefix": "https"}`, https),
			configure(t, p, `{"clusters": ["service"], "stat_prefix": "http"}`, http),
		}
		route := override(t, p, `{"path": "/readyz", "hold": {"unhealthy_after": "10s"}, "stale_after": "60s"}`)
		for _, f := range filters {
			answer(t, route.MergeInto(f), "healthgate_ok")
		}
		goroutines := running()

		envoy.set("cluster.service.membership_healthy", 0)
		began := time.Now()
		for turn := range 2000 {
			held := time.Since(began) < 10*time.Second
			want := map[bool]string{true: "healthgate_held", false: "healthgate_cluster_unhealthy"}[held]
			if time.Since(began) > 60*time.Second {
				want = "healthgate_stale"
			}
			if got := route.MergeInto(filters[turn%2]).Answer(false).Details; got != want {
				// The looks between the probes come as often as one a second.
				if s := time.Since(began); s%(10*time.Second) > time.Second {
					t.Fatalf("after %v: got %s, want %s", s, got, want)
				}
			}
			time.Sleep(35 * time.Millisecond)
		}
		if now := running(); now != goroutines {
			t.Errorf("%d goroutines became %d", goroutines, now)
		}
		for _, prefix := range []string{"https", "http"} {
			if n := envoy.logged("gate " + prefix + " turns from 200"); n != 1 {
				t.Errorf("%s: %d lines for one change", prefix, n)
			}
		}
	})
}

func TestLevelsOverrideTheWiderOnes(t *testing.T) {
	for _, test := range []struct {
		name                    string
		filter, wide, mid, deep string
		path, want              string
	}{
		{"each another key", `{"clusters": ["service"]}`, `{"path": "/a"}`, `{"drain": "ignore"}`, `{"clusters": ["nobody"]}`, "/a", "healthgate_cluster_empty"},
		{"the narrowest wins", `{"clusters": ["nobody"]}`, `{"path": "/a"}`, `{"path": "/b"}`, `{"path": "/c", "clusters": ["service"]}`, "/c", "healthgate_ok"},
		{"nothing is overridden", `{"clusters": ["service"]}`, `{}`, `{}`, `{}`, "/", "healthgate_ok"},
		{"the widest is broken", `{"clusters": ["service"]}`, `{"paht": "/a"}`, `{}`, `{}`, "/", "healthgate_error"},
		{"the one between is broken", `{"clusters": ["service"]}`, `{}`, `{"require": 9}`, `{"path": "/c"}`, "/c", "healthgate_error"},
		{"what completes it comes too late", `{"clusters": ["service"]}`, `{"require": 2}`, `{"clusters": ["service", "b"]}`, `{}`, "/", "healthgate_error"},
		{"the narrowest is broken", `{"clusters": ["service"]}`, `{}`, `{}`, `{"clusters": []}`, "/", "healthgate_error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			envoy, p := newFakeEnvoy(), &Process{}
			c := configure(t, p, test.filter, envoy.host())
			for _, level := range []string{test.wide, test.mid, test.deep} {
				c = override(t, p, level).MergeInto(c)
			}
			if !c.IsProbe("GET", test.path, "") {
				t.Fatalf("%s is no probe", test.path)
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
				t.Error("it gives reports")
			}
		})
	}
}

// What lies between two levels answers nobody.
func TestLevelThatNobodyIsAnsweredByCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		host := envoy.host()
		f := configure(t, p, `{"clusters": ["service"]}`, host)
		before, goroutines := host.defined.Load(), running()
		between := override(t, p, `{"hold": {"unhealthy_after": "1s"}, "stat_prefix": "between", "source": "admin", "admin": {"address": "unix:///nowhere"}}`)
		broken := override(t, p, `{"paht": "/"}`)
		override(t, p, `{"path": "/x"}`).MergeInto(between.MergeInto(f))
		override(t, p, `{"path": "/x"}`).MergeInto(broken.MergeInto(f))
		time.Sleep(time.Hour)
		if defined, more := host.defined.Load()-before, running()-goroutines; defined != 0 || more != 0 {
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
	answer(t, route.MergeInto(configure(t, p, `{"clusters": ["service"]}`, envoy.host())), "healthgate_error")
	answer(t, route.MergeInto(configure(t, p, `{"clusters": ["service", {"name": "b", "min_healthy": 0}]}`, envoy.host())), "healthgate_ok")
}

func TestBrokenRouteAnswersWhatItMeantToBeItsPath(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	f := configure(t, p, `{"clusters": ["service"], "path": "/healthz"}`, envoy.host())
	c := override(t, p, `{"path": "/readyz", "paht": 1}`).MergeInto(f)
	deep := override(t, p, `{"path": "/livez"}`).MergeInto(c)
	for path, want := range map[string][2]bool{"/healthz": {true, true}, "/readyz": {true, true}, "/livez": {false, true}, "/": {false, false}} {
		t.Run(path, func(t *testing.T) {
			if got := [2]bool{c.IsProbe("GET", path, ""), deep.IsProbe("GET", path, "")}; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	unread := p.NewBrokenOverride(nil, fmt.Errorf("not protobuf")).MergeInto(f)
	if !unread.IsProbe("HEAD", "/healthz?x", "") {
		t.Error("what could not be read is no probe of the filter's path")
	}
	answer(t, unread, "healthgate_error")
}

// What a pair has started ends with the route, and with the filter; whoever is still answered is answered.
func TestPairEndsWithEither(t *testing.T) {
	for name, end := range map[string]func(*Configuration, *Override){
		"with the route":  func(_ *Configuration, o *Override) { o.End() },
		"with the filter": func(f *Configuration, _ *Override) { f.End() },
		"with both":       func(f *Configuration, o *Override) { f.End(); o.End(); f.End(); o.End() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				envoy, p := newFakeEnvoy(), &Process{}
				f := configure(t, p, `{"clusters": ["service"]}`, envoy.host())
				wide := override(t, p, `{}`)
				deep := override(t, p, `{"stat_prefix": "deep", "hold": {"unhealthy_after": "1s"}}`)
				between := wide.MergeInto(f)
				c := deep.MergeInto(between)
				answer(t, c, "healthgate_ok")
				end(f, wide)
				synctest.Wait()
				envoy.set("cluster.service.membership_healthy", 0)
				time.Sleep(time.Minute)
				if n := envoy.logged("deep turns"); n != 0 {
					t.Errorf("it is still watched: %v", envoy.lines)
				}
				// The hold begins with this probe: nobody has looked since.
				answer(t, c, "healthgate_held")
				if n := len(wide.side.merged) + len(deep.side.merged) + len(between.side.merged); n != 0 {
					t.Errorf("%d pairs are kept", n)
				}
				// One that comes later still starts nothing that would have to end.
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

// A route's gate without a stat prefix of its own shares the filter's gauge. The newest that has judged writes it.
func TestGaugeHasOneWriter(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	f := configure(t, p, `{"clusters": ["service"]}`, envoy.host())
	route := override(t, p, `{"clusters": ["nobody"]}`)
	answer(t, f, "healthgate_ok")
	answer(t, route.MergeInto(f), "healthgate_cluster_empty")
	answer(t, f, "healthgate_ok")
	if got := envoy.get("healthgate.default.healthy"); got != 0 {
		t.Errorf("got %d, want that of the route", got)
	}
	route.End()
	if got := envoy.get("healthgate.default.healthy"); got != 1 {
		t.Errorf("got %d, want that of the filter, once the route has gone", got)
	}
}

func TestAgeIsTheProcesssOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		var last string
		for range 8 {
			c := configure(t, p, `{"clusters": ["service"], "stale_after": "5s"}`, envoy.host())
			last = c.Answer(false).Details
			c.End()
			time.Sleep(time.Second)
		}
		if last != "healthgate_stale" {
			t.Errorf("updates more often than stale_after keep it %s", last)
		}
	})
}

// What runs on a goroutine may run when Envoy's side has gone; unrecovered, its panic would end Envoy, as it would this
// test.
func TestGoroutinesSurviveTheEndOfEnvoysSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy := newFakeEnvoy()
		host := envoy.host()
		c := configure(t, &Process{}, `{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`, host)
		host.gone.Store(true)
		time.Sleep(time.Minute)
		host.gone.Store(false)
		// The watch has ended, rather than going on with stats of nobody's: it would find a healthy host.
		time.Sleep(time.Minute)
		if got := envoy.get("healthgate.default.healthy"); got != 0 {
			t.Errorf("the gauge is %d, though nobody looked", got)
		}
		if n := envoy.logged("panic"); n != 0 {
			t.Errorf("%d lines of what is no fault", n)
		}
		host.gone.Store(true)
		c.End()
	})
}

func TestPanicBetweenProbesIsLoggedAndWatchedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy := newFakeEnvoy()
		host := envoy.host()
		c := configure(t, &Process{}, `{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`, host)
		answer(t, c, "healthgate_ok")
		host.broken.Store(true)
		time.Sleep(10 * time.Second)
		if n := envoy.logged("error: healthgate: panic between probes: a bug: "); n != 1 {
			t.Errorf("%d lines within a minute, want 1: %q", n, envoy.lines)
		}
		time.Sleep(time.Minute)
		if n := envoy.logged("error: healthgate: panic between probes: a bug: "); n != 2 {
			t.Errorf("%d lines after a minute, want 2: %q", n, envoy.lines)
		}
		if got := c.Failure(); got != gate.FailClosed() {
			t.Errorf("a failure that can't be counted is %+v", got)
		}
		host.broken.Store(false)
		envoy.set("cluster.service.membership_healthy", 0)
		time.Sleep(10 * time.Second)
		if got := envoy.get("healthgate.default.healthy"); got != 0 {
			t.Errorf("the gauge is %d: the gate is no longer watched", got)
		}
		c.End()
	})
}

func TestPanicWhileAGateIsMadeLeavesNothingBehind(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	host := envoy.host()
	f := configure(t, p, `{"clusters": ["service"]}`, host)
	route := override(t, p, `{"stat_prefix": "route", "hold": {"unhealthy_after": "1s"}}`).MergeInto(f)
	host.broken.Store(true)
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
		t.Errorf("%d things have still to end", len(route.ends))
	}
	host.broken.Store(false)
	answer(t, route, "healthgate_ok")
}

func TestWarningsComeOnceAfterTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		c := configure(t, p, `{"clusters": ["nobody"]}`, envoy.host())
		gone := configure(t, p, `{"clusters": ["nobody"], "stat_prefix": "gone"}`, envoy.host())
		time.Sleep(29 * time.Second)
		gone.End()
		if n := envoy.logged("has shown no host yet"); n != 0 {
			t.Errorf("%d warnings before it is time", n)
		}
		time.Sleep(time.Hour)
		if n := envoy.logged(`warn: healthgate: gate default: cluster "nobody" has shown no host yet`); n != 1 || envoy.logged("gate gone: ") != 0 {
			t.Errorf("%d warnings, want 1, and none of what has gone: %q", n, envoy.lines)
		}
		c.End()
	})
}

// What the process keeps of a configuration ends with it: the readers of its counters at once, and the poller when nobody has
// come to take its place.
func TestWhatAConfigurationSharesEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy, p := newFakeEnvoy(), &Process{}
		before := running()
		c := configure(t, p, `{"clusters": ["service"], "source": "admin", "admin": {"address": "unix:///nowhere"}}`, envoy.host())
		if now := running(); now <= before {
			t.Fatal("nothing was started, so that this shows nothing")
		}
		f := configure(t, p, `{"clusters": ["service"]}`, envoy.host())
		for range 10 {
			o := override(t, p, `{"path": "/x"}`)
			answer(t, o.MergeInto(f), "healthgate_ok")
			o.End()
		}
		if n := len(f.side.merged); n != 0 {
			t.Errorf("the filter keeps %d of the routes that have gone", n)
		}
		c.End()
		f.End()
		time.Sleep(time.Minute)
		if now := running(); now != before {
			t.Errorf("%d goroutines run, %d before", now, before)
		}
		// A counter that nobody reads any more may begin anew: its first value is then a movement.
		envoy.set("cluster.service.health_check.attempt", 0)
		again := configure(t, p, `{"clusters": ["service"], "stale_after": "5s"}`, envoy.host())
		time.Sleep(4 * time.Second)
		answer(t, again, "healthgate_ok")
		again.End()
	})
}

// An update of a listener is no time in which admin would have to be waited for.
func TestNextConfigurationKnowsWhatTheLastOneSawByAdmin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var looks atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/clusters" {
			io.WriteString(w, `{"state": "LIVE"}`)
			return
		}
		if looks.Add(1) > 1 {
			<-r.Context().Done()
			return
		}
		io.WriteString(w, `{"cluster_statuses": [{"name": "service", "host_statuses": [{"health_status": {"eds_health_status": "HEALTHY"}}]}]}`)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	p, host := &Process{}, newFakeEnvoy().host()
	text := fmt.Sprintf(`{"clusters": ["service"], "source": "admin", "stale_after": "60s", "admin": {"address": "unix://%s", "interval": "60s"}}`, path)
	last := configure(t, p, text, host)
	for deadline := time.Now().Add(10 * time.Second); last.Answer(false).Details != "healthgate_ok"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %d looks it answers %s", looks.Load(), last.Answer(false).Details)
		}
	}
	last.End()
	answer(t, configure(t, p, text, host), "healthgate_ok")
}

func TestReportIsForThoseWhoAskWhereDetailsAreOn(t *testing.T) {
	for details, asked := range map[bool]bool{true: true, false: true} {
		t.Run(fmt.Sprint("details ", details), func(t *testing.T) {
			c := configure(t, &Process{}, fmt.Sprintf(`{"clusters": ["service"], "response": {"details": %v}}`, details), newFakeEnvoy().host())
			if got := strings.HasPrefix(c.Answer(asked).Body, "{"); got != details {
				t.Errorf("a report is given: %v", got)
			}
			if strings.HasPrefix(c.Answer(false).Body, "{") {
				t.Error("a report is given to one who did not ask")
			}
		})
	}
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

// Workers that ask by turns, while configurations and routes come and go: what the race detector is to see.
func TestPairsComeAndGoUnderProbes(t *testing.T) {
	envoy, p := newFakeEnvoy(), &Process{}
	var filters, routes [2]atomic.Pointer[any]
	put := func(slot *atomic.Pointer[any], value any) (before any) {
		if old := slot.Swap(&value); old != nil {
			before = *old
		}
		return before
	}
	renew := func(i int) {
		if old, ok := put(&filters[i], configure(t, p, `{"clusters": ["service"], "hold": {"unhealthy_after": "1s"}}`, envoy.host())).(*Configuration); ok {
			old.End()
		}
		if old, ok := put(&routes[i], override(t, p, fmt.Sprintf(`{"path": "/%d"}`, i))).(*Override); ok {
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
				f := (*filters[turn%2].Load()).(*Configuration)
				o := (*routes[turn/2%2].Load()).(*Override)
				if got := o.MergeInto(f).Answer(false).Details; got != "healthgate_ok" {
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
		kept += len((*filters[i].Load()).(*Configuration).side.merged)
	}
	if kept > 4 {
		t.Errorf("%d pairs are kept of two filters and two routes", kept)
	}
}
