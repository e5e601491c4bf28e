package suite

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"healthgate/e2e/testbed"
)

// docs/failure-modes.md says what Healthgate does in each fault.

// relayAdmin serves admin at another address.
func (s *site) relayAdmin(at string) *httptest.Server {
	s.t.Helper()
	listener, err := net.Listen("tcp", at)
	mustSucceed(s.t, err)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.envoy.Admin})
	relay := &httptest.Server{Listener: listener, Config: &http.Server{Handler: proxy}}
	relay.Start()
	s.t.Cleanup(relay.Close)
	return relay
}

func TestFaultAdminUnreachable(t *testing.T) {
	t.Parallel()
	at := unusedAddress(t).String()
	s := newServingSite(t, withGate(fmt.Sprintf(
		`{"clusters": ["service"], "source": "admin", "stale_after": "1s", "admin": {"address": "%s", "interval": "0.1s"}}`, at)))
	client := s.client("h2")
	s.awaitLog("healthgate: can't poll admin at "+at+": ", settle)
	for range 3 {
		relay := s.relayAdmin(at)
		s.awaitProbe(client, 200, settle)
		began := time.Now()
		relay.CloseClientConnections()
		relay.Close()
		s.awaitProbe(client, 503, settle)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it failed after %v, want within stale_after (1s) and a poll", took)
		}
		s.awaitDetails("healthgate_stale")
	}
	s.relayAdmin(at)
	s.awaitProbe(client, 200, settle)
}

// silentBackend returns the address of a backend that accepts connections and never answers, so the first health check does not end.
func silentBackend(t *testing.T) string {
	t.Helper()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	mustSucceed(t, err)
	t.Cleanup(func() { silent.Close() })
	return silent.Addr().String()
}

func TestFaultBackendAcceptsAndNeverAnswers(t *testing.T) {
	t.Parallel()
	silent := silentBackend(t)
	s := newSite(t, backends(2), withConfig(func(c *testbed.Bootstrap) {
		c.Patch(c.HealthCheck(), `timeout: 0.2s`)
		hosts := c.Cluster().LoadAssignment.Endpoints[0]
		hosts.LbEndpoints = append(hosts.LbEndpoints, testbed.HostAt(silent))
	}), withGate(`{"clusters": [{"name": "service", "min_healthy": 2}]}`))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle) // the two that answer
	s.awaitGauges("service", 2, 3)
	s.setBackend(0, false)
	s.awaitProbe(client, 503, settle)
	// A probe waits for no backend.
	began := time.Now()
	for range 100 {
		s.probe(client)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("100 probes took %v beside a backend that never answers", took)
	}
}

func TestFaultBackendsFlapEvery50Milliseconds(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, backends(2), onEveryRoute(), withConfig(func(c *testbed.Bootstrap) {
		c.CheckEvery("0.02s")
		c.Patch(c.HealthCheck(), `{interval_jitter: 0.001s, healthy_threshold: 1}`)
		addGate(c, "held", `{"clusters": ["service"], "path": "/held", "stat_prefix": "held", "hold": {"unhealthy_after": "2s"}}`)
	}))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	expect(t, "the first verdict, which nothing holds", s.mustDo(client, "GET", "/held", nil), 200, "ok\n", nil)
	load := s.probeUntilStopped(4)
	for i := range 100 {
		s.setBackend(0, i%2 == 1)
		s.setBackend(1, i%2 == 1)
		// The fault is to flap this often.
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
			expect(t, "a gate that holds for 2s", s.mustDo(client, "GET", "/held", nil), 200, "ok\n", nil)
		}
	}
	if answers := load.end(); answers["200"] == 0 || answers["503"] == 0 || len(answers) != 2 {
		t.Errorf("the answers were %v, want 200 and 503", answers)
	}
	// After that the answer is right.
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
}

