// Command soak has everything happen at once: an Envoy goes through random events, while clients probe, hang up half-way, send
// garbage and ordinary traffic. It says a line a minute, and fails on a wrong answer and on growth.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
	"healthgate/e2e/walk"
)

// What may have grown between the end of the warm-up and the end.
const (
	memoryGrowth    = 16.0 // MiB
	goroutineGrowth = 10
	// Configurations that may be alive once all is quiet: those of the listener and its routes, and a few that Go has yet
	// to free.
	configurationsLeft = 40
)

// soak goes through random events as Search does, while clients probe, hang up half-way, send garbage and ordinary traffic. It
// says a line for each interval, and fails on a disagreement, on an answer that is none, and on growth after a quarter of the
// time.
func soak(ctx context.Context, d door.Door, seed uint64, duration, every time.Duration, say func(string)) error {
	// The scheduler of the plugin's Go writes down its goroutines.
	trace := fmt.Sprintf("GODEBUG=schedtrace=%d,scheddetail=1", max(every/4, time.Second).Milliseconds())
	run, err := walk.Start(ctx, walk.Options{Door: d, Timed: true, Env: []string{trace}})
	if err != nil {
		return err
	}
	defer run.Close()
	say(fmt.Sprintf("seed %d, for %v", seed, duration))

	clientsCtx, stop := context.WithCancel(ctx)
	defer stop()
	var clients sync.WaitGroup
	seen := &answers{}
	for i := range 4 {
		clients.Go(func() { seen.probe(clientsCtx, run.Envoy.Ingress, i%2 == 1, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	clients.Go(func() { seen.abuse(clientsCtx, run.Envoy.Ingress, rand.New(rand.NewPCG(seed, 100))) })

	random := rand.New(rand.NewPCG(seed, 0))
	began := time.Now()
	due := began.Add(every)
	var warm *usage
	events := 0
	for time.Since(began) < duration && ctx.Err() == nil {
		event := walk.Next(random)
		events++
		found, err := run.Apply(ctx, event)
		if err != nil {
			return fmt.Errorf("event %d, %+v: %w; envoy's log ends:\n%s", events, event, err, bed.Tail(run.Envoy.Log(), 15))
		}
		if found != nil {
			return fmt.Errorf("event %d, %+v: %s", events, event, found)
		}
		if warm == nil && time.Since(began) > duration/4 {
			if warm, err = use(d, run.Envoy); err != nil {
				return err
			}
		}
		if now := time.Now(); now.After(due) {
			due = due.Add(every)
			used, err := use(d, run.Envoy)
			if err != nil {
				return err
			}
			say(fmt.Sprintf("%4v  %s, %d events, %d compared, no disagreement; %s", time.Since(began).Round(time.Second), used, events,
				run.Compared["the model"]+run.Compared["Envoy's own filter"], seen))
		}
	}
	stop()
	clients.Wait()
	return errors.Join(seen.failure(), grown(ctx, d, run, warm, say))
}

// grown compares what Envoy uses, now that all is quiet, to what it used after the warm-up.
func grown(ctx context.Context, d door.Door, r *walk.Run, warm *usage, say func(string)) error {
	if warm == nil {
		return errors.New("it ended before it was warm")
	}
	var end *usage
	err := bed.WaitFor(ctx, 15*time.Second, func() error {
		// Go frees what Envoy has dropped some collections later, and probes bring collections about.
		for range 2000 {
			if _, _, err := r.Get(r.Envoy.Ingress, "/keeper", "*/*"); err != nil {
				return err
			}
		}
		var err error
		if end, err = use(d, r.Envoy); err != nil {
			return err
		}
		switch {
		case end.configurations > configurationsLeft:
			return fmt.Errorf("%d configurations are alive, want %d at most", end.configurations, configurationsLeft)
		case end.goroutines > warm.goroutines+goroutineGrowth:
			return fmt.Errorf("%d goroutines, %d after the warm-up", end.goroutines, warm.goroutines)
		case end.memory > warm.memory+memoryGrowth:
			return fmt.Errorf("%.1f MiB, %.1f after the warm-up", end.memory, warm.memory)
		}
		return nil
	})
	if end != nil {
		say(fmt.Sprintf(" end  %s; after the warm-up %s", end, warm))
	}
	if err != nil {
		return fmt.Errorf("it has grown: %w", err)
	}
	return nil
}

// usage is what an Envoy uses.
type usage struct {
	memory                               float64 // MiB resident
	goroutines, configurations, requests int
}

func (u *usage) String() string {
	return fmt.Sprintf("%.1f MiB, %d goroutines, %d configurations, %d requests alive", u.memory, u.goroutines, u.configurations, u.requests)
}

// use reads what an Envoy uses: from /proc, from the stand-in, and from the last trace of its Go scheduler.
func use(d door.Door, envoy *bed.Envoy) (*usage, error) {
	memory, err := envoy.ResidentMiB()
	if err != nil {
		return nil, err
	}
	held, err := d.Held(envoy)
	if err != nil {
		return nil, err
	}
	u := &usage{memory: memory, configurations: held.Configurations, requests: held.Requests}
	log := envoy.Log()
	last := strings.LastIndex(log, "\nSCHED ")
	if last < 0 {
		return nil, errors.New("the Go scheduler has written no trace yet")
	}
	// The one before it, should it be in the middle of a line.
	if before := strings.LastIndex(log[:last], "\nSCHED "); before >= 0 {
		log = log[before:last]
	} else {
		log = log[last:]
	}
	for _, state := range regexp.MustCompile(`(?m)^  G\d+: status=(\d+)`).FindAllStringSubmatch(log, -1) {
		if state[1] != "6" { // one that has ended
			u.goroutines++
		}
	}
	return u, nil
}

// answers are what clients of a soak got.
type answers struct {
	passed, failed, aborted, abused, proxied atomic.Int64
	wrong                                    atomic.Pointer[error] // the first
}

func (a *answers) String() string {
	return fmt.Sprintf("%d probes passed, %d failed, %d hung up; %d abuses, %d proxied", a.passed.Load(), a.failed.Load(), a.aborted.Load(),
		a.abused.Load(), a.proxied.Load())
}

func (a *answers) fail(err error) { a.wrong.CompareAndSwap(nil, &err) }

func (a *answers) failure() error {
	if err := a.wrong.Load(); err != nil {
		return *err
	}
	if a.passed.Load() == 0 || a.failed.Load() == 0 || a.aborted.Load() == 0 || a.abused.Load() == 0 || a.proxied.Load() == 0 {
		return fmt.Errorf("the load was not mixed: %v", a)
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
	paths := []string{"/gate/0", "/gate/1", "/gate/2", "/gate/3", "/route/0", "/route/1", "/route/2", "/route/3", "/held", "/stale", "/admin", "/eject"}
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
			"GET /gate/0 HTTP/1.1\r\nhost: x\r\n", "GET /gate/0 HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf",
			"GET /gate/0 HTTP/1.1\r\nhost: x\r\nx-bomb: " + strings.Repeat("a", 100_000) + "\r\n\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(junk), string(junk),
			strings.Repeat("GET /gate/0 HTTP/1.1\r\nhost: x\r\n\r\n", 20),
		}[r.IntN(6)])
		conn.Close()
		a.abused.Add(1)
	}
}
