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

// Calls are the calls that stay open, by their clusters.
type Calls map[string]*call

// call is a call to a host that has begun to answer, and does not end.
type call struct {
	hangUp context.CancelFunc
	over   chan struct{}
}

// call begins one, by a listener that is never changed, as soon as a worker knows of a host: up to a second after the gauges
// (update_merge_window).
func (r *Run) call(ctx context.Context, cluster string) error {
	r.calls.end(cluster)
	return testbed.WaitFor(ctx, settleWithin, func() error {
		begun, err := begin(ctx, "http://"+r.listeners["calls"]+"/call/"+cluster)
		if err == nil {
			r.calls[cluster] = begun
		}
		return err
	})
}

// begin makes a call, and returns once its host has begun to answer.
func begin(ctx context.Context, url string) (*call, error) {
	ctx, hangUp := context.WithCancel(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		hangUp()
		return nil, err
	}
	reply, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err == nil && reply.StatusCode != http.StatusOK {
		reply.Body.Close()
		err = fmt.Errorf("a call to %s is answered with %d", url, reply.StatusCode)
	}
	if err != nil {
		hangUp()
		return nil, err
	}
	c := &call{hangUp, make(chan struct{})}
	go func() {
		defer close(c.over)
		defer reply.Body.Close()
		_, _ = reply.Body.Read(make([]byte, 1)) // until one side hangs up: nothing is sent
	}()
	return c, nil
}

func (c Calls) end(cluster string) {
	if one := c[cluster]; one != nil {
		one.hangUp()
		<-one.over
		delete(c, cluster)
	}
}

// Close ends all calls.
func (c Calls) Close() {
	for cluster := range c {
		c.end(cluster)
	}
}

// watchers is how many calls of Watch are open for each virtual host.
const watchers = 2

// Watch keeps calls of grpc.health.v1.Health's Watch open for a virtual host. Envoy may end one with UNAVAILABLE; then there is a new one.
type Watch struct {
	variant Variant
	host    string
	conn    *grpc.ClientConn
	cancel  context.CancelFunc
	running sync.WaitGroup

	mutex   sync.Mutex
	last    [watchers]string // the status that each received last, or the error by which it ended
	renewed int
}

func newWatch(v Variant, host string) *Watch { return &Watch{variant: v, host: host} }

// open opens the calls, unless they are open.
func (w *Watch) open(ingress string) error {
	if w.conn != nil {
		return nil
	}
	conn, err := grpc.NewClient("passthrough:///"+ingress, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(w.host))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.conn, w.cancel = conn, cancel
	for i := range watchers {
		w.running.Go(func() {
			for ctx.Err() == nil {
				request := &grpc_health_v1.HealthCheckRequest{Service: []string{"", Service}[i%2]}
				stream, err := w.client().Watch(ctx, request, grpc.WaitForReady(true))
				for err == nil {
					var reply *grpc_health_v1.HealthCheckResponse
					if reply, err = stream.Recv(); err == nil {
						w.received(i, reply.Status.String())
					}
				}
				if status.Code(err) != codes.Unavailable {
					w.received(i, err.Error())
					return
				}
				w.mutex.Lock()
				w.renewed++
				w.mutex.Unlock()
			}
		})
	}
	return nil
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
	_ = w.conn.Close() // nothing is left on it
	w.conn = nil
}

// questions compare what Check answers, and what each Watch received last, to the model's verdict of the same gate: filter 0's own.
func (w *Watch) questions(r *Run) (all []*question) {
	var gate *Point
	for _, p := range r.points {
		if p.Listener == "ingress" && p.Variant.Name == w.variant.Name && p.Gate == (Gate{0, w.host, -1}) {
			gate = p
		}
	}
	ask := func(what string, ask func() (string, error)) {
		all = append(all, &question{pair: fmt.Sprintf("%s's %.5s and the model", w.variant.Name, what), ask: func() (o outcome, err error) {
			begun := time.Now()
			got, err := ask()
			if err != nil {
				return o, err
			}
			want, wait := r.expect(gate, Window{begun, time.Now()})
			if want.unknown() {
				return outcome{same: true}, nil
			}
			serving := map[int]string{200: "SERVING", 503: "NOT_SERVING"}
			same := got == serving[want.Status]
			for _, a := range want.Answers {
				same = same || got == serving[a.Status]
			}
			return outcome{
				same: same, counts: want.certain(), patience: max(wait, 2*slack), with: "the model", point: gate,
				open:  got == "SERVING" && !want.passing(),
				where: func() string { return what + " of " + r.world.describe(gate.String(), gate.config) },
				got:   func() string { return got },
				want:  func() string { return fmt.Sprintf("%+v", want) },
			}, nil
		}})
	}
	ask("Check", func() (string, error) {
		if err := w.open(r.listeners["ingress"]); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		reply, err := w.client().Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: Service})
		if err != nil {
			return err.Error(), nil
		}
		return reply.Status.String(), nil
	})
	for i := range watchers {
		ask(fmt.Sprint("Watch ", i), func() (string, error) {
			w.mutex.Lock()
			defer w.mutex.Unlock()
			return w.last[i], nil
		})
	}
	return all
}
