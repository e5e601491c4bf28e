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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// Clients put Envoy under load during a soak, and count the answers.
type Clients struct {
	variant        Variant
	ingress, calls string // addresses of listeners

	loads      map[string]*testbed.Load // by the kind of requests
	updates    atomic.Int64             // of Watches
	firstError atomic.Pointer[error]
	cancel     context.CancelFunc
}

// The answers that are counted.
const (
	passed, failed, proxied = "passed", "failed", "proxied"
	hungUp                  = "hung up" // by the client
	wrong                   = "wrong"
	ended                   = "ended by Envoy" // with the listener that an event replaced
)

const unknownService = "unknown.Service"

// Start starts all clients.
func (c *Clients) Start(ctx context.Context, seed uint64) {
	ctx, c.cancel = context.WithCancel(ctx)
	c.loads = map[string]*testbed.Load{}
	start := func(name string, clients int, perSecond float64, newClient func(*rand.Rand) func() string) {
		var senders []func() string
		for i := range clients {
			senders = append(senders, newClient(rand.New(rand.NewPCG(seed, uint64(100*len(c.loads)+i)))))
		}
		c.loads[name] = testbed.StartLoad(testbed.Pace{Clients: clients, PerSecond: perSecond}, func(i int) string { return senders[i]() })
	}
	start("HTTP/1.1", 2, 2000, func(r *rand.Rand) func() string { return c.probe(ctx, false, r) })
	start("HTTP/2", 2, 2000, func(r *rand.Rand) func() string { return c.probe(ctx, true, r) })
	start("garbage", 1, 100, func(r *rand.Rand) func() string { return func() string { return c.abuse(r) } })
	if c.variant.AnswersGRPC() {
		start("Check", 1, 1000, func(r *rand.Rand) func() string { return c.check(ctx, r) })
		start("Watch", 20, 1000, func(r *rand.Rand) func() string { return c.watch(ctx, r) })
		start("gRPC garbage", 1, 100, func(r *rand.Rand) func() string { return c.abuseHealth(ctx, r) })
	}
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
		switch name {
		case "HTTP/1.1", "HTTP/2":
			if answers[passed] == 0 || answers[failed] == 0 || answers[proxied] == 0 || answers[hungUp] == 0 {
				return fmt.Errorf("the load was not mixed: %v", c)
			}
		case "Watch":
			if watches := sum(answers); watches == 0 || c.updates.Load() < watches/2 {
				return fmt.Errorf("too few updates of Watches: %v", c)
			}
		default:
			if answers[passed] == 0 {
				return fmt.Errorf("no %s passed: %v", name, c)
			}
		}
	}
	return nil
}

func sum(answers map[string]int64) (n int64) {
	for _, count := range answers {
		n += count
	}
	return n
}

func (c *Clients) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.loads)) {
		all = append(all, fmt.Sprintf("%s %s", name, strings.TrimPrefix(fmt.Sprint(c.loads[name].Answers()), "map")))
	}
	return fmt.Sprintf("%s: %s, %d updates of Watches", c.variant.Name, strings.Join(all, ", "), c.updates.Load())
}

