package admin

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"healthgate/filter"
)

func TestDecodeCountsHostsAsEnvoyDoes(t *testing.T) {
	// One host a line, each with what Envoy would count it as.
	hosts := []struct{ status, health string }{
		{`{"eds_health_status": "HEALTHY"}`, "healthy"},
		{`{}`, "healthy"},
		{`{"pending_dynamic_removal": true, "eds_health_status": "HEALTHY"}`, "healthy"},
		{`{"eds_health_status": "UNHEALTHY"}`, "unhealthy by discovery"},
		{`{"eds_health_status": "DRAINING"}`, "draining by discovery"},
		{`{"eds_health_status": "TIMEOUT"}`, "timeout by discovery"},
		{`{"eds_health_status": "DEGRADED"}`, "degraded"},
		{`{"eds_health_status": "OF_A_LATER_ENVOY"}`, "of_a_later_envoy by discovery"},
		{`{"failed_active_degraded_check": true}`, "degraded"},
		{`{"failed_degraded_outlier_detection": true}`, "degraded"},
		{`{"failed_active_health_check": true, "pending_active_hc": true}`, "failed active health check"},
		{`{"failed_outlier_check": true}`, "ejected by outlier detection"},
		{`{"failed_active_health_check": true, "eds_health_status": "DEGRADED"}`, "failed active health check"},
		{`{"failed_active_degraded_check": true, "eds_health_status": "UNHEALTHY"}`, "unhealthy by discovery"},
		{`{"a_field_of_a_later_envoy": true}`, "healthy"},
	}
	var list, want []string
	for i, host := range hosts {
		list = append(list, fmt.Sprintf(`{"address": {"socket_address": {"address": "10.0.0.1", "port_value": %d}}, "health_status": %s}`, i+1, host.status))
		want = append(want, fmt.Sprintf("10.0.0.1:%d %s", i+1, host.health))
	}
	clusters, err := decode([]byte(`{"cluster_statuses": [{"name": "a", "later": 1, "host_statuses": [` + strings.Join(list, ",") + `]}, {"name": "b"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := clusters["a"].counts, (filter.Counts{Healthy: 4, Degraded: 3, Total: uint64(len(hosts))}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var got []string
	for _, host := range clusters["a"].hosts {
		got = append(got, host.Address+" "+host.Status)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := clusters["b"].counts; got != (filter.Counts{}) {
		t.Errorf("got %+v for a cluster without hosts", got)
	}
}

func TestDecodeNamesEveryKindOfAddress(t *testing.T) {
	for text, want := range map[string]string{
		`{"socket_address": {"address": "::1", "port_value": 80}}`:                    "[::1]:80",
		`{"pipe": {"path": "/run/a.sock"}}`:                                           "/run/a.sock",
		`{"envoy_internal_address": {"server_listener_name": "internal"}}`:            "internal",
		`{"socket_address": {"address": "10.0.0.1", "port_value": 1, "later": true}}`: "10.0.0.1:1",
	} {
		clusters, err := decode([]byte(`{"cluster_statuses": [{"name": "a", "host_statuses": [{"address": ` + text + `}]}]}`))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := clusters["a"].hosts[0].Address; got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"cluster_statuses": [{"name": "a", "host_statuses": [{"health_status": {"eds_health_status": "HEALTHY"}}]}]}`))
	f.Add([]byte(`{"cluster_statuses": [{"name": "a", "host_statuses": [{"address": {"pipe": {"path": "/a"}}}, {}]}, {}]}`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`{"cluster_statuses": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		clusters, err := decode(text)
		if err != nil {
			return
		}
		for name, c := range clusters {
			if c.counts.Healthy+c.counts.Degraded > c.counts.Total || uint64(len(c.hosts)) != c.counts.Total {
				t.Errorf("%s: %+v with %d hosts", name, c.counts, len(c.hosts))
			}
		}
	})
}

// fakeAdmin is an admin interface on a unix socket.
type fakeAdmin struct {
	path    string
	asked   atomic.Int64
	handler atomic.Value // of func(http.ResponseWriter)
}

func newFakeAdmin(t *testing.T) *fakeAdmin {
	t.Helper()
	a := &fakeAdmin{path: filepath.Join(t.TempDir(), "admin.sock")}
	listener, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		if r.URL.String() != "/clusters?format=json" || r.Method != http.MethodGet {
			t.Errorf("asked for %s %s", r.Method, r.URL)
		}
		a.handler.Load().(func(http.ResponseWriter))(w)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	a.answer(1, 2)
	return a
}

func (a *fakeAdmin) do(handler func(http.ResponseWriter)) { a.handler.Store(handler) }

func (a *fakeAdmin) answer(healthy, total int) {
	a.do(func(w http.ResponseWriter) {
		var hosts []string
		for i := range total {
			hosts = append(hosts, fmt.Sprintf(`{"health_status": {"failed_active_health_check": %v}}`, i >= healthy))
		}
		fmt.Fprintf(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [%s]}]}`, strings.Join(hosts, ","))
	})
}

