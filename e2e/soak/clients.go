package main

import (
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

	"healthgate/e2e/door"
)

// answers are what clients of a soak got.
type answers struct {
	door                                     door.Door
	passed, failed, aborted, abused, proxied atomic.Int64
	// Of grpc.health.v1.Health: calls of Check that were answered, Watches that were opened, and what these were told; and calls of both
	// whose connection went, with the listener that an event has replaced.
	checked, watched, told, cut atomic.Int64
	wrong                       atomic.Pointer[error] // the first
}

func (a *answers) String() string {
	text := fmt.Sprintf("%d probes passed, %d failed, %d hung up; %d abuses, %d proxied", a.passed.Load(), a.failed.Load(), a.aborted.Load(),
		a.abused.Load(), a.proxied.Load())
	if a.door.Can(door.GRPC) == nil {
		text += fmt.Sprintf("; %d Checks, %d Watches with %d updates, %d cut off", a.checked.Load(), a.watched.Load(), a.told.Load(), a.cut.Load())
	}
	return text
}

// start has all clients begin, and returns what ends them.
func (a *answers) start(ctx context.Context, ingress string, seed uint64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	begin := func(number uint64, client func(*rand.Rand)) {
		clients.Go(func() { client(rand.New(rand.NewPCG(seed, number))) })
	}
	for i := range uint64(4) {
		begin(i, func(r *rand.Rand) { a.probe(ctx, ingress, i%2 == 1, r) })
	}
	begin(100, func(r *rand.Rand) { a.abuse(ctx, ingress, r) })
	if a.door.Can(door.GRPC) == nil {
		begin(200, func(r *rand.Rand) { a.check(ctx, ingress, r) })
		begin(201, func(r *rand.Rand) { a.abuseHealth(ctx, ingress, r) })
		for i := range uint64(20) {
			begin(300+i, func(r *rand.Rand) { a.watch(ctx, ingress, r) })
		}
	}
	return func() {
		cancel()
		clients.Wait()
	}
}

func (a *answers) fail(err error) { a.wrong.CompareAndSwap(nil, &err) }

func (a *answers) failure() error {
	if err := a.wrong.Load(); err != nil {
		return *err
	}
	if a.passed.Load() == 0 || a.failed.Load() == 0 || a.aborted.Load() == 0 || a.abused.Load() == 0 || a.proxied.Load() == 0 {
		return fmt.Errorf("the load was not mixed: %v", a)
	}
	if a.door.Can(door.GRPC) == nil && (a.checked.Load() == 0 || a.watched.Load() == 0 || a.told.Load() < a.watched.Load()/2 || a.cut.Load() > a.checked.Load()/10) {
		return fmt.Errorf("the health service was not answered as it has to be: %v", a)
	}
	return nil
}

// probe asks all gates in turn and sends some ordinary traffic, a request each millisecond or so; of the probes one in ten hangs
// up. Whatever a gate answers must be an answer of a gate's.
func (a *answers) probe(ctx context.Context, ingress string, http2 bool, r *rand.Rand) {
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	paths := []string{"/gate/0", "/gate/1", "/gate/2", "/gate/3", "/route/0", "/route/1", "/route/2", "/route/3", "/held", "/stale", "/admin"}
	for i := range paths {
		paths[i] = "/" + a.door.Name() + paths[i]
	}
	paths = append(paths, "/eject")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		path := paths[r.IntN(len(paths))]
		probe, cancel := context.WithCancel(ctx)
		hangsUp := r.IntN(10) == 0
		if hangsUp {
			time.AfterFunc(time.Duration(r.IntN(1000))*time.Microsecond, cancel)
		}
		request, err := http.NewRequestWithContext(probe, http.MethodGet, "http://"+ingress+path, nil)
		if err != nil {
			panic(err) // made here
		}
		reply, err := client.Do(request)
		if err == nil {
			_, err = io.Copy(io.Discard, reply.Body)
			reply.Body.Close()
		}
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil && hangsUp:
			a.aborted.Add(1)
		case err != nil:
			a.fail(fmt.Errorf("%s: %w", path, err))
		case path == "/eject":
			a.proxied.Add(1)
		case reply.Header.Get("cache-control") != "no-store":
			a.fail(fmt.Errorf("%s was answered with %d, and not by its gate", path, reply.StatusCode))
		case reply.StatusCode == 200:
			a.passed.Add(1)
		case reply.StatusCode == 503:
			a.failed.Add(1)
		default:
			a.fail(fmt.Errorf("%s was answered with %d", path, reply.StatusCode))
		}
	}
}

// abuse connects again and again, and sends what is no request, or half of one.
func (a *answers) abuse(ctx context.Context, ingress string, r *rand.Rand) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	gate := "GET /" + a.door.Name() + "/gate/0 HTTP/1.1\r\nhost: x\r\n"
	for ctx.Err() == nil {
		<-tick.C
		conn, err := net.Dial("tcp", ingress)
		if err != nil {
			a.fail(err)
			return
		}
		junk := make([]byte, r.IntN(2000))
		for i := range junk {
			junk[i] = byte(r.Uint32())
		}
		_, _ = io.WriteString(conn, []string{
			gate, gate + "content-length: 100\r\n\r\nhalf",
			gate + "x-bomb: " + strings.Repeat("a", 100_000) + "\r\n\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(junk), string(junk),
			strings.Repeat(gate+"\r\n", 20),
		}[r.IntN(6)])
		conn.Close()
		a.abused.Add(1)
	}
}
