package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// Clients put Envoy under load during a soak, and count the answers.
type Clients struct {
	variant        Variant
	ingress, calls string // addresses of listeners

	ctx    context.Context
	cancel context.CancelFunc
	loads  map[string]*testbed.Load // by the kind of requests
	// Each of these has its own connections, and each request takes any.
	http1, http2 []*http.Client
	health       []grpc_health_v1.HealthClient
	firstError   atomic.Pointer[error]
}

// The answers that are counted.
const (
	passed, failed, proxied = "passed", "failed", "proxied"
	hungUp                  = "hung up" // by the client
	noUpdate                = "no update"
	wrong                   = "wrong"
	ended                   = "ended by Envoy" // with the listener that an event replaced
)

const unknownService = "unknown.Service"

// random may be used by all clients at the same time.
var random = rand.New(concurrentSource{})

type concurrentSource struct{}

func (concurrentSource) Uint64() uint64 { return rand.Uint64() }

// startClients starts all clients of a variant. They end with Stop.
func (r *Run) startClients(v Variant) *Clients {
	c := &Clients{variant: v, ingress: r.listeners["ingress"], calls: r.listeners["calls"], loads: map[string]*testbed.Load{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for range 4 {
		c.http1, c.http2 = append(c.http1, client(false)), append(c.http2, client(true))
		conn := dial(c.ingress, virtualHosts[0])
		context.AfterFunc(c.ctx, func() { _ = conn.Close() })
		c.health = append(c.health, grpc_health_v1.NewHealthClient(conn))
	}
	start := func(name string, clients int, perSecond float64, send func() string) {
		c.loads[name] = testbed.StartLoad(testbed.Pace{Clients: clients, PerSecond: perSecond}, func(int) string { return send() })
	}
	start("HTTP/1.1", 2, 2000, func() string { return c.probe(c.http1) })
	start("HTTP/2", 2, 2000, func() string { return c.probe(c.http2) })
	start("garbage", 1, 100, c.abuse)
	if v.AnswersGRPC() {
		start("Check", 1, 1000, c.check)
		start("Watch", 20, 1000, c.watch)
		start("gRPC garbage", 1, 100, c.abuseHealth)
	}
	return c
}

// Stop ends all clients. It may be called more than once.
func (c *Clients) Stop() {
	c.cancel()
	for _, l := range c.loads {
		if _, err := l.Stop(); err != nil {
			_ = c.fail(err)
		}
	}
}

func (c *Clients) fail(err error) string {
	c.firstError.CompareAndSwap(nil, &err)
	return wrong
}

// failure returns the first wrong answer, or an error if the load did not have all kinds of answers.
func (c *Clients) failure() error {
	if err := c.firstError.Load(); err != nil {
		return *err
	}
	for name, l := range c.loads {
		answers := l.Answers()
		isHTTP := strings.HasPrefix(name, "HTTP")
		if answers[passed] <= answers[noUpdate] || isHTTP && (answers[failed] == 0 || answers[proxied] == 0 || answers[hungUp] == 0) {
			return fmt.Errorf("the load was not mixed, see %s: %v", name, c)
		}
	}
	return nil
}

func (c *Clients) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.loads)) {
		all = append(all, fmt.Sprintf("%s %s", name, strings.TrimPrefix(fmt.Sprint(c.loads[name].Answers()), "map")))
	}
	return c.variant.Name + ": " + strings.Join(all, ", ")
}

// client returns an HTTP client that shares no connections.
func client(http2 bool) *http.Client {
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// sometimes cancels a call within a millisecond, with the probability 1/one, and reports whether it does.
func sometimes(one int, cancel func()) bool {
	if random.IntN(one) > 0 {
		return false
	}
	time.AfterFunc(time.Duration(random.IntN(1000))*time.Microsecond, cancel)
	return true
}

// do sends a request, and reads the response.
func do(ctx context.Context, sender *http.Client, method, host, url string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	request.Host = host
	if body != nil {
		request.Header.Set("content-type", "application/grpc")
	}
	reply, err := sender.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, reply.Body)
		reply.Body.Close()
	}
	return reply, err
}

