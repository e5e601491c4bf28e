package adminsource

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/gate"
	"healthgate/filter/policy"
)

// fakeAdmin is an admin interface, and the pollers that reach it. Its connections are pipes, so that time passes at once.
type fakeAdmin struct {
	pollers  Pollers
	polls    atomic.Int64 // that asked for /clusters
	dials    atomic.Int64
	info     atomic.Value // http.HandlerFunc for /server_info
	clusters atomic.Value // http.HandlerFunc for /clusters

	connections chan net.Conn
	closed      chan struct{}

	mutex sync.Mutex
	lines []string // of the log
}

func (a *fakeAdmin) Accept() (net.Conn, error) {
	select {
	case c := <-a.connections:
		return c, nil
	case <-a.closed:
		return nil, net.ErrClosed
	}
}
func (a *fakeAdmin) Close() error   { close(a.closed); return nil }
func (a *fakeAdmin) Addr() net.Addr { return &net.UnixAddr{Name: "/run/admin.sock", Net: "unix"} }

// withAdmin runs a test beside an admin interface, in a bubble.
func withAdmin(t *testing.T, test func(*testing.T, *fakeAdmin)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &fakeAdmin{connections: make(chan net.Conn), closed: make(chan struct{})}
		a.pollers.dial = func(_ context.Context, network, address string) (net.Conn, error) {
			if network != "unix" || address != "/run/admin.sock" {
				t.Errorf("connects to %s %s", network, address)
			}
			a.dials.Add(1)
			ours, theirs := net.Pipe()
			a.connections <- theirs
			return ours, nil
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodGet && r.URL.String() == "/server_info":
				a.info.Load().(http.HandlerFunc)(w, r)
			case r.Method == http.MethodGet && r.URL.Path == "/clusters" && r.URL.Query().Get("format") == "json":
				a.polls.Add(1)
				a.clusters.Load().(http.HandlerFunc)(w, r)
			default:
				t.Errorf("got %s %s", r.Method, r.URL)
			}
		})}
		go server.Serve(a)
		t.Cleanup(func() { server.Close() })
		a.setState("LIVE")
		a.setHosts(1, 2)
		test(t, a)
	})
}

func (a *fakeAdmin) setInfo(answer http.HandlerFunc)     { a.info.Store(answer) }
func (a *fakeAdmin) setClusters(answer http.HandlerFunc) { a.clusters.Store(answer) }

func (a *fakeAdmin) setState(state string) {
	a.setInfo(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"version": "1", "state": %q, "node": {}}`, state)
	})
}

// setHosts sets the hosts of the cluster a.
func (a *fakeAdmin) setHosts(healthy, total int) {
	a.setClusters(func(w http.ResponseWriter, _ *http.Request) {
		var hosts []string
		for i := range total {
			hosts = append(hosts, fmt.Sprintf(`{"health_status": {"failed_active_health_check": %v}}`, i >= healthy))
		}
		fmt.Fprintf(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [%s]}]}`, strings.Join(hosts, ","))
	})
}

// setNames sets the clusters, of one healthy host each. Like Envoy it answers with those that the filter matches.
func (a *fakeAdmin) setNames(names ...string) {
	a.setClusters(func(w http.ResponseWriter, r *http.Request) {
		filter := regexp.MustCompile(r.URL.Query().Get("filter"))
		var statuses []string
		for _, name := range names {
			if filter.MatchString(name) {
				statuses = append(statuses, fmt.Sprintf(`{"name": %q, "host_statuses": [{}]}`, name))
			}
		}
		fmt.Fprintf(w, `{"cluster_statuses": [%s]}`, strings.Join(statuses, ","))
	})
}

func newConfig(interval, staleAfter time.Duration, details bool, names ...string) *config.Config {
	c := &config.Config{StaleAfter: staleAfter, Details: details,
		Admin: &config.Admin{Network: "unix", Address: "/run/admin.sock", Interval: interval}}
	for _, name := range names {
		c.Clusters = append(c.Clusters, policy.Cluster{Name: name})
	}
	return c
}

