package suite

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

// answer is a reply to a request.
type answer struct {
	status   int
	protocol string
	header   http.Header
	body     string
}

var protocols = []string{"http/1.1", "h2"}

// isPlain reports whether the listener has no TLS.
func (s *site) isPlain() bool { return s.config != nil && !s.config.HasTLS() }

// client makes an HTTP client of one protocol, "http/1.1" or "h2".
func (s *site) client(protocol string) *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.cert.Pool, NextProtos: []string{protocol}},
		// Many balancers make a connection per probe; here probes share connections, so that there can be many of them.
		MaxIdleConnsPerHost: 100,
		Protocols:           &http.Protocols{},
	}
	transport.Protocols.SetHTTP1(protocol == "http/1.1")
	transport.Protocols.SetHTTP2(protocol == "h2")
	transport.Protocols.SetUnencryptedHTTP2(protocol == "h2" && s.isPlain())
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// url returns the URL of a path at the listener.
func (s *site) url(path string) string {
	if s.isPlain() {
		return "http://" + s.envoy.Ingress + path
	}
	return "https://" + s.envoy.Ingress + path
}

// do sends a request to the listener.
func (s *site) do(client *http.Client, method, path string, body io.Reader, headers ...string) (*answer, error) {
	request, err := http.NewRequest(method, s.url(path), body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return sendRequest(client, request)
}

func sendRequest(client *http.Client, request *http.Request) (*answer, error) {
	reply, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, err
	}
	return &answer{reply.StatusCode, reply.Proto, reply.Header, string(body)}, nil
}

func (s *site) mustDo(client *http.Client, method, path string, body io.Reader, headers ...string) *answer {
	s.t.Helper()
	reply, err := s.do(client, method, path, body, headers...)
	mustSucceed(s.t, err)
	return reply
}

// probe sends a probe as a load balancer does.
func (s *site) probe(client *http.Client) *answer {
	s.t.Helper()
	return s.mustDo(client, http.MethodGet, "/", nil)
}

// path probes a path on a new connection, so that Envoy's newest listener answers.
func (s *site) path(path string) *answer {
	s.t.Helper()
	client := s.client("h2")
	defer client.CloseIdleConnections()
	return s.mustDo(client, http.MethodGet, path, nil)
}

// always probes a path for some time, and expects one status throughout.
func (s *site) always(path string, status int, during time.Duration) {
	s.t.Helper()
	for until := time.Now().Add(during); time.Now().Before(until); {
		if reply := s.path(path); reply.status != status {
			s.t.Fatalf("%s is answered with %d %q, want %d", path, reply.status, reply.body, status)
		}
	}
}

func expect(t *testing.T, what string, got *answer, status int, body string, headers map[string]string) {
	t.Helper()
	if got.status != status || got.body != body {
		t.Errorf("%s got %d %q, want %d %q", what, got.status, got.body, status, body)
	}
	for name, want := range headers {
		if values := got.header.Values(name); strings.Join(values, "|") != want {
			t.Errorf("%s got %s: %q, want %q", what, name, values, want)
		}
	}
}

// The header that Envoy adds to replies while it drains.
var (
	draining    = map[string]string{"x-envoy-immediate-health-check-fail": "true"}
	notDraining = map[string]string{"x-envoy-immediate-health-check-fail": ""}
)

// callRouter makes a small call and one of more than a megabyte.
func callRouter(t *testing.T, s *site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn := s.dialGRPC()
	for _, points := range []int{1, 100_000} {
		routes, err := router.Recommend(ctx, conn, slices.Repeat([]*router.Point{{Latitude: 48.1, Longitude: 11.5}}, points)...)
		if err != nil {
			t.Fatalf("a call with %d points: %v", points, err)
		}
		if !slices.Equal(routes, []uint32{191}) {
			t.Errorf("a call with %d points got routes %v, want [191]", points, routes)
		}
	}
	_, err := router.Recommend(ctx, conn)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a call that fails got %v, want InvalidArgument", err)
	}
}

// load is probes that several clients send while a test does something else.
type load struct {
	s *site
	*testbed.Load
}