func TestFaultTenThousandConnections(t *testing.T) {
	t.Parallel()
	const connections, clients, rounds = 10_000, 20, 3
	var limit syscall.Rlimit
	mustSucceed(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Max < connections+2000 {
		t.Skipf("a process may have %d files here, and needs %d: ulimit -Hn", limit.Max, connections+2000)
	}
	limit.Cur = limit.Max // for Envoy too, which is started with it
	mustSucceed(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	s := newServingSite(t, withoutTLS())
	conns := make([]net.Conn, connections)
	for i := range conns {
		conn, err := net.Dial("tcp", s.envoy.Ingress)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	// All of them probe, while all are open. A client has every 20th connection.
	var next [clients]int
	outcome, err := testbed.StartLoad(testbed.Pace{Clients: clients, Requests: rounds * connections}, func(client int) string {
		conn := conns[(client+clients*next[client])%connections]
		next[client]++
		return fmt.Sprint(ask(conn, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"))
	}).Wait()
	if passed := outcome.Answers["200 <nil>"]; err != nil || passed != rounds*connections {
		t.Errorf("%d of %d probes were answered with 200; %v, %v", passed, rounds*connections, outcome.Answers, err)
	}
}

func TestFaultSlowLoris(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withHCM(`request_headers_timeout: 2s`))
	var slow []net.Conn
	for range 200 {
		conn := s.dialTLS(t.Context(), "http/1.1")
		send(t, conn, "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
		slow = append(slow, conn)
	}
	load := s.probeUntilStopped(4)
	// Each sends a byte now and then, and never ends its headers.
	for began := time.Now(); len(slow) > 0; time.Sleep(50 * time.Millisecond) { // the fault is to be this slow
		slow = slices.DeleteFunc(slow, func(conn net.Conn) bool {
			_, err := io.WriteString(conn, "a")
			return err != nil
		})
		if time.Since(began) > settle {
			t.Fatalf("Envoy keeps the connections of %d clients that never end their headers", len(slow))
		}
	}
	load.mustAllPass(100)
	s.awaitStat("http.ingress.downstream_rq_active", 0)
}

// mustHaveAnswered waits until the gate has counted its answers, which may be after they are sent; it must not have answered more.
func (s *site) mustHaveAnswered(probes uint64) {
	s.t.Helper()
	s.awaitStats("healthgate.default.", map[string]uint64{"ok": probes, "failed": 0})
}

func TestFaultHeaderBombs(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, alone("it counts answers"))
	bombs := map[string][]string{
		"a value of 100 kB": {"x-bomb", strings.Repeat("a", 100_000)},
		"a name of 100 kB":  {"x-" + strings.Repeat("a", 100_000), "bomb"},
		"2,000 headers":     nil,
	}
	for i := range 2000 {
		bombs["2,000 headers"] = append(bombs["2,000 headers"], fmt.Sprint("x-bomb-", i), "a")
	}
	for _, protocol := range protocols {
		client := s.client(protocol)
		for name, headers := range bombs {
			if reply, err := s.do(client, "GET", "/", nil, headers...); err == nil && reply.status != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s over %s is answered with %d, want 431 or none", name, protocol, reply.status)
			}
		}
		expect(t, "a path of 50 kB", s.mustDo(client, "GET", "/"+strings.Repeat("a", 50_000), nil), 404, "", nil)
		expect(t, "a probe afterwards", s.probe(client), 200, "ok\n", nil)
	}
	s.mustHaveAnswered(uint64(len(protocols)))
}

func TestFaultInvalidMethodsAndPaths(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, onEveryRoute())
	for _, request := range []string{
		"get / HTTP/1.1", "GETX / HTTP/1.1", "G\x00T / HTTP/1.1", " GET / HTTP/1.1", "GET", "GET /", "\x16\x03\x01",
		"GET // HTTP/1.1", "GET /%00 HTTP/1.1", "GET /\x01 HTTP/1.1", "GET /%2f HTTP/1.1", "GET /x HTTP/9.9",
		"CONNECT / HTTP/1.1", "CONNECT localhost:80 HTTP/1.1", "TRACE / HTTP/1.1", "PRI * HTTP/2.0", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1",
		"GET / HTTP/1.1\r\ncontent-length: -1", "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2",
		"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3", "GET / HTTP/1.1\r\nbad header: x", "GET / HTTP/1.1\r\n: x",
	} {
		conn := s.dialTLS(t.Context(), "http/1.1")
		status, err := ask(conn, request+"\r\nhost: localhost\r\nconnection: close\r\n\r\n")
		if err == nil && status < 400 {
			t.Errorf("%q is answered with %d, want a refusal", request, status)
		}
		conn.Close()
	}
	s.mustHaveAnswered(0)
	s.awaitStat("cluster.service.upstream_rq_total", 0)
	expect(t, "a probe afterwards", s.probe(s.client("http/1.1")), 200, "ok\n", nil)
}

func TestFaultStormOfHTTP2Resets(t *testing.T) {
	t.Parallel()
	s := newServingSite(t)
	load := s.probeUntilStopped(4)
	var resets atomic.Int64
	storm := testbed.Pace{Clients: 10, Requests: int64(times(20, 100))} // each a connection
	outcome, _ := testbed.StartLoad(storm, func(int) string {
		w, err := s.dialWire()
		if err != nil {
			return "closed"
		}
		defer w.Close()
		go func() { _, _ = io.Copy(io.Discard, w.Conn) }() // whatever it answers
		for i := range uint32(1000) {
			w.fields(2*i+1, i%2 == 0, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "localhost")
			if err := w.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
				return "closed"
			}
			resets.Add(1)
		}
		return "open"
	}).Wait()
	t.Logf("%d streams were reset on %d connections; in the end they were %v", resets.Load(), outcome.Requests, outcome.Answers)
	if resets.Load() < 10_000 {
		t.Errorf("only %d streams were reset, too few to show anything", resets.Load())
	}
	t.Logf("the probes of 4 clients were answered with %v meanwhile", load.Answers())
	load.awaitPasses(100) // Envoy may still have a part of the storm in its buffers
	load.mustAllPass(100)
	s.awaitFreed("requests", 2000, func(h testbed.LiveObjects) int { return h.Requests })
}

func TestFaultPipelinedHTTP1(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Pipelining)
	s := newServingSite(t)
	conn := s.dialTLS(t.Context(), "http/1.1")
	mustSucceed(t, conn.SetReadDeadline(time.Now().Add(settle)))
	const pairs = 100 // of a probe and another request
	go func() {
		_, _ = io.WriteString(conn, strings.Repeat("GET / HTTP/1.1\r\nhost: localhost\r\n\r\nGET /x HTTP/1.1\r\nhost: localhost\r\n\r\n", pairs))
	}()
	reader := bufio.NewReader(conn)
	for i := range 2 * pairs {
		reply, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		body, err := io.ReadAll(reply.Body)
		if got, want := fmt.Sprintf("%d %q", reply.StatusCode, body), []string{`200 "ok\n"`, `404 ""`}[i%2]; err != nil || got != want {
			t.Fatalf("answer %d is %s, %v, want %s", i, got, err, want)
		}
	}
}

