package suite

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"healthgate/e2e/testbed"
)

// docs/failure-modes.md says what Healthgate does in each fault.

// relay forwards connections until it is cut.
type relay struct {
	listener net.Listener
	mutex    sync.Mutex
	open     []net.Conn
}

func newRelay(t *testing.T, at string, to func() string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener}
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			onward, err := net.Dial("tcp", to())
			if err != nil {
				from.Close()
				continue
			}
			r.mutex.Lock()
			r.open = append(r.open, from, onward)
			r.mutex.Unlock()
			go func() { _, _ = io.Copy(onward, from); onward.Close() }()
			go func() { _, _ = io.Copy(from, onward); from.Close() }()
		}
	}()
	t.Cleanup(r.cut)
	return r
}

func (r *relay) cut() {
	r.listener.Close()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, conn := range r.open {
		conn.Close()
	}
}

func TestFaultAdminUnreachable(t *testing.T) {
	t.Parallel()
	at := unusedAddress(t).String()
	s := newSite(
		t,
		withGate(
			fmt.Sprintf(`{"clusters": ["service"], "source": "admin", "stale_after": "1s", "admin": {"address": "%s", "interval": "0.1s"}}`, at)),
	)
	client := s.client("h2")
	s.setServing(1)
	relay := newRelay(t, at, func() string { return s.envoy.Admin })
	s.awaitProbe(client, 200, settle)
	for range 3 {
		began := time.Now()
		relay.cut()
		s.awaitProbe(client, 503, settle)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it failed after %v, want within stale_after (1s) and a poll", took)
		}
		s.awaitLog(`"details":"healthgate_stale"`, settle)
		relay = newRelay(t, at, func() string { return s.envoy.Admin })
		s.awaitProbe(client, 200, settle)
	}
}

func TestFaultBackendAcceptsAndNeverAnswers(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := newSite(t, backends(2), withConfig(func(c *testbed.Bootstrap) {
		c.Patch(c.HealthCheck(), `timeout: 0.2s`)
		hosts := c.Cluster().LoadAssignment.Endpoints[0]
		hosts.LbEndpoints = append(hosts.LbEndpoints, testbed.HostAt(silent.Addr().String()))
	}), withGate(`{"clusters": [{"name": "service", "min_healthy": 2}]}`))
	client := s.client("h2")
	s.awaitProbe(client, 200, settle) // the two that answer
	s.awaitGauges("service", 2, 3)
	if err := s.backends[0].SetServing(false); err != nil {
		t.Fatal(err)
	}
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
	s := newSite(t, backends(2), onEveryRoute(), withConfig(func(c *testbed.Bootstrap) {
		c.CheckEvery("0.02s")
		c.Patch(c.HealthCheck(), `{interval_jitter: 0.001s, healthy_threshold: 1}`)
		addGate(c, "held", `{"clusters": ["service"], "path": "/held", "stat_prefix": "held", "hold": {"unhealthy_after": "2s"}}`)
	}))
	client := s.client("h2")
	s.setServing(2)
	s.awaitProbe(client, 200, settle)
	held := s.mustDo(client, "GET", "/held", nil)
	expect(t, "held", held, 200, "ok\n", nil)
	load := s.probeUntilStopped(4)
	for i := range 100 {
		for _, backend := range s.backends {
			if err := backend.SetServing(i%2 == 1); err != nil {
				t.Fatal(err)
			}
		}
		// The fault is to flap this often.
		end := time.Now().Add(50 * time.Millisecond)
		for time.Now().Before(end) {
			if reply := s.mustDo(client, "GET", "/held", nil); reply.status != 200 {
				t.Fatalf("a gate that holds for 2s answers %d", reply.status)
			}
		}
	}
	answers, errs := load.end()
	if len(errs) > 0 || answers[200] == 0 || answers[503] == 0 || len(answers) != 2 {
		t.Errorf("the answers were %v and %d errors, want 200 and 503", answers, len(errs))
	}
	// After that the answer is right.
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
}

func TestFaultTenThousandConnections(t *testing.T) {
	t.Parallel()
	const connections = 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < connections+2000 {
		t.Skipf("a process may have %d files here, and needs %d: ulimit -Hn", limit.Max, connections+2000)
	}
	limit.Cur = limit.Max // for Envoy too, which is started with it
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, withoutTLS())
	s.setServing(1)
	conns := make([]net.Conn, connections)
	for i := range conns {
		conn, err := net.Dial("tcp", s.envoy.Ingress)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	// All of them ask, three times, while all are open.
	for range 3 {
		var clients sync.WaitGroup
		var passed atomic.Int64
		for part := range 20 {
			clients.Go(func() {
				for i := part; i < connections; i += 20 {
					if status, err := ask(conns[i], "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"); err == nil && status == 200 {
						passed.Add(1)
					}
				}
			})
		}
		clients.Wait()
		if passed.Load() != connections {
			t.Errorf("%d of %d probes were answered with 200", passed.Load(), connections)
		}
	}
}

