package adminsource

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/gate"
	"healthgate/filter/policy"
)

// fakeAdmin is an admin interface on a unix socket.
type fakeAdmin struct {
	path     string
	asked    atomic.Int64 // looks that came as far as /clusters
	server   atomic.Value // of func(http.ResponseWriter): the answer to /server_info
	clusters atomic.Value // of func(http.ResponseWriter, *http.Request): the answer to /clusters
}

func newFakeAdmin(t *testing.T) *fakeAdmin {
	t.Helper()
	a := &fakeAdmin{path: filepath.Join(t.TempDir(), "admin.sock")}
	listener, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && r.URL.String() == "/server_info":
			a.server.Load().(func(http.ResponseWriter))(w)
		case r.Method == http.MethodGet && r.URL.Path == "/clusters" && r.URL.Query().Get("format") == "json":
			a.asked.Add(1)
			a.clusters.Load().(func(http.ResponseWriter, *http.Request))(w, r)
		default:
			t.Errorf("asked for %s %s", r.Method, r.URL)
		}
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	a.state("LIVE")
	a.answer(1, 2)
	return a
}

func (a *fakeAdmin) onServerInfo(answer func(http.ResponseWriter)) { a.server.Store(answer) }

func (a *fakeAdmin) onClusters(answer func(http.ResponseWriter)) {
	a.clusters.Store(func(w http.ResponseWriter, _ *http.Request) { answer(w) })
}

// state has Envoy be in a state.
func (a *fakeAdmin) state(name string) {
	a.onServerInfo(func(w http.ResponseWriter) { fmt.Fprintf(w, `{"version": "1", "state": %q, "node": {}}`, name) })
}

