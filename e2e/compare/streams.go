package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// Calls are calls that stay open, by cluster.
type Calls map[string]*call

// call is a call whose response has begun and does not end.
type call struct {
	hangUp context.CancelFunc
	ended  chan struct{}
}

// call begins a call through the listener that never changes, as soon as a worker knows a host: up to a second after the gauges
// (update_merge_window).
func (r *Run) call(ctx context.Context, cluster string) error {
	r.calls.end(cluster)
	return testbed.WaitFor(ctx, settleWithin, func() error {
		begun, err := beginCall(ctx, "http://"+r.listeners["calls"]+"/call/"+cluster)
		if err == nil {
			r.calls[cluster] = begun
		}
		return err
	})
}

// beginCall returns once the response has begun.
func beginCall(ctx context.Context, url string) (*call, error) {
	ctx, hangUp := context.WithCancel(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		hangUp()
		return nil, err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = fmt.Errorf("a call to %s is answered with %d", url, response.StatusCode)
	}
	if err != nil {
		hangUp()
		return nil, err
	}
	c := &call{hangUp, make(chan struct{})}
	go func() {
		defer close(c.ended)
		defer response.Body.Close()
		_, _ = response.Body.Read(make([]byte, 1)) // returns when one side hangs up: nothing is sent
	}()
	return c, nil
}

func (c Calls) end(cluster string) {
	if open := c[cluster]; open != nil {
		open.hangUp()
		<-open.ended
		delete(c, cluster)
	}
}

// Close ends all calls.
func (c Calls) Close() {
	for cluster := range c {
		c.end(cluster)
	}
}

// watchers is the number of open calls of Watch for each virtual host.
const watchers = 2

// Watch keeps calls of grpc.health.v1.Health's Watch open for a virtual host, and renews one that Envoy ends with UNAVAILABLE.
type Watch struct {
	variant     Variant
	virtualHost string
	conn        *grpc.ClientConn
	cancel      context.CancelFunc
	running     sync.WaitGroup

	mutex sync.Mutex
	last  [watchers]string // the status that each received last, or the error by which it ended
}

// open opens the calls, unless they are open.
func (w *Watch) open(ingress string) error {
	if w.conn != nil {
		return nil
	}
	conn, err := grpc.NewClient("passthrough:///"+ingress, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(w.virtualHost))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.conn, w.cancel = conn, cancel
	for i := range watchers {
		w.running.Go(func() { w.keepOpen(ctx, i) })
	}
	return nil
}

func (w *Watch) keepOpen(ctx context.Context, i int) {
	for ctx.Err() == nil {
		request := &grpc_health_v1.HealthCheckRequest{Service: []string{"", Service}[i%2]}
		stream, err := w.client().Watch(ctx, request, grpc.WaitForReady(true))
		for err == nil {
			var update *grpc_health_v1.HealthCheckResponse
			if update, err = stream.Recv(); err == nil {
				w.received(i, update.Status.String())
			}
		}
		if status.Code(err) != codes.Unavailable {
			w.received(i, err.Error())
			return
		}
	}
}

func (w *Watch) client() grpc_health_v1.HealthClient { return grpc_health_v1.NewHealthClient(w.conn) }

func (w *Watch) received(i int, what string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.last[i] = what
}

// Close ends the calls.
func (w *Watch) Close() {
	if w.conn == nil {
		return
	}
	w.cancel()
	w.running.Wait()
	_ = w.conn.Close()
	w.conn = nil
}

// questions compare the answer to Check, and the last update of each Watch, with the model's verdict of the same gate: filter 0's own.
func (w *Watch) questions(r *Run) (all []*question) {
	gate := r.known[(&Gate{Listener: "ingress", Place: Place{0, w.virtualHost, -1}, Path: Place{0, "", -1}.path(w.variant.Name)}).String()]
	add := func(what string, ask func() (string, error)) {
		all = append(all, &question{pair: fmt.Sprintf("%s's %.5s and the model", w.variant.Name, what), ask: func() (reply, error) {
			begun := time.Now()
			got, err := ask()
			if err != nil {
				return reply{}, err
			}
			want, wait := r.expect(gate, Window{begun, time.Now()})
			if want.unknown() {
				return reply{same: true}, nil
			}
			serving := map[int]string{200: "SERVING", 503: "NOT_SERVING"}
			same := got == serving[want.Status]
			for _, a := range want.Answers {
				same = same || got == serving[a.Status]
			}
			return reply{
				same: same, counts: want.certain(), patience: max(wait, 2*slack), with: "the model", gate: gate,
				open:  got == "SERVING" && !want.passing(),
				where: func() string { return what + " of " + r.world.describe(gate.String(), gate.config) },
				got:   func() string { return got },
				want:  func() string { return fmt.Sprintf("%+v", want) },
			}, nil
		}})
	}
	add("Check", func() (string, error) {
		if err := w.open(r.listeners["ingress"]); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		response, err := w.client().Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: Service})
		if err != nil {
			return err.Error(), nil
		}
		return response.Status.String(), nil
	})
	for i := range watchers {
		add(fmt.Sprint("Watch ", i), func() (string, error) {
			w.mutex.Lock()
			defer w.mutex.Unlock()
			return w.last[i], nil
		})
	}
	return all
}
