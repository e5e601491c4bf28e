// Package walk takes an Envoy through events, by a real control plane, and after each compares every gate in it to Envoy's own
// health_check filter where that can be configured to the same, and to a model elsewhere.
//
//	world.go  the model: clusters, hosts and gates, and what each event makes of them
//	xds.go    the same world as Envoy's configuration
//	run.go    an Envoy that goes through the events, and what is compared
package walk

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// settle bounds every wait for Envoy to have taken what it was given.
const settle = 20 * time.Second

// Run is one Envoy that goes through events beside the model.
type Run struct {
	Envoy    *bed.Envoy
	Compared map[string]int // comparisons, with whom

	options  Options
	world    *World
	control  *control
	backends *backends
	client   *http.Client
	dir      string
	second   string // the address of the second listener, where there is one
}

// Options are what a run is besides.
type Options struct {
	Door  door.Door           // the way in which Healthgate comes into Envoy
	Wrong func(Answer) Answer // for a test: what the model says in place of the truth
	Timed bool                // with gates that hang on time, which nothing is compared with
	Env   []string            // of Envoy
	// The Envoy is started in drain mode: it has failed its health checks before it has any configuration.
	Drained bool
}

// Disagreement is an answer that should have been another.
type Disagreement struct {
	With  string `json:"with"`
	Where string `json:"where"`
	Got   string `json:"got"`
	Want  string `json:"want"`
}

func (d *Disagreement) String() string {
	return fmt.Sprintf("%s: healthgate answers %s, %s %s", d.Where, d.Got, d.With, d.Want)
}

// Start starts an Envoy and what it is connected to, in the world where each run begins.
func Start(ctx context.Context, o Options) (r *Run, err error) {
	r = &Run{world: newWorld(), client: &http.Client{Timeout: 10 * time.Second}, options: o, Compared: map[string]int{}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "healthgate-diff-"); err != nil {
		return r, err
	}
	if r.backends, err = newBackends(); err != nil {
		return r, err
	}
	if r.control, err = newControl(ctx, o.Door); err != nil {
		return r, err
	}
	admin, err := bed.UnusedAddress() // a gate polls it, so that it has to be known beforehand
	if err != nil {
		return r, err
	}
	second, err := bed.UnusedAddress()
	if err != nil {
		return r, err
	}
	r.control.second = second.Port
	if o.Timed {
		r.control.admin = admin.String()
	}
	if _, err := r.control.push(r.world, r.backends.port); err != nil {
		return r, err
	}
	config, err := bed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return r, err
	}
	if r.world.Drained = o.Drained; o.Drained {
		if err := os.WriteFile(filepath.Join(r.dir, "drain"), nil, 0o600); err != nil {
			return r, err
		}
		config.Set("flags_path", r.dir)
	}
	config.Listen(0, admin.Port)
	config.Delete("overload_manager")
	config.Delete("static_resources.listeners")
	config.Set("node", map[string]any{"id": node, "cluster": node})
	r.control.use(config)
	if r.Envoy, err = door.Start(ctx, o.Door, r.dir, config, bed.Options{Env: o.Env}); err != nil {
		return r, err
	}
	return r, r.settle(ctx)
}

// Close ends everything that the run has started.
func (r *Run) Close() {
	if r.Envoy != nil {
		r.Envoy.Kill()
	}
	if r.control != nil {
		r.control.server.Stop()
	}
	if r.backends != nil {
		r.backends.close()
	}
	r.client.CloseIdleConnections()
	_ = os.RemoveAll(r.dir)
}

// Apply makes an event happen, waits until Envoy has it, and compares. The error is of the run, not of a gate.
func (r *Run) Apply(ctx context.Context, e Event) (*Disagreement, error) {
	if !r.world.apply(e) {
		return nil, nil
	}
	if err := r.happen(ctx, e); err != nil {
		return nil, fmt.Errorf("%+v: %w", e, err)
	}
	if err := r.settle(ctx); err != nil {
		return nil, fmt.Errorf("%+v: %w", e, err)
	}
	return r.compare()
}