func TestFaultFullDiskForTheAccessLog(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withHCM(`access_log: [{name: full, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/full}}]`)) // logs each probe
	load := s.probeUntilStopped(4)
	s.awaitCount("writes that failed", 3, func() int { return int(s.stat("filesystem.write_failed")) })
	load.awaitPasses(100)
	load.mustAllPass(100)
}

func TestFaultSIGKILLUnderLoad(t *testing.T) {
	t.Parallel()
	port := unusedAddress(t).Port
	s := newServingSite(t, withConfig(func(c *testbed.Bootstrap) { c.Listen(port, 0) }))
	load := s.probeUntilStopped(4)
	load.awaitPasses(200)
	for range 3 {
		s.envoy.Kill()
		s.restart(testbed.Options{})
		load.awaitPasses(200)
	}
	if len(load.Answers()) == 1 {
		t.Error("each probe was answered, so this shows nothing")
	}
	load.mustPassIfAnswered()
}

// restartHot replaces Envoy by another with the site's configuration. Until the old one has ended, it calls meanwhile.
func (s *site) restartHot(meanwhile func()) {
	s.t.Helper()
	before := s.envoy
	s.restart(testbed.Options{TakeOver: before})
	for before.Alive() {
		meanwhile()
	}
	if err := before.Wait(settle); err != nil {
		s.t.Errorf("the old Envoy ended with %v", err)
	}
}