func (a *fakeAdmin) source(t *testing.T, c *config.Config) *Source {
	t.Helper()
	s := a.pollers.Source(c, func(line string) {
		a.mutex.Lock()
		defer a.mutex.Unlock()
		a.lines = append(a.lines, line)
	})
	t.Cleanup(s.Close)
	return s
}

func (a *fakeAdmin) log() []string {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return append([]string(nil), a.lines...)
}

var oneHealthy = policy.Sample{Counts: policy.Counts{Healthy: 1, Total: 1}}

func TestSourceSamplesTheLastPoll(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		release := make(chan struct{})
		a.setClusters(func(w http.ResponseWriter, _ *http.Request) {
			<-release
			io.WriteString(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [{"health_status": {"pending_active_hc": true}}]}]}`)
		})
		s := a.source(t, newConfig(time.Second, 5*time.Second, true, "a", "unknown"))
		synctest.Wait()
		for i := range 2 {
			if got := s.Sample(time.Now(), i); got != (policy.Sample{Stale: true}) {
				t.Errorf("got %+v before the first response, want stale", got)
			}
		}
		close(release)
		synctest.Wait()
		if got := s.Sample(time.Now(), 0); got != (policy.Sample{Counts: policy.Counts{Healthy: 1, Total: 1, Excluded: 1}}) {
			t.Errorf("got %+v", got)
		}
		if got := s.Sample(time.Now(), 1); got != (policy.Sample{Unknown: true}) {
			t.Errorf("got %+v for an unknown cluster", got)
		}
		a.setHosts(2, 3)
		time.Sleep(2 * time.Second)
		if got := s.Sample(time.Now(), 0).Healthy; got != 2 {
			t.Errorf("got %d healthy hosts after a change, want 2", got)
		}
		if got := len(s.Hosts(0)); got != 3 {
			t.Errorf("got %d hosts, want 3", got)
		}
		if got := s.Hosts(1); got != nil {
			t.Errorf("an unknown cluster has hosts: %v", got)
		}
	})
}

func TestSourceIsStaleWhilePollsFail(t *testing.T) {
	for name, wrong := range map[string]http.HandlerFunc{
		"an error":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) },
		"not JSON": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "default_priority::max_connections::1024")
		},
		"cut short": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"cluster_statuses": [{"name"`) },
		"without end": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"cluster_statuses": []}`)
			space := []byte(strings.Repeat(" ", 1<<20))
			for range 20 {
				if _, err := w.Write(space); err != nil {
					return
				}
			}
		},
		"a closed connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a connection closed later": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"cluster_statuses": [{"name": "a"}`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"another shape": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `["cluster_statuses"]`) },
		"no response":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		for path, set := range map[string]func(*fakeAdmin, http.HandlerFunc){"/clusters": (*fakeAdmin).setClusters,
			"/server_info": (*fakeAdmin).setInfo} {
			t.Run(path+" "+name, func(t *testing.T) {
				withAdmin(t, func(t *testing.T, a *fakeAdmin) {
					a.setHosts(2, 3)
					s := a.source(t, newConfig(time.Second, 5*time.Second, true, "a"))
					time.Sleep(10 * time.Second)
					if got := s.Sample(time.Now(), 0); got.Stale || got.Healthy != 2 || len(a.log()) != 0 {
						t.Fatalf("got %+v with %q before", got, a.log())
					}
					set(a, wrong)
					time.Sleep(30 * time.Second)
					if got := s.Sample(time.Now(), 0); !got.Stale || got.Healthy != 2 {
						t.Errorf("got %+v, want stale and the last counts", got)
					}
					time.Sleep(20 * time.Second)
					if lines := a.log(); len(lines) != 1 || !strings.HasPrefix(lines[0], "healthgate: can't poll admin at /run/admin.sock: "+path+": ") {
						t.Errorf("got lines %q within a minute, want one", lines)
					}
					time.Sleep(time.Minute)
					if n := len(a.log()); n != 2 {
						t.Errorf("got %d lines after another minute, want 2", n)
					}
					a.setState("LIVE")
					a.setHosts(1, 3)
					time.Sleep(30 * time.Second)
					if got := s.Sample(time.Now(), 0); got.Stale || got.Healthy != 1 {
						t.Errorf("got %+v afterwards", got)
					}
				})
			})
		}
	}
}