func TestFaultSlowLoris(t *testing.T) {
	t.Parallel()
	s := newSite(t, withHCM(`request_headers_timeout: 2s`))
	s.setServing(1)
	// Each sends a byte now and then, and never ends its headers.
	ended := make(chan error, 200)
	for i := range cap(ended) {
		conn := s.dialTLS(t.Context(), "http/1.1")
		go func() {
			_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
			for err == nil {
				time.Sleep(time.Duration(50+i%50) * time.Millisecond) // the fault is to be this slow
				_, err = io.WriteString(conn, "a")
			}
			ended <- err
		}()
	}
	load := s.probeUntilStopped(4)
	for range cap(ended) {
		select {
		case <-ended:
		case <-time.After(settle):
			t.Fatal("Envoy keeps the connection of a client that never ends its headers")
		}
	}
	load.mustAllBe(200, 100)
	s.awaitStat("http.ingress.downstream_rq_active", 0)
}

// answered is how many probes the gate has answered.
func (s *site) answered() uint64 {
	s.t.Helper()
	stats := s.stats("healthgate.default.")
	return stats["healthgate.default.ok"] + stats["healthgate.default.failed"]
}

func TestFaultHeaderBombs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	before := s.answered()
	for _, protocol := range protocols {
		client := s.client(protocol)
		for name, headers := range map[string][]string{
			"a value of 100 kB": {"x-bomb", strings.Repeat("a", 100_000)},
			"a name of 100 kB":  {"x-" + strings.Repeat("a", 100_000), "bomb"},
		} {
			reply, err := s.do(client, "GET", "/", nil, headers...)
			if err == nil && reply.status != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s over %s is answered with %d, want 431 or none", name, protocol, reply.status)
			}
		}
		var many []string
		for i := range 2000 {
			many = append(many, fmt.Sprint("x-bomb-", i), "a")
		}
		if reply, err := s.do(client, "GET", "/", nil, many...); err == nil && reply.status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("2,000 headers over %s are answered with %d, want 431 or none", protocol, reply.status)
		}
		expect(t, "a path of 50 kB", s.mustDo(client, "GET", "/"+strings.Repeat("a", 50_000), nil), 404, "", nil)
		expect(t, "a probe afterwards", s.probe(client), 200, "ok\n", nil)
	}
	want := uint64(len(protocols))
	s.await(settle, func() error { // an answer may be counted after it is sent
		if n := s.answered() - before; n < want {
			return fmt.Errorf("the gate has answered %d, want the %d probes", n, want)
		}
		return nil
	})
	if n := s.answered() - before; n != want {
		t.Errorf("the gate has answered %d, want the %d probes alone", n, want)
	}
}

func TestFaultInvalidMethodsAndPaths(t *testing.T) {
	t.Parallel()
	s := newSite(t, onEveryRoute())
	s.setServing(1)
	before := s.answered()
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
	if n := s.answered() - before; n != 0 {
		t.Errorf("the gate has answered %d of them", n)
	}
	if n := s.stat("cluster.service.upstream_rq_total"); n != 0 {
		t.Errorf("%d of them were sent to the service", n)
	}
	expect(t, "a probe afterwards", s.probe(s.client("http/1.1")), 200, "ok\n", nil)
}

func TestFaultStormOfHTTP2Resets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", "/"}, {":authority", "localhost"}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	load := s.probeUntilStopped(4)
	var storm sync.WaitGroup
	var resets, closed atomic.Int64
	connections := times(2, 10) // of each of ten clients
	for range 10 {
		storm.Go(func() {
			for range connections {
				if err := s.resetStreams(header.Bytes(), 1000, &resets); err != nil {
					closed.Add(1)
				}
			}
		})
	}
	storm.Wait()
	t.Logf("%d streams were reset; Envoy closed %d of %d connections", resets.Load(), closed.Load(), 10*connections)
	if resets.Load() < 10_000 {
		t.Errorf("only %d streams were reset, too few to show anything", resets.Load())
	}
	t.Logf("%d probes of 4 clients were answered meanwhile", load.answered(200))
	load.awaitAnswers(200, 100, time.Minute) // Envoy may still have a part of the storm in its buffers
	load.mustAllBe(200, 100)
	s.awaitFreed("requests", 2000, func(h testbed.LiveObjects) int { return h.Requests })
}