func (a *fakeAdmin) config(interval, staleAfter time.Duration) *filter.Config {
	return &filter.Config{
		Policy:     filter.Policy{Clusters: []filter.Cluster{{Name: "a"}, {Name: "nobody"}}},
		StaleAfter: staleAfter,
		Admin:      &filter.Admin{Network: "unix", Address: a.path, Interval: interval},
	}
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

func TestSourceGivesWhatAdminSaysAndTurnsStaleWithoutIt(t *testing.T) {
	a := newFakeAdmin(t)
	gate := make(chan struct{})
	a.do(func(w http.ResponseWriter) {
		<-gate
		io.WriteString(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [{}]}]}`)
	})
	var pollers Pollers
	var log warnings
	s := pollers.Source(a.config(100*time.Millisecond, 500*time.Millisecond), log.add)
	defer s.Close()
	if got := s.Sample(time.Now(), 0); !got.Stale {
		t.Errorf("got %+v before the first answer, want stale", got)
	}
	close(gate)
	waitFor(t, "the first answer", func() bool {
		return s.Sample(time.Now(), 0) == filter.Sample{Counts: filter.Counts{Healthy: 1, Total: 1}}
	})
	if got := s.Sample(time.Now(), 1); got != (filter.Sample{}) {
		t.Errorf("got %+v for a cluster that is not there, want none and not stale", got)
	}
	a.answer(2, 3)
	waitFor(t, "the change", func() bool { return s.Sample(time.Now(), 0).Healthy == 2 })
	if got := len(s.Hosts(0)); got != 3 {
		t.Errorf("got %d hosts, want 3", got)
	}
	// Whatever goes wrong, the health turns stale, keeps its last counts, and comes back.
	for name, wrong := range map[string]func(http.ResponseWriter){
		"an error":      func(w http.ResponseWriter) { http.Error(w, "no", http.StatusInternalServerError) },
		"a redirect":    func(w http.ResponseWriter) { w.Header().Set("location", "/"); w.WriteHeader(http.StatusFound) },
		"not JSON":      func(w http.ResponseWriter) { io.WriteString(w, "default_priority::max_connections::1024") },
		"cut short":     func(w http.ResponseWriter) { io.WriteString(w, `{"cluster_statuses": [{"name"`) },
		"without end":   func(w http.ResponseWriter) { writeMuch(w) },
		"hanging up":    func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"another shape": func(w http.ResponseWriter) { io.WriteString(w, `{"cluster_statuses": "a"}`) },
	} {
		a.do(wrong)
		waitFor(t, name, func() bool { got := s.Sample(time.Now(), 0); return got.Stale && got.Healthy == 2 })
		a.answer(2, 3)
		waitFor(t, "the end of "+name, func() bool { return !s.Sample(time.Now(), 0).Stale })
	}
	// Within a minute one line tells of all of it.
	if lines := log.all(); len(lines) != 1 || !strings.HasPrefix(lines[0], "healthgate: admin at "+a.path+" can't be asked") {
		t.Errorf("got lines %q, want one", lines)
	}
}

// writeMuch writes more than an answer may have; what is within the bound is well-formed.
func writeMuch(w io.Writer) {
	io.WriteString(w, `{"cluster_statuses": []}`)
	chunk := []byte(strings.Repeat(" ", 1<<20))
	for range 20 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
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
	if allocated := testing.AllocsPerRun(1000, func() { s.Sample(now, 0) }); allocated != 0 {
		t.Errorf("a sample makes %v allocations, want 0", allocated)
	}
	_ = os.Remove(a.path)
}