// Envoy imports gauges from the process that it replaces, and adds some of them. It must not add the clusters' gauges: a gate that
// needs more hosts than exist would pass.
func TestFaultHotRestartUnderLoad(t *testing.T) {
	t.Parallel()
	port := unusedAddress(t).Port
	s := newServingSite(t, backends(2), onEveryRoute(), withConfig(func(c *testbed.Bootstrap) {
		c.Listen(port, 0)
		c.Patch(c.Bootstrap, `stats_flush_interval: 0.05s`)
		addGate(c, "three", `{"clusters": [{"name": "service", "min_healthy": 3}], "path": "/three", "stat_prefix": "three"}`)
	}))
	s.awaitProbe(s.client("h2"), 200, settle)
	load := s.probeUntilStopped(4)
	for range 2 {
		probes := 0
		s.restartHot(func() {
			conn := s.dialTLS(t.Context(), "http/1.1") // a new connection: either process may answer
			status, err := ask(conn, "GET /three HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
			conn.Close()
			if err == nil && status != 503 {
				t.Fatalf("a gate that needs 3 of 2 hosts answers %d", status)
			}
			probes++
		})
		if probes < 10 {
			t.Errorf("only %d probes were made while both processes ran", probes)
		}
		s.awaitGauges("service", 2, 2)
	}
	load.mustAllPass(200)
}

// Envoy also imports the gauges of clusters that the new process does not have: while the old one runs they have its values, and a plugin
// cannot know. Admin shows the new process's own clusters.
func TestFaultHotRestartToFewerClusters(t *testing.T) {
	t.Parallel()
	port, admin := unusedAddress(t).Port, unusedAddress(t)
	byAdmin := func(body string) string {
		return fmt.Sprintf(`{"clusters": ["extra"], "path": "/admin", "stat_prefix": "admin", "source": "admin",
			"admin": {"address": "%s", "interval": "0.1s"}, "response": {"healthy": {"body": "%s\n"}}}`, admin, body)
	}
	s := newSite(t, onEveryRoute(), withConfig(func(c *testbed.Bootstrap) {
		c.Listen(port, admin.Port)
		c.Patch(c.Bootstrap, `stats_flush_interval: 0.05s`)
		c.AddCluster(c.CopyCluster("extra"))
		addGate(c, "stats", `{"clusters": ["extra"], "path": "/stats", "stat_prefix": "stats"}`)
		addGate(c, "admin", byAdmin("old"))
	}))
	s.awaitPath("/admin", 200)
	// The new one has no such cluster, and its gate has another body.
	s.config.StaticResources.Clusters = s.config.StaticResources.Clusters[:1]
	testbed.SetStruct(s.config.GateNamed("admin"), byAdmin("new"))
	statsPassed, adminFailed := 0, 0
	s.restartHot(func() {
		client := s.client("http/1.1") // a new connection: either process may answer
		defer client.CloseIdleConnections()
		if reply, err := s.do(client, "GET", "/admin", nil); err == nil && reply.status == 503 {
			adminFailed++
		} else if err == nil && reply.body == "new\n" {
			t.Fatal("with source: admin the new process passes for a cluster that it does not have")
		}
		if reply, err := s.do(client, "GET", "/stats", nil); err == nil && reply.status == 200 {
			statsPassed++
		}
	})
	t.Logf("while both processes ran, %d probes passed with source: stats, and %d failed with source: admin", statsPassed, adminFailed)
	if adminFailed == 0 {
		t.Error("no probe was answered by the new process")
	}
	s.awaitSample() // Envoy drops the imported values after the old process has ended
	for _, path := range []string{"/stats", "/admin"} {
		expect(t, path, s.path(path), 503, "unavailable\n", nil)
	}
}

func TestFaultWallClockJumps(t *testing.T) {
	t.Parallel()
	clock := filepath.Join(testbed.Root(), "build", "clock.so")
	if _, err := os.Stat(clock); err != nil {
		t.Fatalf("%v: make build/clock.so", err)
	}
	jump, err := os.Create(filepath.Join(t.TempDir(), "jump"))
	mustSucceed(t, err)
	defer jump.Close()
	set := func(ahead time.Duration) {
		_, err := jump.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead/time.Second)), 0)
		mustSucceed(t, err)
	}
	set(0)
	s := newServingSite(t, onEveryRoute(), withEnv("LD_PRELOAD="+clock, "CLOCK_JUMP="+jump.Name()),
		withGate(`{"clusters": ["service"], "stale_after": "2s"}`), withConfig(func(c *testbed.Bootstrap) {
			addGate(c, "held", `{"clusters": ["service"], "path": "/held", "stat_prefix": "held", "hold": {"unhealthy_after": "60s"}}`)
		}))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle)
	expect(t, "held", s.mustDo(client, "GET", "/held", nil), 200, "ok\n", nil)
	load := s.probeUntilStopped(2)
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 365 * 24 * time.Hour, 0} {
		set(ahead)
		// Envoy's own clock has jumped, which its log shows.
		path := fmt.Sprint("/jumped?", ahead)
		s.mustDo(client, "GET", path, nil)
		hour := time.Now().Add(ahead).UTC().Format("2006-01-02T15:")
		s.awaitCount("requests logged in the hour "+hour, 1, func() (n int) {
			for line := range strings.Lines(s.envoy.Log()) {
				if strings.Contains(line, `"path":"`+path) && strings.Contains(line, `"time":"`+hour) {
					n++
				}
			}
			return n
		})
		s.awaitIncrease("cluster.service.health_check.attempt", 5)
	}
	load.mustAllPass(100)
	// A verdict is held for a minute of the monotonic clock, whatever the wall clock shows.
	s.setServing(0)
	set(time.Hour)
	for range 50 {
		expect(t, "held", s.mustDo(client, "GET", "/held", nil), 200, "ok\n", nil)
	}
}