// resetStreams opens streams on a connection and resets each at once. It returns an error if Envoy has closed the connection.
func (s *site) resetStreams(header []byte, streams int, resets *atomic.Int64) error {
	conn, err := tls.Dial("tcp", s.envoy.Ingress, &tls.Config{RootCAs: s.cert.Pool, ServerName: "localhost", NextProtos: []string{"h2"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	out := bufio.NewWriter(conn)
	framer := http2.NewFramer(out, conn)
	if _, err := out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // whatever it answers
	for i := range streams {
		id := uint32(2*i + 1)
		err := errors.Join(
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header, EndHeaders: true, EndStream: i%2 == 0}),
			framer.WriteRSTStream(id, http2.ErrCodeCancel), out.Flush())
		if err != nil {
			return err
		}
		resets.Add(1)
	}
	return nil
}

func TestFaultPipelinedHTTP1(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Pipelining)
	s := newSite(t)
	s.setServing(1)
	conn := s.dialTLS(t.Context(), "http/1.1")
	const probes = 200
	var all strings.Builder
	for i := range probes {
		// Probes, and between them other requests.
		fmt.Fprintf(&all, "GET %s HTTP/1.1\r\nhost: localhost\r\n\r\n", []string{"/", "/x"}[i%2])
	}
	go func() { _, _ = io.WriteString(conn, all.String()) }()
	if err := conn.SetReadDeadline(time.Now().Add(settle)); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	for i := range probes {
		reply, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if want := []int{200, 404}[i%2]; reply.StatusCode != want || (want == 200) != (string(body) == "ok\n") {
			t.Fatalf("answer %d is %d %q, want %d", i, reply.StatusCode, body, want)
		}
	}
}

func TestFaultFullDiskForTheAccessLog(t *testing.T) {
	t.Parallel()
	s := newSite(t, withHCM(`access_log: [{name: full, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/full}}]`)) // logs each probe
	s.setServing(1)
	load := s.probeUntilStopped(4)
	s.await(settle, func() error {
		if failed := s.stat("filesystem.write_failed"); failed < 3 {
			return fmt.Errorf("%d writes have failed, want 3 at least", failed)
		}
		if n := load.answered(200); n < 100 {
			return fmt.Errorf("%d probes were answered", n)
		}
		return nil
	})
	load.mustAllBe(200, 100)
}

func TestFaultSIGKILLUnderLoad(t *testing.T) {
	t.Parallel()
	port := unusedAddress(t).Port
	s := newSite(t, withConfig(func(c *testbed.Bootstrap) { c.Listen(port, 0) }))
	s.setServing(1)
	load := s.probeUntilStopped(4)
	load.awaitAnswers(200, 200, settle)
	for range 3 {
		s.envoy.Kill()
		s.restart(testbed.Options{})
		load.awaitAnswers(200, 200, settle)
	}
	// Between the two Envoys there was no answer, but never a wrong one.
	if answers, errs := load.end(); len(answers) != 1 || len(errs) == 0 {
		t.Errorf("the answers were %v, and %d without one; want 200 alone, and some without", answers, len(errs))
	}
}

