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

	"google.golang.org/grpc/test/bufconn"

	"healthgate/filter/config"
	"healthgate/filter/gate"
	"healthgate/filter/policy"
)

// fakeAdmin is an admin interface, and the pollers that reach it. Its connections are pipes, so that time passes at once.
type fakeAdmin struct {
	pollers  Pollers
	polls    atomic.Int64 // that asked for /clusters
	dials    atomic.Int64
	handlers sync.Map // from a path to its http.HandlerFunc

	mutex sync.Mutex
	lines []string // of the log
}

// withAdmin runs a test beside an admin interface, in a bubble.
func withAdmin(t *testing.T, test func(*testing.T, *fakeAdmin)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, listener := &fakeAdmin{}, bufconn.Listen(4096)
		a.pollers.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if network != "unix" || address != "/run/admin.sock" {
				t.Errorf("connects to %s %s", network, address)
			}
			a.dials.Add(1)
			return listener.DialContext(ctx)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/clusters" {
				a.polls.Add(1)
			}
			handler, known := a.handlers.Load(r.URL.Path)
			if !known || r.Method != http.MethodGet {
				t.Errorf("got %s %s", r.Method, r.URL)
				return
			}
			handler.(http.HandlerFunc)(w, r)
		})}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		a.setState("LIVE")
		a.setHosts(1, 2)
		test(t, a)
	})
}

func (a *fakeAdmin) handle(path string, handler http.HandlerFunc) { a.handlers.Store(path, handler) }

func (a *fakeAdmin) setState(state string) {
	a.handle("/server_info", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"version": "1", "state": %q, "node": {}}`, state)
	})
}

// setHosts sets the hosts of the cluster a.
func (a *fakeAdmin) setHosts(healthy, total int) {
	a.handle("/clusters", func(w http.ResponseWriter, _ *http.Request) {
		var hosts []string
		for i := range total {
			hosts = append(hosts, fmt.Sprintf(`{"health_status": {"failed_active_health_check": %v}}`, i >= healthy))
		}
		fmt.Fprintf(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [%s]}]}`, strings.Join(hosts, ","))
	})
}

// setNames sets the clusters, of one healthy host each. Like Envoy it answers with those that the filter matches.
func (a *fakeAdmin) setNames(names ...string) {
	a.handle("/clusters", func(w http.ResponseWriter, r *http.Request) {
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

var (
	oneHealthy = policy.Sample{Counts: policy.Counts{Healthy: 1, Total: 1}}
	unknown    = policy.Sample{Unknown: true}
	stale      = policy.Sample{Stale: true}
)

// expect compares the samples of all clusters of a source.
func expect(t *testing.T, when string, s *Source, want ...policy.Sample) {
	t.Helper()
	for i := range want {
		if got := s.Sample(time.Now(), i); got != want[i] {
			t.Errorf("%s, cluster %d: got %+v, want %+v", when, i, got, want[i])
		}
	}
}

func TestSourceSamplesTheLastPoll(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		release := make(chan struct{})
		a.handle("/clusters", func(w http.ResponseWriter, _ *http.Request) {
			<-release
			io.WriteString(w, `{"cluster_statuses": [{"name": "a", "host_statuses": [{"health_status": {"pending_active_hc": true}}]}]}`)
		})
		s := a.source(t, newConfig(time.Second, 5*time.Second, true, "a", "unknown"))
		synctest.Wait()
		expect(t, "before the first response", s, stale, stale)
		close(release)
		synctest.Wait()
		expect(t, "after it", s, policy.Sample{Counts: policy.Counts{Healthy: 1, Total: 1, Excluded: 1}}, unknown)
		a.setHosts(2, 3)
		time.Sleep(2 * time.Second)
		expect(t, "after a change", s, policy.Sample{Counts: policy.Counts{Healthy: 2, Total: 3}}, unknown)
		if got := len(s.Hosts(0)); got != 3 {
			t.Errorf("got %d hosts, want 3", got)
		}
		if got := s.Hosts(1); got != nil {
			t.Errorf("an unknown cluster has hosts: %v", got)
		}
	})
}

func TestSourceIsStaleWhilePollsFail(t *testing.T) {
	write := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	begin := func(w http.ResponseWriter) {
		io.WriteString(w, `{"cluster_statuses": [{"name": "a"}`)
		w.(http.Flusher).Flush()
	}
	for _, test := range []struct {
		name, want string
		handler    http.HandlerFunc
	}{
		{"an error", "the response has status 500 Internal Server Error",
			func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }},
		{"a redirect", "the response has status 302 Found", http.RedirectHandler("http://169.254.169.254/", http.StatusFound).ServeHTTP},
		{"not JSON", "can't read the response: invalid character 'd'", write("default_priority::max_connections::1024")},
		{"another shape", `can't read the response: found "[" instead of {`, write(`["cluster_statuses"]`)},
		{"cut short", "can't read the response: unexpected EOF", write(`{"cluster_statuses": [{"name"`)},
		{"a connection closed later", "can't read the response: unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			begin(w)
			panic(http.ErrAbortHandler)
		}},
		{"a closed connection", "EOF", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"no response", "no complete response within 15s", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"a response that stops", "no complete response within 15s", func(w http.ResponseWriter, r *http.Request) {
			begin(w)
			<-r.Context().Done()
		}},
		{"another protocol", "net/http: HTTP/1.x transport connection broken: malformed HTTP", func(w http.ResponseWriter, _ *http.Request) {
			connection, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(connection, "SSH-2.0-OpenSSH_9.2\r\n")
			connection.Close()
		}},
	} {
		for _, path := range []string{"/clusters", "/server_info"} {
			t.Run(path+" "+test.name, func(t *testing.T) {
				withAdmin(t, func(t *testing.T, a *fakeAdmin) {
					a.setHosts(2, 3)
					s := a.source(t, newConfig(time.Second, 5*time.Second, true, "a"))
					time.Sleep(10 * time.Second)
					expect(t, "before", s, policy.Sample{Counts: policy.Counts{Healthy: 2, Total: 3}})
					a.handle(path, test.handler)
					time.Sleep(30 * time.Second)
					expect(t, "while it lasts", s, policy.Sample{Counts: policy.Counts{Healthy: 2, Total: 3}, Stale: true})
					time.Sleep(20 * time.Second)
					start := "healthgate: can't poll admin at /run/admin.sock: " + path + ": " + test.want
					if lines := a.log(); len(lines) != 1 || !strings.HasPrefix(lines[0], start) {
						t.Errorf("got lines %q within a minute, want one with %q", lines, test.want)
					}
					time.Sleep(time.Minute)
					if n := len(a.log()); n != 2 {
						t.Errorf("got %d lines after another minute, want 2", n)
					}
					a.setState("LIVE")
					a.setHosts(1, 3)
					time.Sleep(30 * time.Second)
					expect(t, "afterwards", s, policy.Sample{Counts: policy.Counts{Healthy: 1, Total: 3}})
				})
			})
		}
	}
}

