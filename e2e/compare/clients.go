package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Clients put Envoy under load during a soak, and count the replies.
type Clients struct {
	variant        Variant
	ingress, calls string

	passed, failed, aborted, abused, proxied atomic.Int64
	checked, watched, updates                atomic.Int64 // Checks, Watches and the updates of Watches
	ended                                    atomic.Int64 // Checks and Watches that Envoy ended, with the listener that an event replaced
	firstError                               atomic.Pointer[error]

	running sync.WaitGroup
	cancel  context.CancelFunc
}

const unknownService = "unknown.Service"

func (c *Clients) grpc() bool { return c.variant.AnswersGRPC() }

// Start starts all clients.
func (c *Clients) Start(ctx context.Context, seed uint64) {
	ctx, c.cancel = context.WithCancel(ctx)
	start := func(number uint64, every time.Duration, client func(*rand.Rand) func()) {
		c.running.Go(func() {
			act := client(rand.New(rand.NewPCG(seed, number)))
			tick := time.NewTicker(every)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				act()
			}
		})
	}
	for i := range uint64(4) {
		start(i, time.Millisecond, func(r *rand.Rand) func() { return c.probe(ctx, i%2 == 1, r) })
	}
	start(100, 10*time.Millisecond, func(r *rand.Rand) func() { return func() { c.abuse(r) } })
	if c.grpc() {
		start(200, time.Millisecond, func(r *rand.Rand) func() { return c.check(ctx, r) })
		start(201, 10*time.Millisecond, func(r *rand.Rand) func() { return c.abuseHealth(ctx, r) })
		for i := range uint64(20) {
			start(300+i, time.Millisecond, func(r *rand.Rand) func() { return c.watch(ctx, r) })
		}
	}
}

// Stop ends all clients. It may be called more than once.
func (c *Clients) Stop() {
	c.cancel()
	c.running.Wait()
}

func (c *Clients) fail(err error) { c.firstError.CompareAndSwap(nil, &err) }

func (c *Clients) failure() error {
	if err := c.firstError.Load(); err != nil {
		return *err
	}
	if c.passed.Load() == 0 || c.failed.Load() == 0 || c.aborted.Load() == 0 || c.abused.Load() == 0 || c.proxied.Load() == 0 {
		return fmt.Errorf("the load was not mixed: %v", c)
	}
	if c.grpc() && (c.checked.Load() == 0 || c.updates.Load() < c.watched.Load()/2) {
		return fmt.Errorf("too few replies of grpc.health.v1.Health: %v", c)
	}
	return nil
}

// client returns an HTTP client with connections of its own.
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
func (c *Clients) probe(ctx context.Context, http2 bool, r *rand.Rand) func() {
	urls := []string{"http://" + c.ingress + "/eject", "http://" + c.calls + adminPath(c.variant)}
	for i := range filters {
		urls = append(urls, "http://"+c.ingress+Place{i, "", -1}.path(c.variant.Name))
	}
	sender := client(http2)
	return func() {
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
		case ctx.Err() != nil:
		case err != nil && hangsUp:
			c.aborted.Add(1)
		case err != nil:
			c.fail(fmt.Errorf("%s: %w", url, err))
		case url == urls[0]:
			c.proxied.Add(1)
		case reply.Header.Get("cache-control") != "no-store":
			c.fail(fmt.Errorf("%s was answered with %d, and not by its gate", url, reply.StatusCode))
		case reply.StatusCode == 200:
			c.passed.Add(1)
		case reply.StatusCode == 503:
			c.failed.Add(1)
		default:
			c.fail(fmt.Errorf("%s was answered with %d", url, reply.StatusCode))
		}
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
func (c *Clients) abuse(r *rand.Rand) {
	gate := "GET " + Place{0, "", -1}.path(c.variant.Name) + " HTTP/1.1\r\nhost: a\r\n"
	conn, err := net.Dial("tcp", c.ingress)
	if err != nil {
		c.fail(err)
		return
	}
	_, _ = io.WriteString(conn, pick(r,
		gate, gate+"content-length: 100\r\n\r\nhalf",
		gate+"x-bomb: "+strings.Repeat("a", 100_000)+"\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+string(junk(r, 2000)), string(junk(r, 2000)),
		strings.Repeat(gate+"\r\n", 20),
	))
	conn.Close()
	c.abused.Add(1)
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

// endedByEnvoy counts a call that Envoy may end with UNAVAILABLE; any other end is an error.
func (c *Clients) endedByEnvoy(what string, err error) {
	if status.Code(err) == codes.Canceled && strings.Contains(err.Error(), "the client connection is closing") {
		return // by Stop, which grpc-go may report before the context does
	}
	if status.Code(err) == codes.Unavailable {
		c.ended.Add(1)
		return
	}
	c.fail(fmt.Errorf("%s: %w", what, err))
}

func anyService(r *rand.Rand) *grpc_health_v1.HealthCheckRequest {
	return &grpc_health_v1.HealthCheckRequest{Service: pick(r, "", Service, Service, unknownService)}
}

func isVerdict(reply *grpc_health_v1.HealthCheckResponse) bool {
	return reply.Status == grpc_health_v1.HealthCheckResponse_SERVING || reply.Status == grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// check calls Check, and hangs up on one in ten.
func (c *Clients) check(ctx context.Context, r *rand.Rand) func() {
	health := c.health(ctx)
	return func() {
		call, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		hangsUp := sometimes(r, 10, cancel)
		request := anyService(r)
		reply, err := health.Check(call, request)
		switch {
		case ctx.Err() != nil || err != nil && hangsUp:
		case request.Service == unknownService && status.Code(err) == codes.NotFound,
			request.Service != unknownService && err == nil && isVerdict(reply):
			c.checked.Add(1)
		case err == nil:
			c.fail(fmt.Errorf("Check of %q: %v", request.Service, reply))
		default:
			c.endedByEnvoy(fmt.Sprintf("Check of %q", request.Service), err)
		}
	}
}

// watch calls Watch for up to two seconds.
func (c *Clients) watch(ctx context.Context, r *rand.Rand) func() {
	health := c.health(ctx)
	return func() {
		call, cancel := context.WithTimeout(ctx, time.Duration(10+r.IntN(2000))*time.Millisecond)
		defer cancel()
		request := anyService(r)
		stream, err := health.Watch(call, request)
		c.watched.Add(1)
		for err == nil {
			var reply *grpc_health_v1.HealthCheckResponse
			if reply, err = stream.Recv(); err != nil {
				break
			}
			c.updates.Add(1)
			if unknown := reply.Status == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN; unknown != (request.Service == unknownService) ||
				!unknown && !isVerdict(reply) {
				c.fail(fmt.Errorf("Watch of %q: %v", request.Service, reply))
			}
		}
		// grpc-go may report the deadline before the context does.
		if code := status.Code(err); call.Err() == nil && code != codes.DeadlineExceeded {
			c.endedByEnvoy(fmt.Sprintf("Watch of %q", request.Service), err)
		}
	}
}

// abuseHealth sends garbage to methods of the health service, and hangs up on some of it.
func (c *Clients) abuseHealth(ctx context.Context, r *rand.Rand) func() {
	sender := client(true)
	return func() {
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
				c.fail(fmt.Errorf("garbage to %s is answered with %d", method, reply.StatusCode))
			}
		}
		c.abused.Add(1)
	}
}