// Envoy imports gauges from the process that it replaces, and adds some of them. It must not add the clusters' gauges: a gate that
// needs more hosts than exist would pass.
func TestFaultHotRestartUnderLoad(t *testing.T) {
	t.Parallel()
	port := unusedAddress(t).Port
	s := newSite(t, backends(2), onEveryRoute(), withConfig(func(c *testbed.Bootstrap) {
		c.Listen(port, 0)
		c.Patch(c.Bootstrap, `stats_flush_interval: 0.05s`)
		addGate(c, "three", `{"clusters": [{"name": "service", "min_healthy": 3}], "path": "/three", "stat_prefix": "three"}`)
	}))
	s.setServing(2)
	s.awaitProbe(s.client("h2"), 200, settle)
	load := s.probeUntilStopped(4)
	for range 2 {
		before := s.envoy
		s.restart(testbed.Options{TakeOver: before})
		// Each probe on a new connection, until the old process has ended: either process may answer.
		probes := 0
		for before.Alive() {
			conn := s.dialTLS(t.Context(), "http/1.1")
			status, err := ask(conn, "GET /three HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
			conn.Close()
			if err == nil && status != 503 {
				t.Fatalf("a gate that needs 3 of 2 hosts answers %d", status)
			}
			probes++
		}
		if probes < 10 {
			t.Errorf("only %d probes were made while both processes ran", probes)
		}
		if err := before.Wait(settle); err != nil {
			t.Errorf("the old Envoy ended with %v", err)
		}
		s.awaitGauges("service", 2, 2)
	}
	load.mustAllBe(200, 200)
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
	before := s.envoy
	s.restart(testbed.Options{TakeOver: before})
	statsPassed, adminFailed := 0, 0
	for before.Alive() {
		client := s.client("http/1.1") // a new connection: either process may answer
		if reply, err := s.do(client, "GET", "/admin", nil); err == nil && reply.status == 503 {
			adminFailed++
		} else if err == nil && reply.body == "new\n" {
			t.Fatal("with source: admin the new process passes for a cluster that it does not have")
		}
		if reply, err := s.do(client, "GET", "/stats", nil); err == nil && reply.status == 200 {
			statsPassed++
		}
		client.CloseIdleConnections()
	}
	t.Logf("while both processes ran, %d probes passed with source: stats; %d failed with source: admin, as they should", statsPassed,
		adminFailed)
	if adminFailed == 0 {
		t.Error("no probe was answered by the new process")
	}
	s.stats("healthgate.") // Envoy drops the imported values after the old process has ended
	for _, path := range []string{"/stats", "/admin"} {
		expect(t, path, s.mustDo(s.client("h2"), "GET", path, nil), 503, "unavailable\n", nil)
	}
}

func TestFaultWallClockJumps(t *testing.T) {
	t.Parallel()
	clock := filepath.Join(testbed.Root(), "build", "clock.so")
	if _, err := os.Stat(clock); err != nil {
		t.Fatalf("%v: make build/clock.so", err)
	}
	jump := filepath.Join(t.TempDir(), "jump")
	set := func(ahead time.Duration) {
		file, err := os.OpenFile(jump, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := binary.Write(file, binary.NativeEndian, int64(ahead/time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	s := newSite(
		t,
		onEveryRoute(),
		withEnv("LD_PRELOAD="+clock, "CLOCK_JUMP="+jump),
		withGate(`{"clusters": ["service"], "stale_after": "2s"}`),
		withConfig(func(c *testbed.Bootstrap) {
			addGate(c, "held", `{"clusters": ["service"], "path": "/held", "stat_prefix": "held", "hold": {"unhealthy_after": "60s"}}`)
		}),
	)
	client := s.client("h2")
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
	expect(t, "held", s.mustDo(client, "GET", "/held", nil), 200, "ok\n", nil)
	load := s.probeUntilStopped(2)
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 365 * 24 * time.Hour, 0} {
		set(ahead)
		// Envoy's own clock has jumped, which its log shows.
		s.mustDo(client, "GET", fmt.Sprint("/jumped?", ahead), nil)
		at := time.Now().Add(ahead).UTC().Format("2006-01-02T15:")
		s.await(settle, func() error {
			for line := range strings.Lines(s.envoy.Log()) {
				if strings.Contains(line, fmt.Sprint(`"path":"/jumped?`, ahead)) && strings.Contains(line, `"time":"`+at) {
					return nil
				}
			}
			return fmt.Errorf("no line of the access log is from %s", at)
		})
		attempts := s.stat("cluster.service.health_check.attempt")
		s.await(settle, func() error {
			if n := s.stat("cluster.service.health_check.attempt"); n < attempts+5 {
				return fmt.Errorf("%d health checks were made since the clock jumped", n-attempts)
			}
			return nil
		})
	}
	load.mustAllBe(200, 100)
	// A verdict is held for a minute of the monotonic clock, whatever the wall clock shows.
	s.setServing(0)
	set(time.Hour)
	for range 50 {
		expect(t, "held", s.mustDo(client, "GET", "/held", nil), 200, "ok\n", nil)
	}
}

func TestFaultMemoryLimitAndGarbageCollection(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it starts an Envoy")
	for name, env := range map[string]string{"GOMEMLIMIT": "GOMEMLIMIT=4MiB", "GOGC": "GOGC=1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, withEnv(env))
			s.setServing(1)
			load := s.probeUntilStopped(8)
			load.awaitAnswers(200, 10_000, 2*settle)
			load.mustAllBe(200, 10_000)
		})
	}
}

func TestFaultFloodOfLDSUpdates(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS())
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, time.Second)
	load := s.probeUntilStopped(2)
	update := func(i int) {
		s.update(s.nextListener(fmt.Sprintf(`{"clusters": ["service"], "stat_prefix": "flood%d"}`, i%7)))
	}
	const warmUp, updates = 300, 1000
	for i := range warmUp {
		update(i)
	}
	before := s.residentMiB()
	began := time.Now()
	for i := range updates {
		update(i)
	}
	t.Logf("%d updates took %v", updates, time.Since(began))
	load.mustAllBe(200, 100)
	s.awaitFreed("configurations", 7, func(h testbed.LiveObjects) int { return h.Configurations })
	s.await(60*time.Second, func() error {
		if after := s.residentMiB(); after > before+16 {
			return fmt.Errorf("envoy has grown by %.1f MiB in %d updates", after-before, updates)
		}
		return nil
	})
}