// client returns an HTTP client that shares no connections.
func client(http2 bool) *http.Client {
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// sometimes cancels a call within a millisecond, with the probability 1/one, and reports whether it does.
func sometimes(r *rand.Rand, one int, cancel func()) bool {
	if r.IntN(one) > 0 {
		return false
	}
	time.AfterFunc(time.Duration(r.IntN(1000))*time.Microsecond, cancel)
	return true
}

// probe sends a probe or an ordinary request, and hangs up on one in ten. A gate must answer every probe.
func (c *Clients) probe(ctx context.Context, http2 bool, r *rand.Rand) func() string {
	urls := []string{"http://" + c.ingress + "/eject", "http://" + c.calls + adminPath(c.variant)}
	for i := range filters {
		urls = append(urls, "http://"+c.ingress+Place{i, "", -1}.path(c.variant.Name))
	}
	sender := client(http2)
	return func() string {
		url := pick(r, urls...)
		probe, cancel := context.WithCancel(ctx)
		defer cancel()
		hangsUp := sometimes(r, 10, cancel)
		request, err := http.NewRequestWithContext(probe, http.MethodGet, url, nil)
		if err != nil {
			panic(err) // a constant URL
		}
		request.Host = pick(r, virtualHosts...)
		reply, err := sender.Do(request)
		if err == nil {
			_, err = io.Copy(io.Discard, reply.Body)
			reply.Body.Close()
		}
		switch {
		case ctx.Err() != nil || err != nil && hangsUp:
			return hungUp
		case err != nil:
			return c.fail(fmt.Errorf("%s: %w", url, err))
		case url == urls[0]:
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
}

func junk(r *rand.Rand, atMost int) []byte {
	all := make([]byte, r.IntN(atMost))
	for i := range all {
		all[i] = byte(r.Uint32())
	}
	return all
}

// abuse connects, and sends half a request or garbage.
func (c *Clients) abuse(r *rand.Rand) string {
	gate := "GET " + Place{0, "", -1}.path(c.variant.Name) + " HTTP/1.1\r\nhost: a\r\n"
	conn, err := net.Dial("tcp", c.ingress)
	if err != nil {
		return c.fail(err)
	}
	_, _ = io.WriteString(conn, pick(r,
		gate, gate+"content-length: 100\r\n\r\nhalf",
		gate+"x-bomb: "+strings.Repeat("a", 100_000)+"\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+string(junk(r, 2000)), string(junk(r, 2000)),
		strings.Repeat(gate+"\r\n", 20),
	))
	conn.Close()
	return passed
}

// health returns a client of grpc.health.v1.Health, whose connection ends with the context.
func (c *Clients) health(ctx context.Context) grpc_health_v1.HealthClient {
	conn, err := grpc.NewClient("passthrough:///"+c.ingress, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(virtualHosts[0]))
	if err != nil {
		panic(err) // of the options, which are made here
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

// endedEarly returns the answer of a call that its client did not end. Envoy may end it with UNAVAILABLE.
func (c *Clients) endedEarly(what string, err error) string {
	if status.Code(err) == codes.Canceled && strings.Contains(err.Error(), "the client connection is closing") {
		return hungUp // by Stop, which grpc-go may report before the context does
	}
	if status.Code(err) == codes.Unavailable {
		return ended
	}
	return c.fail(fmt.Errorf("%s: %w", what, err))
}

func anyService(r *rand.Rand) *grpc_health_v1.HealthCheckRequest {
	return &grpc_health_v1.HealthCheckRequest{Service: pick(r, "", Service, Service, unknownService)}
}

func isVerdict(reply *grpc_health_v1.HealthCheckResponse) bool {
	return reply.Status == grpc_health_v1.HealthCheckResponse_SERVING || reply.Status == grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// check calls Check, and hangs up on one in ten.
func (c *Clients) check(ctx context.Context, r *rand.Rand) func() string {
	health := c.health(ctx)
	return func() string {
		call, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		hangsUp := sometimes(r, 10, cancel)
		request := anyService(r)
		reply, err := health.Check(call, request)
		switch {
		case ctx.Err() != nil || err != nil && hangsUp:
			return hungUp
		case request.Service == unknownService && status.Code(err) == codes.NotFound,
			request.Service != unknownService && err == nil && isVerdict(reply):
			return passed
		case err == nil:
			return c.fail(fmt.Errorf("Check of %q: %v", request.Service, reply))
		}
		return c.endedEarly(fmt.Sprintf("Check of %q", request.Service), err)
	}
}

// watch calls Watch for up to two seconds.
func (c *Clients) watch(ctx context.Context, r *rand.Rand) func() string {
	health := c.health(ctx)
	return func() string {
		call, cancel := context.WithTimeout(ctx, time.Duration(10+r.IntN(2000))*time.Millisecond)
		defer cancel()
		request := anyService(r)
		stream, err := health.Watch(call, request)
		for err == nil {
			var update *grpc_health_v1.HealthCheckResponse
			if update, err = stream.Recv(); err != nil {
				break
			}
			c.updates.Add(1)
			unknown := update.Status == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
			if unknown != (request.Service == unknownService) || !unknown && !isVerdict(update) {
				_ = c.fail(fmt.Errorf("Watch of %q: %v", request.Service, update))
			}
		}
		// grpc-go may report the deadline before the context does.
		if call.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
			return passed
		}
		return c.endedEarly(fmt.Sprintf("Watch of %q", request.Service), err)
	}
}

// abuseHealth sends garbage to methods of the health service, and hangs up on some of it.
func (c *Clients) abuseHealth(ctx context.Context, r *rand.Rand) func() string {
	sender := client(true)
	return func() string {
		body := junk(r, 5000)
		if len(body) > 5 && r.IntN(2) == 0 { // the beginning of a frame
			copy(body, []byte{0, 0, 0, 0, byte(r.IntN(20))})
		}
		call, cancel := context.WithCancel(ctx)
		defer cancel()
		sometimes(r, 5, cancel)
		method := pick(r, "Check", "Check", "List", "Other")
		url := "http://" + c.ingress + "/grpc.health.v1.Health/" + method
		request, err := http.NewRequestWithContext(call, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			panic(err) // a constant URL
		}
		request.Host = virtualHosts[0]
		request.Header.Set("content-type", "application/grpc")
		if reply, err := sender.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, reply.Body)
			reply.Body.Close()
			if reply.StatusCode != http.StatusOK {
				return c.fail(fmt.Errorf("garbage to %s is answered with %d", method, reply.StatusCode))
			}
		}
		return passed
	}
}