func TestFaultMemoryLimitAndGarbageCollection(t *testing.T) {
	subtests(t, map[string]string{"GOMEMLIMIT": "GOMEMLIMIT=4MiB", "GOGC": "GOGC=1"}, func(t *testing.T, env string) {
		s := newServingSite(t, withEnv(env))
		load := s.probeUntilStopped(8)
		load.awaitPasses(10_000)
		load.mustAllPass(10_000)
	})
}

func TestFaultFloodOfLDSUpdates(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withLDS())
	s.awaitProbe(s.client("h2"), 200, time.Second)
	load := s.probeUntilStopped(2)
	s.mustNotGrow(16, 300, 1000, func(i int) {
		s.update(s.nextListener(fmt.Sprintf(`{"clusters": ["service"], "stat_prefix": "flood%d"}`, i%7)))
	})
	load.mustAllPass(100)
	s.awaitFreed("configurations", 7, func(h testbed.LiveObjects) int { return h.Configurations })
}

func TestSIGTERMUnderLoadEndsEnvoyInOrder(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, alone("it ends Envoy"))
	load := s.probeUntilStopped(16)
	load.awaitPasses(500)
	s.mustEndInOrder()
	load.mustPassIfAnswered()
}

// Two workers, frequent garbage collections, and one in eight probes is cancelled.
func TestFiftyThousandProbesWithCancellationsAndCollections(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, withEnv("GOGC=10"), func(p *plan) { p.options.Workers = 2 })
	s.awaitProbe(s.client("h2"), 200, time.Second)
	const probes, clients = 50_000, 16
	var all [clients]*http.Client
	var random [clients]*rand.Rand
	for i := range clients {
		all[i], random[i] = s.client(protocols[i%2]), rand.New(rand.NewPCG(1, uint64(i)))
	}
	outcome, err := testbed.StartLoad(testbed.Pace{Clients: clients, Requests: probes}, func(i int) string {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		aborts := random[i].IntN(8) == 0
		if aborts {
			time.AfterFunc(time.Duration(random[i].IntN(2000))*time.Microsecond, cancel)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/"), nil)
		if err != nil {
			return err.Error()
		}
		reply, err := sendRequest(all[i], request)
		switch {
		case err == nil:
			return strconv.Itoa(reply.status)
		case aborts:
			return "cancelled"
		}
		return err.Error()
	}).Wait()
	answers := outcome.Answers
	if err != nil || answers["cancelled"] < 100 || answers["200"] < probes/2 || answers["200"]+answers["cancelled"] != probes {
		t.Errorf("the answers were %v, %v", answers, err)
	}
	expect(t, "a probe afterwards", s.probe(s.client("h2")), 200, "ok\n", nil)
	// Go frees unanswered requests, too.
	s.awaitFreed("requests", 2000, func(h testbed.LiveObjects) int { return h.Requests })
}

// A call for a metric panics inside the filter if Envoy has dropped the configuration. The test makes such calls fail.
func TestPanicInTheFilterFailsTheProbe(t *testing.T) {
	t.Parallel()
	needs(t, testbed.LoseMetrics)
	s := newServingSite(t, alone("it makes the plugin fail"))
	client := s.client("h2")
	expect(t, "before", s.awaitProbe(client, 200, time.Second), 200, "ok\n", nil)
	mustSucceed(t, variant.LoseMetrics(s.envoy, true))
	for range 10 {
		expect(t, "a probe that panics", s.probe(client), 503, "unavailable\n", map[string]string{"cache-control": "no-store"})
	}
	s.awaitDetails("healthgate_error")
	s.awaitLog("healthgate: panic", settle)
	mustSucceed(t, variant.LoseMetrics(s.envoy, false))
	expect(t, "after", s.probe(client), 200, "ok\n", nil)
	s.mustEndInOrder()
}

func TestProbeFailsAfterTheBackendsWereKilled(t *testing.T) {
	t.Parallel()
	s := newServingSite(t, backends(2), alone("it ends the backends"))
	client := s.client("http/1.1")
	s.awaitProbe(client, 200, time.Second)
	for _, backend := range s.backends {
		backend.Kill()
	}
	s.awaitHealthy(map[*testbed.Backend]bool{s.backends[0]: false, s.backends[1]: false})
	s.awaitProbe(client, 503, time.Second)
	if !s.envoy.Alive() {
		t.Error("envoy has ended")
	}
}