func (r *Run) happen(ctx context.Context, e Event) error {
	switch e.Kind {
	case "drain":
		path := "/healthcheck/ok"
		if e.On {
			path = "/healthcheck/fail"
		}
		_, err := r.Envoy.Post(path)
		return err
	case "server":
		r.backends.set(address(e.Cluster, e.Host), e.State)
		return nil
	case "eject":
		return r.eject(ctx, e)
	case "host goes", "hosts":
		// A host that comes back is a new one, with a server that is as at the beginning.
		if first := firstState(e.Cluster); first != "" {
			for i := range servers {
				if h, ok := r.world.Clusters[e.Cluster].Hosts[i]; !ok || h.Server == first {
					r.backends.set(address(e.Cluster, i), first)
				}
			}
		}
	}
	_, err := r.control.push(r.world, r.backends.port)
	return err
}

// eject has a host's server fail, and sends until Envoy has met it.
func (r *Run) eject(ctx context.Context, e Event) error {
	at := address(e.Cluster, e.Host)
	r.backends.set(at, "failing")
	defer r.backends.set(at, "up")
	ejected := 0
	for _, h := range r.world.Clusters[ejecting].Hosts {
		if h.Ejected {
			ejected++
		}
	}
	const gauge = "cluster.c4.outlier_detection.ejections_active"
	return bed.WaitFor(ctx, settle, func() error {
		for range servers {
			reply, err := r.client.Get("http://" + r.Envoy.Ingress + "/eject")
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, reply.Body)
			reply.Body.Close()
		}
		stats, err := r.Envoy.Stats(gauge)
		if err == nil && stats[gauge] != uint64(ejected) {
			err = fmt.Errorf("%d hosts are ejected, want %d", stats[gauge], ejected)
		}
		return err
	})
}

// settle waits until Envoy has the world: its listener, its routes, its clusters, and their hosts in its gauges.
func (r *Run) settle(ctx context.Context) error {
	present := 1 // the control plane's
	for _, c := range r.world.Clusters {
		if c.Present {
			present++
		}
	}
	return bed.WaitFor(ctx, settle, func() error {
		stats, err := r.Envoy.Stats("cluster")
		if err != nil {
			return err
		}
		if active, warming := stats["cluster_manager.active_clusters"], stats["cluster_manager.warming_clusters"]; active != uint64(present) || warming != 0 {
			return fmt.Errorf("%d clusters are active and %d warming, want %d", active, warming, present)
		}
		for i, c := range r.world.Clusters {
			scope := "cluster." + name(i) + ".membership_"
			got := Counts{int(stats[scope+"healthy"]), int(stats[scope+"degraded"]), int(stats[scope+"excluded"]), int(stats[scope+"total"])}
			if c.Present && got != c.Counts() {
				return fmt.Errorf("%s has %+v in its gauges, want %+v", name(i), got, c.Counts())
			}
		}
		if body, err := r.body(r.Envoy.Ingress, "/keeper"); err != nil || body != fmt.Sprint(r.world.Gates) {
			return fmt.Errorf("/keeper is an older one (%v)", err)
		}
		listeners, err := r.Envoy.Listeners()
		if err != nil {
			return err
		}
		if r.second = listeners["second"]; r.world.Second != (r.second != "") {
			return fmt.Errorf("envoy has the listeners %v", listeners)
		}
		for _, address := range r.ingresses() {
			if body, err := r.body(address, "/routes"); err != nil || body != r.world.marker() {
				return fmt.Errorf("/routes is an older one (%v)", err)
			}
		}
		return nil
	})
}

// ingresses are the addresses of the listeners that have the routes.
func (r *Run) ingresses() []string {
	if r.second == "" {
		return []string{r.Envoy.Ingress}
	}
	return []string{r.Envoy.Ingress, r.second}
}

func (r *Run) body(ingress, path string) (string, error) {
	_, body, err := r.Get(ingress, path, "text/plain")
	return body, err
}

// Get asks Envoy.
func (r *Run) Get(ingress, path, accept string) (*http.Response, string, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+ingress+path, nil)
	if err != nil {
		return nil, "", err
	}
	request.Header.Set("accept", accept)
	reply, err := r.client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	return reply, string(body), err
}