// answer has cluster a have so many healthy hosts of so many.
func (a *fakeAdmin) answer(healthy, total int) {
	a.onClusters(func(w http.ResponseWriter) {
		var hosts []string
		for i := range total {
			hosts = append(hosts, fmt.Sprintf(`{"health_status": {"failed_active_health_check": %v}}`, i >= healthy))
		}
		fmt.Fprintf(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [%s]}]}`, strings.Join(hosts, ","))
	})
}

// has has Envoy have clusters, of one healthy host each. As Envoy does, it gives those that the request asks for.
func (a *fakeAdmin) has(names ...string) {
	a.clusters.Store(func(w http.ResponseWriter, r *http.Request) {
		asked := regexp.MustCompile(r.URL.Query().Get("filter"))
		var statuses []string
		for _, name := range names {
			if asked.MatchString(name) {
				statuses = append(statuses, fmt.Sprintf(`{"name": %q, "host_statuses": [{}]}`, name))
			}
		}
		fmt.Fprintf(w, `{"cluster_statuses": [%s]}`, strings.Join(statuses, ","))
	})
}

func (a *fakeAdmin) config(interval, staleAfter time.Duration) *config.Config {
	return &config.Config{
		Policy:     policy.Policy{Clusters: []policy.Cluster{{Name: "a"}, {Name: "nobody"}}},
		StaleAfter: staleAfter,
		Details:    true,
		Admin:      &config.Admin{Network: "unix", Address: a.path, Interval: interval},
	}
}

// configOf is of clusters that are looked at once a minute, unless something wants it at once.
func (a *fakeAdmin) configOf(details bool, names ...string) *config.Config {
	c := a.config(time.Minute, time.Hour)
	c.Details, c.Clusters = details, nil
	for _, name := range names {
		c.Clusters = append(c.Clusters, policy.Cluster{Name: name})
	}
	return c
}

// warnings takes what is logged.
type warnings struct {
	mutex sync.Mutex
	lines []string
}

func (w *warnings) add(line string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.lines = append(w.lines, line)
}

func (w *warnings) all() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return append([]string(nil), w.lines...)
}

func waitFor(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// wrongAnswers are what no look can use.
var wrongAnswers = map[string]func(http.ResponseWriter){
	"an error":    func(w http.ResponseWriter) { http.Error(w, "no", http.StatusInternalServerError) },
	"a redirect":  func(w http.ResponseWriter) { w.Header().Set("location", "/"); w.WriteHeader(http.StatusFound) },
	"not JSON":    func(w http.ResponseWriter) { io.WriteString(w, "default_priority::max_connections::1024") },
	"cut short":   func(w http.ResponseWriter) { io.WriteString(w, `{"cluster_statuses": [{"name"`) },
	"without end": func(w http.ResponseWriter) { writeMuch(w) },
	"hanging up":  func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	"hanging up later": func(w http.ResponseWriter) {
		io.WriteString(w, `{"cluster_statuses": [{"name": "a"}`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	},
	"another shape": func(w http.ResponseWriter) { io.WriteString(w, `["cluster_statuses"]`) },
}

func TestSourceGivesWhatAdminSaysAndTurnsStaleWithoutIt(t *testing.T) {
	a := newFakeAdmin(t)
	gate := make(chan struct{})
	a.onClusters(func(w http.ResponseWriter) {
		<-gate
		io.WriteString(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [{"health_status": {"pending_active_hc": true}}]}]}`)
	})
	var pollers Pollers
	var log warnings
	s := pollers.Source(a.config(50*time.Millisecond, 200*time.Millisecond), log.add)
	defer s.Close()
	for i := range 2 {
		if got := s.Sample(time.Now(), i); got != (policy.Sample{Stale: true}) {
			t.Errorf("got %+v before the first answer, want stale", got)
		}
	}
	close(gate)
	waitFor(t, "the first answer", func() bool {
		return s.Sample(time.Now(), 0) == policy.Sample{Counts: policy.Counts{Healthy: 1, Total: 1, Excluded: 1}}
	})
	if got := s.Sample(time.Now(), 1); got != (policy.Sample{Unknown: true}) {
		t.Errorf("got %+v for a cluster that is not there, want unknown and not stale", got)
	}
	a.answer(2, 3)
	waitFor(t, "the change", func() bool { return s.Sample(time.Now(), 0).Healthy == 2 })
	if got := len(s.Hosts(0)); got != 3 {
		t.Errorf("got %d hosts, want 3", got)
	}
	if got := s.Hosts(1); got != nil {
		t.Errorf("a cluster that is not there has hosts: %v", got)
	}

	// Whatever goes wrong, the health turns stale, keeps its last counts, and comes back.
	for name, wrong := range wrongAnswers {
		for path, have := range map[string]func(func(http.ResponseWriter)){"clusters": a.onClusters, "server_info": a.onServerInfo} {
			t.Run(path+" "+name, func(t *testing.T) {
				have(wrong)
				waitFor(t, "it to be stale", func() bool { got := s.Sample(time.Now(), 0); return got.Stale && got.Healthy == 2 })
				a.state("LIVE")
				a.answer(2, 3)
				waitFor(t, "its end", func() bool { return !s.Sample(time.Now(), 0).Stale })
			})
		}
	}
	// Within a minute one line tells of all of it.
	if lines := log.all(); len(lines) != 1 || !strings.HasPrefix(lines[0], "healthgate: admin at "+a.path+" can't be asked") {
		t.Errorf("got lines %q, want one", lines)
	}
}

// writeMuch writes well-formed JSON, and then nothing but space.
func writeMuch(w io.Writer) {
	io.WriteString(w, `{"cluster_statuses": []}`)
	chunk := []byte(strings.Repeat(" ", 1<<20))
	for range 20 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestSourceKnowsOfADrain(t *testing.T) {
	a := newFakeAdmin(t)
	a.state("DRAINING")
	var pollers Pollers
	var log warnings
	s := pollers.Source(a.config(100*time.Millisecond, time.Minute), log.add)
	defer s.Close()
	var source gate.DrainSource = s
	if draining, known := source.Draining(); (draining || known) && s.poller.latest.Load() == nil {
		t.Errorf("before the first look it says %v, %v", draining, known)
	}
	is := func(want bool) func() bool {
		return func() bool { draining, known := source.Draining(); return known && draining == want }
	}
	waitFor(t, "a drain from the start", is(true))
	a.state("LIVE")
	waitFor(t, "its end", is(false))
	a.state("DRAINING")
	waitFor(t, "another", is(true))
	// A look that fails is no end of it.
	a.onServerInfo(func(w http.ResponseWriter) { http.Error(w, "no", http.StatusInternalServerError) })
	waitFor(t, "a look that fails", func() bool { return len(log.all()) > 0 })
	if !is(true)() {
		t.Error("the drain ended with a look that failed")
	}
	if line := log.all()[0]; !strings.Contains(line, "/server_info: it answered with 500") {
		t.Errorf("the line does not say what failed: %s", line)
	}
}

func TestNewSourceIsStaleUntilALookThatComesAtOnce(t *testing.T) {
	a := newFakeAdmin(t)
	a.has("a", "b", "c")
	var pollers Pollers
	var log warnings
	of := func(details bool, names ...string) *Source {
		s := pollers.Source(a.configOf(details, names...), log.add)
		t.Cleanup(s.Close)
		return s
	}
	up := policy.Sample{Counts: policy.Counts{Healthy: 1, Total: 1}}
	first := of(false, "a", "gone")
	waitFor(t, "the first look", func() bool { return first.Sample(time.Now(), 0) == up })

	// What it wants is known already.
	again := of(false, "gone", "a")
	if got := again.Sample(time.Now(), 0); got != (policy.Sample{Unknown: true}) {
		t.Errorf("got %+v for a cluster that the last look did not find, want unknown", got)
	}
	if got := again.Sample(time.Now(), 1); got != up {
		t.Errorf("got %+v for a cluster that the last look found, want %+v", got, up)
	}

	// While the next look is being made: stale, and not unknown.
	gate, served := make(chan struct{}), a.clusters.Load().(func(http.ResponseWriter, *http.Request))
	a.clusters.Store(func(w http.ResponseWriter, r *http.Request) {
		<-gate
		served(w, r)
	})
	before := a.asked.Load()
	second := of(false, "b", "nobody", "a")
	waitFor(t, "the second look", func() bool { return a.asked.Load() > before })
	late := of(false, "b") // this look brings what it wants
	if len(late.poller.wake) > 0 {
		t.Error("a source whose cluster is being looked for wants one more look")
	}
	// This look is too late for another one.
	third := of(true, "c", "a")
	for i, want := range []policy.Sample{{Stale: true}, {Stale: true}, up} {
		if got := second.Sample(time.Now(), i); got != want {
			t.Errorf("got %+v of the %d. cluster before the look, want %+v", got, i+1, want)
		}
	}
	close(gate)
	waitFor(t, "the second source", func() bool {
		return second.Sample(time.Now(), 0) == up && second.Sample(time.Now(), 1) == policy.Sample{Unknown: true}
	})
	waitFor(t, "the third source, and hosts", func() bool {
		return third.Sample(time.Now(), 0) == up && len(third.Hosts(0)) == 1 && len(third.Hosts(1)) == 1
	})
	if got := second.Hosts(0); got != nil {
		t.Errorf("hosts that no report wants are kept: %v", got)
	}
	if got := a.asked.Load(); got != 3 {
		t.Errorf("%d looks were made, want 3", got)
	}
}

func TestLookBringsASourceAllThatItWantsOrOneMoreIsMade(t *testing.T) {
	for _, test := range []struct {
		name   string
		asked  wanted
		source Source
		want   bool
	}{
		{"no look yet", nil, Source{names: []string{"a"}}, false},
		{"no look yet, and no cluster", nil, Source{}, false},
		{"a cluster", wanted{"a": false}, Source{names: []string{"a"}}, true},
		{"another", wanted{"b": true}, Source{names: []string{"a"}}, false},
		{"one of two", wanted{"a": true}, Source{names: []string{"a", "b"}}, false},
		{"hosts", wanted{"a": true}, Source{names: []string{"a"}, reports: true}, true},
		{"hosts that nobody wanted", wanted{"a": false}, Source{names: []string{"a"}, reports: true}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.asked.has(&test.source); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestWhatNoSourceWantsAnyMoreIsNotKept(t *testing.T) {
	a := newFakeAdmin(t)
	a.has("a", "b")
	var pollers Pollers
	var log warnings
	c := a.config(100*time.Millisecond, time.Minute)
	stays := pollers.Source(c, log.add)
	defer stays.Close()
	c.Clusters = []policy.Cluster{{Name: "b"}}
	goes := pollers.Source(c, log.add)
	waitFor(t, "both", func() bool { return tally(kept(stays)) == "a 1/1 kept 1, b 1/1 kept 1" })
	goes.Close()
	waitFor(t, "one", func() bool { return tally(kept(stays)) == "a 1/1 kept 1" })
}

// kept is what the poller of a source holds.
func kept(s *Source) map[string]*cluster {
	if latest := s.poller.latest.Load(); latest != nil {
		return latest.clusters
	}
	return nil
}

func TestOnePollerServesAllSourcesOfAnAddress(t *testing.T) {
	a := newFakeAdmin(t)
	var pollers Pollers
	var log warnings
	slow := pollers.Source(a.config(time.Minute, time.Second), log.add)
	waitFor(t, "the first look", func() bool { return a.asked.Load() == 1 })
	fast := pollers.Source(a.config(100*time.Millisecond, time.Second), log.add)
	if slow.poller != fast.poller || len(pollers.active) != 1 {
		t.Error("two pollers poll one address")
	}
	waitFor(t, "the interval of the second source", func() bool { return a.asked.Load() >= 5 })
	slow.Close()
	slow.Close()
	if len(pollers.active) != 1 {
		t.Error("the poller ended with a source that was not the last")
	}
	before := a.asked.Load()
	waitFor(t, "a look for the source that is left", func() bool { return a.asked.Load() > before })
	fast.Close()
	if len(pollers.active) != 0 {
		t.Error("the poller did not end with the last source")
	}
	// One that ended asks no more; a new source begins anew.
	waitFor(t, "the end", func() bool {
		before := a.asked.Load()
		time.Sleep(300 * time.Millisecond)
		return a.asked.Load() == before
	})
	again := pollers.Source(a.config(100*time.Millisecond, time.Second), log.add)
	defer again.Close()
	waitFor(t, "the new source", func() bool { return !again.Sample(time.Now(), 0).Stale })
}

func TestPauseIsJitteredAndBacksOff(t *testing.T) {
	for _, test := range []struct {
		interval    time.Duration
		failures    int
		least, most time.Duration
	}{
		{time.Second, 0, 900 * time.Millisecond, 1100 * time.Millisecond},
		{time.Second, 1, 1800 * time.Millisecond, 2200 * time.Millisecond},
		{time.Second, 2, 3600 * time.Millisecond, 4400 * time.Millisecond},
		{time.Second, 100, 4500 * time.Millisecond, 5500 * time.Millisecond},
		{time.Minute, 3, 54 * time.Second, 66 * time.Second},
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			got := pause(test.interval, test.failures)
			if got < test.least || got > test.most {
				t.Fatalf("%v after %d failures: got %v, want %v to %v", test.interval, test.failures, got, test.least, test.most)
			}
			seen[got] = true
		}
		if len(seen) < 50 {
			t.Errorf("%v after %d failures: only %d different pauses", test.interval, test.failures, len(seen))
		}
	}
}

func TestReadingASourceAllocatesNothing(t *testing.T) {
	a := newFakeAdmin(t)
	var pollers Pollers
	var log warnings
	s := pollers.Source(a.config(time.Minute, time.Minute), log.add)
	defer s.Close()
	waitFor(t, "the first look", func() bool { return !s.Sample(time.Now(), 0).Stale })
	now := time.Now()
	if allocated := testing.AllocsPerRun(1000, func() { s.Sample(now, 0); s.Sample(now, 1); s.Draining() }); allocated != 0 {
		t.Errorf("samples make %v allocations, want 0", allocated)
	}
	_ = os.Remove(a.path)
}