func TestSourceReportsDraining(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		a.setState("DRAINING")
		s := a.source(t, newConfig(time.Second, time.Minute, false, "a"))
		var source gate.DrainSource = s
		if draining, known := source.Draining(); draining || known {
			t.Errorf("got %v, %v before the first poll", draining, known)
		}
		expect := func(when string, want bool) {
			t.Helper()
			time.Sleep(3 * time.Second)
			if draining, known := source.Draining(); !known || draining != want {
				t.Errorf("%s: got %v, %v", when, draining, known)
			}
		}
		expect("from the start", true)
		a.setState("LIVE")
		expect("after its end", false)
		a.setState("DRAINING")
		expect("again", true)
		a.setInfo(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
		expect("while polls fail", true)
		if lines := a.log(); len(lines) != 1 || !strings.Contains(lines[0], "/server_info: the response has status 500") {
			t.Errorf("got %q", lines)
		}
	})
}

func TestNewSourceIsStaleUntilAPollThatStartsAtOnce(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		a.setNames("a", "b", "c")
		newSource := func(details bool, names ...string) *Source {
			return a.source(t, newConfig(time.Minute, time.Hour, details, names...))
		}
		first := newSource(false, "a", "removed")
		synctest.Wait()
		if got := first.Sample(time.Now(), 0); got != oneHealthy {
			t.Fatalf("got %+v after the first poll", got)
		}

		again := newSource(false, "removed", "a") // the last poll covers it
		if got := again.Sample(time.Now(), 0); got != (policy.Sample{Unknown: true}) {
			t.Errorf("got %+v for a cluster that the last poll did not find", got)
		}
		if got := again.Sample(time.Now(), 1); got != oneHealthy {
			t.Errorf("got %+v for a cluster that the last poll found", got)
		}

		release, served := make(chan struct{}), a.clusters.Load().(http.HandlerFunc)
		a.setClusters(func(w http.ResponseWriter, r *http.Request) {
			<-release
			served(w, r)
		})
		second := newSource(false, "b", "unknown", "a")
		synctest.Wait()
		if n := a.polls.Load(); n != 2 {
			t.Fatalf("%d polls, want a second one at once", n)
		}
		newSource(false, "b") // the poll under way covers it
		if len(second.poller.wake) > 0 {
			t.Error("another poll is due for a cluster that is being polled")
		}
		third := newSource(true, "c", "a") // the poll under way does not cover it
		for i, want := range []policy.Sample{{Stale: true}, {Stale: true}, oneHealthy} {
			if got := second.Sample(time.Now(), i); got != want {
				t.Errorf("cluster %d: got %+v during the poll, want %+v", i, got, want)
			}
		}
		close(release)
		synctest.Wait()
		if b, unknown := second.Sample(time.Now(), 0), second.Sample(time.Now(), 1); b != oneHealthy ||
			unknown != (policy.Sample{Unknown: true}) {
			t.Errorf("got %+v and %+v after the poll", b, unknown)
		}
		if third.Sample(time.Now(), 0) != oneHealthy || len(third.Hosts(0)) != 1 || len(third.Hosts(1)) != 1 {
			t.Errorf("got %+v and hosts %v, %v for the third source", third.Sample(time.Now(), 0), third.Hosts(0), third.Hosts(1))
		}
		if got := second.Hosts(0); got != nil {
			t.Errorf("hosts that no report needs are kept: %v", got)
		}
		if n := a.polls.Load(); n != 3 {
			t.Errorf("%d polls, want 3", n)
		}
	})
}