// compare asks each gate, and Envoy's own filter where it can be configured to the same; those of the routes by each listener
// in turn.
func (r *Run) compare() (*Disagreement, error) {
	for i, policy := range r.world.Gates {
		found, status, err := r.compareGate(r.Envoy.Ingress, fmt.Sprint("/gate/", i), policy)
		if err != nil || found != nil {
			return found, err
		}
		if !policy.equivalent() || !r.world.present(policy) {
			continue
		}
		reply, _, err := r.Get(r.Envoy.Ingress, fmt.Sprint("/native/", i), "*/*")
		if err != nil {
			return nil, err
		}
		r.Compared["Envoy's own filter"]++
		if reply.StatusCode != status {
			return &Disagreement{"Envoy's own filter", fmt.Sprintf("/gate/%d %+v", i, policy), fmt.Sprint(status), fmt.Sprint(reply.StatusCode)}, nil
		}
	}
	for i, policy := range r.world.routed() {
		for _, ingress := range r.ingresses() {
			if found, _, err := r.compareGate(ingress, pathOf(i), policy); err != nil || found != nil {
				return found, err
			}
		}
	}
	return nil, nil
}

// compareGate compares a gate to the model, and returns the status of its answer.
func (r *Run) compareGate(ingress, path string, policy Policy) (*Disagreement, int, error) {
	got, err := r.answer(ingress, path)
	if err != nil {
		return nil, 0, err
	}
	want := r.world.judge(policy)
	if r.options.Wrong != nil {
		want = r.options.Wrong(want)
	}
	r.Compared["the model"]++
	if ingress == r.second {
		r.Compared["the model, by the second listener"]++
	}
	if got != want {
		var counts []Counts
		for _, need := range policy.Clusters {
			counts = append(counts, r.world.Clusters[need.Cluster].Counts())
		}
		return &Disagreement{"the model", fmt.Sprintf("%s %+v of %+v", path, policy, counts), fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want)}, 0, nil
	}
	return nil, got.Status, nil
}

// present says whether all clusters of a policy are there: of one that is gone Healthgate knows the gauges, and Envoy's own
// filter that it is gone.
func (w *World) present(p Policy) bool {
	for _, r := range p.Clusters {
		if !w.Clusters[r.Cluster].Present {
			return false
		}
	}
	return true
}

// answer probes, and reads the reason from the report.
func (r *Run) answer(ingress, path string) (Answer, error) {
	reply, body, err := r.Get(ingress, path, "application/json")
	if err != nil {
		return Answer{}, err
	}
	var report struct{ Output string }
	if err := json.Unmarshal([]byte(body), &report); err != nil {
		return Answer{}, fmt.Errorf("%s: %d %q: %w", path, reply.StatusCode, body, err)
	}
	return Answer{reply.StatusCode, report.Output, reply.Header.Get("x-envoy-degraded") == "true"}, nil
}

// backends are HTTP servers, each on a loopback address of its own and all on one port.
type backends struct {
	port    int
	mutex   sync.Mutex
	changed *sync.Cond        // of state
	state   map[string]string // by address
	servers []*http.Server
}

func newBackends() (*backends, error) {
	b := &backends{state: map[string]string{}}
	b.changed = sync.NewCond(&b.mutex)
	for _, cluster := range []int{ejecting, checked, fresh} {
		for host := range servers {
			at := address(cluster, host)
			b.state[at] = firstState(cluster)
			listener, err := net.Listen("tcp", net.JoinHostPort(at, fmt.Sprint(b.port)))
			if err != nil {
				b.close()
				return nil, err
			}
			b.port = listener.Addr().(*net.TCPAddr).Port
			server := &http.Server{Handler: b}
			b.servers = append(b.servers, server)
			go func() { _ = server.Serve(listener) }() // until it is closed
		}
	}
	return b, nil
}

func (b *backends) set(address, state string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.state[address] = state
	b.changed.Broadcast()
}

func (b *backends) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	at, _, _ := net.SplitHostPort(request.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
	hungUp := context.AfterFunc(request.Context(), func() {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		b.changed.Broadcast()
	})
	defer hungUp()
	b.mutex.Lock()
	for b.state[at] == "waiting" && request.Context().Err() == nil {
		b.changed.Wait()
	}
	state := b.state[at]
	b.mutex.Unlock()
	switch state {
	case "down", "failing":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "degraded":
		w.Header().Set("x-envoy-degraded", "")
	}
}

func (b *backends) close() {
	for _, server := range b.servers {
		_ = server.Close()
	}
}
