package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// call begins a call that stays open, through the listener that never changes, as soon as a worker knows a host: up to a second after the
// gauges (update_merge_window).
func (r *Run) call(ctx context.Context, cluster string) error {
	return testbed.WaitFor(ctx, settleWithin, func() error {
		response, err := (&http.Client{Transport: r.client.Transport}).Get("http://" + r.listeners["calls"] + "/call/" + cluster)
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			response.Body.Close()
			return fmt.Errorf("a call to %s is answered with %d", cluster, response.StatusCode)
		}
		r.calls[cluster] = response.Body
		return nil
	})
}

// hangUp ends the call to a cluster, if one is open.
func (r *Run) hangUp(cluster string) {
	if open := r.calls[cluster]; open != nil {
		open.Close()
		delete(r.calls, cluster)
	}
}

// watchers is the number of open calls of Watch for each virtual host.
const watchers = 2

// Watch keeps calls of grpc.health.v1.Health's Watch open for a virtual host, and renews one that Envoy ends with UNAVAILABLE.
type Watch struct {
	variant     Variant
	virtualHost string
	conn        *grpc.ClientConn
	last        [watchers]atomic.Value // the status that each received last, or the error by which it ended
}

// dial connects to a virtual host of a listener.
func dial(listener, virtualHost string) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///"+listener, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(virtualHost))
	if err != nil {
		panic(err) // of the options, which are made here
	}
	return conn
}

func newWatch(v Variant, listener, virtualHost string) *Watch {
	w := &Watch{variant: v, virtualHost: virtualHost, conn: dial(listener, virtualHost)}
	for i := range watchers {
		go w.keepOpen(i)
	}
	return w
}

// keepOpen keeps one call open until the connection is closed.
func (w *Watch) keepOpen(i int) {
	for {
		request := &grpc_health_v1.HealthCheckRequest{Service: []string{"", Service}[i%2]}
		stream, err := grpc_health_v1.NewHealthClient(w.conn).Watch(context.Background(), request, grpc.WaitForReady(true))
		for err == nil {
			var update *grpc_health_v1.HealthCheckResponse
			if update, err = stream.Recv(); err == nil {
				w.last[i].Store(update.Status.String())
			}
		}
		if status.Code(err) != codes.Unavailable {
			w.last[i].Store(err.Error())
			return
		}
	}
}

// questions compare the answer to Check, and the last update of each Watch, with the model's verdict of the same gate: filter 0's own.
func (w *Watch) questions(r *Run) []*question {
	place := Place{0, w.virtualHost, -1}
	gate := r.known[(&Gate{Listener: "ingress", Place: place, Path: place.path(w.variant.Name)}).String()]
	answer := func(status string) Answer {
		return Answer{Status: map[string]int{"SERVING": 200, "NOT_SERVING": 503}[status], Details: status}
	}
	pair := w.variant.Name + "'s %s and the model"
	all := []*question{r.askModel(gate, fmt.Sprintf(pair, "Check"), "Check of ", func() (Answer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		response, err := grpc_health_v1.NewHealthClient(w.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: Service})
		if err != nil {
			return answer(err.Error()), nil
		}
		return answer(response.Status.String()), nil
	})}
	for i := range watchers {
		all = append(all, r.askModel(gate, fmt.Sprintf(pair, "Watch"), fmt.Sprintf("Watch %d of ", i), func() (Answer, error) {
			last, _ := w.last[i].Load().(string)
			return answer(last), nil
		}))
	}
	return all
}
