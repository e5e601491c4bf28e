package walk

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// calls are those that stay open, by their clusters.
type calls map[int]*call

// call is one to a host that has begun to answer it, and does not end.
type call struct {
	hangUp context.CancelFunc
	over   chan struct{}
}

// call begins one, by a listener that nobody changes, as soon as a worker knows of a host: that comes up to a second after the gauges
// (update_merge_window).
func (r *Run) call(ctx context.Context, cluster int) error {
	listeners, err := r.Envoy.Listeners()
	if err != nil {
		return err
	}
	r.calls.end(cluster)
	return bed.WaitFor(ctx, settle, func() error {
		begun, err := begin(ctx, "http://"+listeners["calls"]+callPath(cluster))
		if err == nil {
			r.calls[cluster] = begun
		}
		return err
	})
}

// begin makes a call, and returns once its host has begun to answer it.
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

// end hangs up.
func (c calls) end(cluster int) {
	if one := c[cluster]; one != nil {
		one.hangUp()
		<-one.over
		delete(c, cluster)
	}
}

// open says whether a call is still there.
func (c calls) open(cluster int) bool {
	one := c[cluster]
	if one == nil {
		return false
	}
	select {
	case <-one.over:
		return false
	default:
		return true
	}
}

func (c calls) close() {
	for cluster := range c {
		c.end(cluster)
	}
}

// Watchers is how many Watches are open at a time, by each door that answers them.
const Watchers = 3

// watches are calls of grpc.health.v1.Health by one door.
type watches struct {
	door    door.Door
	conn    *grpc.ClientConn // nil while there is none
	hangUp  context.CancelFunc
	running sync.WaitGroup

	mutex sync.Mutex
	last  [Watchers]string // what each was told last, or how it ended
}

func newWatches(d door.Door) *watches { return &watches{door: d} }

// begin opens them, where they are not.
func (w *watches) begin(ingress string) error {
	if w.conn != nil {
		return nil
	}
	conn, err := grpc.NewClient("passthrough:///"+ingress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	ctx, hangUp := context.WithCancel(context.Background())
	w.conn, w.hangUp, w.last = conn, hangUp, [Watchers]string{}
	for i := range Watchers {
		w.running.Go(func() {
			stream, err := w.client().Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: []string{"", Service}[i%2]})
			for err == nil {
				var reply *grpc_health_v1.HealthCheckResponse
				if reply, err = stream.Recv(); err == nil {
					w.tell(i, reply.Status.String())
				}
			}
			w.tell(i, err.Error())
		})
	}
	return nil
}

func (w *watches) client() grpc_health_v1.HealthClient { return grpc_health_v1.NewHealthClient(w.conn) }

func (w *watches) tell(i int, what string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.last[i] = what
}

func (w *watches) told(i int) string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.last[i]
}

// end hangs up, until they begin anew.
func (w *watches) end() {
	if w.conn == nil {
		return
	}
	w.hangUp()
	w.running.Wait()
	_ = w.conn.Close() // nothing is left on it
	w.conn = nil
}

func (w *watches) close() { w.end() }

// compareHealth compares what Check says, and what each Watch was told last, to the model's answer of the same gate.
func (r *Run) compareHealth(ctx context.Context, w *watches) (*Disagreement, error) {
	if err := w.begin(r.Envoy.Ingress); err != nil {
		return nil, err
	}
	policy := r.world.health()
	if found, err := r.compareGate(ctx, w.door, r.Envoy.Ingress, healthPath(w.door), policy); err != nil || found != nil {
		return found, err
	}
	want := grpc_health_v1.HealthCheckResponse_NOT_SERVING.String()
	if r.want(w.door, policy).Status < 300 {
		want = grpc_health_v1.HealthCheckResponse_SERVING.String()
	}
	asks := map[string]func() string{"Check": func() string {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		reply, err := w.client().Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: Service})
		if err != nil {
			return err.Error()
		}
		return reply.Status.String()
	}}
	for i := range Watchers {
		asks[fmt.Sprint("Watch ", i)] = func() string { return w.told(i) }
	}
	for what, ask := range asks {
		var got string
		who := w.door.Name() + "'s " + what[:5]
		same, err := r.agree(ctx, who+" and the model", func() (bool, error) {
			got = ask()
			return got == want, nil
		})
		if err != nil {
			return nil, err
		}
		r.count(who, "the model", r.Envoy.Ingress, policy)
		if !same {
			return &Disagreement{"the model", r.describe(what, policy), got, want}, nil
		}
	}
	return nil, nil
}