// probeUntilStopped starts a load of so many clients, half of them over HTTP/2.
func (s *site) probeUntilStopped(clients int) *load {
	return s.probeAsUntilStopped(clients, func(reply *answer) string { return strconv.Itoa(reply.status) })
}

// probeAsUntilStopped starts a load whose answers are counted by the result of a function.
func (s *site) probeAsUntilStopped(clients int, as func(*answer) string) *load {
	all := make([]*http.Client, clients)
	for i := range all {
		all[i] = s.client(protocols[i%2])
		all[i].Timeout = time.Minute // a probe of a load may be slow, but must be answered
	}
	l := &load{s, testbed.StartLoad(testbed.Pace{Clients: clients}, func(client int) string {
		reply, err := s.do(all[client], http.MethodGet, "/", nil)
		if err != nil {
			return testbed.NoAnswer + ": " + err.Error()
		}
		return as(reply)
	})}
	s.t.Cleanup(func() { _, _ = l.Stop() })
	return l
}

// awaitPasses waits until n more probes of the load have passed.
func (l *load) awaitPasses(n int) {
	l.s.t.Helper()
	count := func() int { return int(l.Answers()["200"]) }
	l.s.awaitCount("probes have passed", count()+n, count)
}

// end stops the load, and returns how many probes got each status, or no answer.
func (l *load) end() map[string]int64 {
	outcome, _ := l.Stop() // a load of our own requests has no error
	return outcome.Answers
}

// mustAllPass stops the load. Every probe must be answered with 200, and there must be at least so many.
func (l *load) mustAllPass(atLeast int64) {
	l.s.t.Helper()
	if answers := l.end(); len(answers) != 1 || answers["200"] < atLeast {
		l.s.t.Errorf("the answers were %v, want only 200, at least %d times", answers, atLeast)
	}
}

// mustPassIfAnswered stops the load. Probes may have no answer, but no other than 200.
func (l *load) mustPassIfAnswered() {
	l.s.t.Helper()
	for answer, n := range l.end() {
		if answer != "200" && !strings.HasPrefix(answer, testbed.NoAnswer) {
			l.s.t.Errorf("%d probes were answered with %s", n, answer)
		}
	}
}

// dialGRPC connects to the listener as a gRPC client does, with TLS if the listener has it.
func (s *site) dialGRPC(options ...grpc.DialOption) *grpc.ClientConn {
	s.t.Helper()
	if s.isPlain() {
		return dialPlain(s.t, "passthrough:///"+s.envoy.Ingress, options...)
	}
	return dial(s.t, "passthrough:///"+s.envoy.Ingress, credentials.NewTLS(s.tlsConfig()), options...)
}

func dialPlain(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dial(t, target, insecure.NewCredentials(), options...)
}

func dial(t *testing.T, target string, transport credentials.TransportCredentials, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(transport))...)
	mustSucceed(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (s *site) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: s.cert.Pool, ServerName: "localhost", NextProtos: protocols}
}

// dialTLS opens a connection for bytes that an HTTP client does not send.
func (s *site) dialTLS(ctx context.Context, protocol string) net.Conn {
	s.t.Helper()
	conn, err := (&tls.Dialer{Config: s.tlsConfig(protocol)}).DialContext(ctx, "tcp", s.envoy.Ingress)
	mustSucceed(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	mustSucceed(t, err)
}

// ask sends the bytes of a request, and reads all of the answer.
func ask(conn net.Conn, request string) (status int, err error) {
	if err := conn.SetDeadline(time.Now().Add(settle)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, err
	}
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, reply.Body)
	return reply.StatusCode, err
}

// halfACall sends the first half of a call, which is active until the connection is closed.
func (s *site) halfACall() net.Conn {
	s.t.Helper()
	conn := s.dialTLS(s.t.Context(), "http/1.1")
	send(s.t, conn,
		"POST /router.Router/Recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\ncontent-length: 10\r\n\r\nhalf")
	s.awaitStat("cluster.service.upstream_rq_active", 1)
	return conn
}

// unusedAddress returns an address on which nothing listens.
func unusedAddress(t *testing.T) *net.TCPAddr {
	t.Helper()
	address, err := testbed.UnusedAddress()
	mustSucceed(t, err)
	return address
}