func TestCovers(t *testing.T) {
	for _, test := range []struct {
		name   string
		wanted wanted
		source Source
		want   bool
	}{
		{"no poll yet", nil, Source{names: []string{"a"}}, false},
		{"no poll yet, and no cluster", nil, Source{}, false},
		{"a cluster", wanted{"a": false}, Source{names: []string{"a"}}, true},
		{"another", wanted{"b": true}, Source{names: []string{"a"}}, false},
		{"one of two", wanted{"a": true}, Source{names: []string{"a", "b"}}, false},
		{"hosts", wanted{"a": true}, Source{names: []string{"a"}, reports: true}, true},
		{"unwanted hosts", wanted{"a": false}, Source{names: []string{"a"}, reports: true}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.wanted.covers(&test.source); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestClustersOfAClosedSourceAreNotKept(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		a.setNames("a", "b")
		s := a.source(t, newConfig(time.Second, time.Minute, true, "a"))
		other := a.source(t, newConfig(time.Second, time.Minute, true, "b"))
		time.Sleep(3 * time.Second)
		if got := tally(s.poller.latest.Load().clusters); got != "a 1/1 kept 1, b 1/1 kept 1" {
			t.Errorf("got %s of both", got)
		}
		other.Close()
		time.Sleep(3 * time.Second)
		if got := tally(s.poller.latest.Load().clusters); got != "a 1/1 kept 1" {
			t.Errorf("got %s of one", got)
		}
	})
}

func TestOnePollerServesAllSourcesOfAnAddress(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		slow := a.source(t, newConfig(time.Minute, time.Second, false, "a"))
		synctest.Wait()
		fast := a.source(t, newConfig(time.Second, time.Second, false, "a"))
		if slow.poller != fast.poller || len(a.pollers.active) != 1 {
			t.Error("two pollers poll one address")
		}
		polls := func() int64 {
			before := a.polls.Load()
			time.Sleep(10 * time.Second)
			return a.polls.Load() - before
		}
		if n := polls(); n < 8 || n > 12 || a.dials.Load() != 1 {
			t.Errorf("%d polls in 10s with the second source's interval of 1s, over %d connections", n, a.dials.Load())
		}
		slow.Close()
		slow.Close()
		if len(a.pollers.active) != 1 || polls() < 8 {
			t.Error("the poller ended with a source that was not the last")
		}
		fast.Close()
		if n := len(a.pollers.active) + int(polls()); n != 0 {
			t.Errorf("after the last source there are pollers or polls: %d", n)
		}
		again := a.source(t, newConfig(time.Second, time.Second, false, "a"))
		synctest.Wait()
		if again.Sample(time.Now(), 0).Stale {
			t.Error("a new source is not polled")
		}
	})
}

func TestConnectingEndsWithItsPollOrSource(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		var pending, most atomic.Int64
		a.pollers.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			most.Store(max(most.Load(), pending.Add(1)))
			defer pending.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		s := a.source(t, newConfig(time.Second, 5*time.Second, false, "a"))
		time.Sleep(10 * time.Minute)
		if n := most.Load(); n != 1 {
			t.Errorf("%d connections are being made at a time, want 1", n)
		}
		time.Sleep(maxPollTime / 2)
		s.Close()
		synctest.Wait()
		if n := pending.Load(); n != 0 {
			t.Errorf("%d connections are still being made after the last source", n)
		}
	})
}

func TestPauseIsJitteredAndBacksOff(t *testing.T) {
	for _, test := range []struct {
		interval          time.Duration
		failures          int
		shortest, longest time.Duration
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
			if got < test.shortest || got > test.longest {
				t.Fatalf("%v after %d failures: got %v, want %v to %v", test.interval, test.failures, got, test.shortest, test.longest)
			}
			seen[got] = true
		}
		if len(seen) < 50 {
			t.Errorf("%v after %d failures: only %d different pauses", test.interval, test.failures, len(seen))
		}
	}
}

func TestSampleAllocatesNothing(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		s := a.source(t, newConfig(time.Minute, time.Minute, true, "a", "unknown"))
		synctest.Wait()
		now := time.Now()
		if allocated := testing.AllocsPerRun(1000, func() { s.Sample(now, 0); s.Sample(now, 1); s.Draining() }); allocated != 0 {
			t.Errorf("samples make %v allocations, want 0", allocated)
		}
	})
}