// probe sends a probe or an ordinary request, and hangs up on one in ten. A gate must answer every probe.
func (c *Clients) probe(senders []*http.Client) string {
	ordinary := "http://" + c.ingress + "/eject"
	urls := []string{ordinary, "http://" + c.calls + adminPath(c.variant)}
	for i := range filters {
		urls = append(urls, "http://"+c.ingress+Place{i, "", -1}.path(c.variant.Name))
	}
	url := pick(random, urls...)
	probe, cancel := context.WithCancel(c.ctx)
	defer cancel()
	hangsUp := sometimes(10, cancel)
	reply, err := do(probe, pick(random, senders...), http.MethodGet, pick(random, virtualHosts...), url, nil)
	switch {
	case c.ctx.Err() != nil || err != nil && hangsUp:
		return hungUp
	case err != nil:
		return c.fail(fmt.Errorf("%s: %w", url, err))
	case url == ordinary:
		return proxied
	case reply.Header.Get("cache-control") != "no-store":
		return c.fail(fmt.Errorf("%s was answered with %d, and not by its gate", url, reply.StatusCode))
	case reply.StatusCode == 200:
		return passed
	case reply.StatusCode == 503:
		return failed
	}
	return c.fail(fmt.Errorf("%s was answered with %d", url, reply.StatusCode))
}

func junk(atMost int) []byte {
	all := make([]byte, random.IntN(atMost))
	for i := range all {
		all[i] = byte(random.Uint32())
	}
	return all
}

// abuse connects, and sends half a request or garbage.
func (c *Clients) abuse() string {
	gate := "GET " + Place{0, "", -1}.path(c.variant.Name) + " HTTP/1.1\r\nhost: a\r\n"
	conn, err := net.Dial("tcp", c.ingress)
	if err != nil {
		return c.fail(err)
	}
	_, _ = io.WriteString(conn, pick(random,
		gate, gate+"content-length: 100\r\n\r\nhalf",
		gate+"x-bomb: "+strings.Repeat("a", 100_000)+"\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+string(junk(2000)), string(junk(2000)),
		strings.Repeat(gate+"\r\n", 20),
	))
	conn.Close()
	return passed
}

// abuseHealth sends garbage to methods of the health service, and hangs up on some of it.
func (c *Clients) abuseHealth() string {
	body := junk(5000)
	if len(body) > 5 && random.IntN(2) == 0 { // the beginning of a frame
		copy(body, []byte{0, 0, 0, 0, byte(random.IntN(20))})
	}
	call, cancel := context.WithCancel(c.ctx)
	defer cancel()
	sometimes(5, cancel)
	url := "http://" + c.ingress + "/grpc.health.v1.Health/" + pick(random, "Check", "Check", "List", "Other")
	reply, err := do(call, pick(random, c.http2...), http.MethodPost, virtualHosts[0], url, bytes.NewReader(body))
	if err == nil && reply.StatusCode != http.StatusOK {
		return c.fail(fmt.Errorf("garbage to %s is answered with %d", url, reply.StatusCode))
	}
	return passed
}

// outcome returns the answer of a call for a service that ended with a status or an error. Envoy may end a call with UNAVAILABLE.
func (c *Clients) outcome(call, service string, got grpc_health_v1.HealthCheckResponse_ServingStatus, err error) string {
	unknown := got == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	switch {
	case c.ctx.Err() != nil, status.Code(err) == codes.Canceled && strings.Contains(err.Error(), "the client connection is closing"):
		return hungUp // by Stop, which grpc-go may report before the context does
	case status.Code(err) == codes.Unavailable:
		return ended
	case err == nil && got != grpc_health_v1.HealthCheckResponse_UNKNOWN && unknown == (service == unknownService):
		return passed
	case err == nil:
		err = fmt.Errorf("the status is %v", got)
	}
	return c.fail(fmt.Errorf("%s of %q: %w", call, service, err))
}

// check calls Check, and hangs up on one in ten.
func (c *Clients) check() string {
	call, cancel := context.WithTimeout(c.ctx, 20*time.Second)
	defer cancel()
	hangsUp := sometimes(10, cancel)
	service := pick(random, "", Service, Service, unknownService)
	reply, err := pick(random, c.health...).Check(call, &grpc_health_v1.HealthCheckRequest{Service: service})
	switch {
	case err != nil && hangsUp:
		return hungUp
	case status.Code(err) == codes.NotFound:
		return c.outcome("Check", service, grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, nil)
	}
	return c.outcome("Check", service, reply.GetStatus(), err)
}

// watch calls Watch for up to two seconds.
func (c *Clients) watch() string {
	call, cancel := context.WithTimeout(c.ctx, time.Duration(10+random.IntN(2000))*time.Millisecond)
	defer cancel()
	service, result := pick(random, "", Service, Service, unknownService), noUpdate
	stream, err := pick(random, c.health...).Watch(call, &grpc_health_v1.HealthCheckRequest{Service: service})
	for err == nil {
		var update *grpc_health_v1.HealthCheckResponse
		if update, err = stream.Recv(); err == nil {
			result = c.outcome("Watch", service, update.Status, nil)
		}
	}
	// grpc-go may report the deadline before the context does.
	if call.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
		return result
	}
	return c.outcome("Watch", service, grpc_health_v1.HealthCheckResponse_UNKNOWN, err)
}