func TestSourceReportsDraining(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		a.handle("/server_info", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Millisecond) // until the test waits
			fmt.Fprint(w, `{"version": "1", "state": "DRAINING"}`)
		})
		s := a.source(t, newConfig(time.Second, time.Minute, false)) // without clusters it is polled too
		var source gate.DrainSource = s
		if draining, known := source.Draining(); draining || known {
			t.Errorf("got %v, %v before the first poll", draining, known)
		}
		expectDraining := func(when string, want bool) {
			t.Helper()
			time.Sleep(3 * time.Second)
			if draining, known := source.Draining(); !known || draining != want {
				t.Errorf("%s: got %v, %v", when, draining, known)
			}
		}
		expectDraining("from the start", true)
		a.setState("LIVE")
		expectDraining("after its end", false)
		a.setState("DRAINING")
		expectDraining("again", true)
		a.handle("/server_info", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
		expectDraining("while polls fail", true)
		if lines := a.log(); len(lines) != 1 || !strings.Contains(lines[0], "/server_info: the response has status 500") {
			t.Errorf("got %q", lines)
		}
	})
}

func TestNewSourceIsStaleUntilAPollThatStartsAtOnce(t *testing.T) {
	withAdmin(t, func(t *testing.T, a *fakeAdmin) {
		a.setNames("a", "b")
		newSource := func(details bool, names ...string) *Source {
			return a.source(t, newConfig(time.Minute, time.Hour, details, names...))
		}
		first := newSource(false, "a", "removed")
		synctest.Wait()
		expect(t, "after the first poll", first, oneHealthy, unknown)
		expect(t, "the last poll covers it", newSource(false, "removed", "a"), unknown, oneHealthy)

		release := make(chan struct{})
		served, _ := a.handlers.Load("/clusters")
		a.handle("/clusters", func(w http.ResponseWriter, r *http.Request) {
			<-release
			served.(http.HandlerFunc)(w, r)
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
		third := newSource(true, "a") // the poll under way does not cover its hosts
		expect(t, "during the poll", second, stale, stale, oneHealthy)
		close(release)
		synctest.Wait()
		expect(t, "after the poll", second, oneHealthy, unknown, oneHealthy)
		if len(third.Hosts(0)) != 1 {
			t.Errorf("the third source has hosts %v", third.Hosts(0))
		}
		if got := second.Hosts(0); got != nil {
			t.Errorf("hosts that no report needs are kept: %v", got)
		}
		if n := a.polls.Load(); n != 3 {
			t.Errorf("%d polls, want 3", n)
		}
	})
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
		// On a busy machine net/http may close a connection that it could keep.
		if n := polls(); n < 8 || n > 12 || a.dials.Load() > 4 {
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
