// Package walk takes an Envoy through events, by a real control plane, and after each compares every gate in it to Envoy's own
// health_check filter where that can be configured to the same, and to a model elsewhere.
//
//	world.go    the model: clusters, hosts and gates, and what each event makes of them
//	xds.go      the same world as Envoy's configuration
//	run.go      an Envoy that goes through the events
//	compare.go  what each opinion is, and how long they may take to agree
//	streams.go  what stays open meanwhile: calls, and Watches of grpc.health.v1.Health
//	explain.go  what the command says of it all
//	backends.go the servers behind the hosts
package walk

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// settle bounds every wait for Envoy to have taken what it was given.
const settle = 20 * time.Second

// Run is one Envoy that goes through events beside the model.
type Run struct {
	Envoy *bed.Envoy
	Seen

	options  Options
	world    *World
	control  *control
	backends *backends
	client   *http.Client
	dir      string
	second   string // the address of the second listener, where there is one
	calls    calls
	watches  []*watches // one a door that answers grpc.health.v1.Health
	states   int        // how many were compared
	answers  map[place]Answer
}

// Seen is what a run has seen.
type Seen struct {
	Compared map[string]int `json:"compared"` // comparisons, with whom
	// How long a pair of opinions took at the most to agree: the stock door looks every 50 ms to 1 s.
	Longest map[string]Milliseconds `json:"longest_wait_ms"`
	// How often a gate answered other than Envoy's own filter because a cluster was gone whose gauges it reads on, by door and cluster.
	Ghosts map[string]int `json:"ghosts"`
}

// Milliseconds are written as a number.
type Milliseconds int64

// Options are what a run is besides.
type Options struct {
	Doors []door.Door // the ways in which Healthgate comes into the one Envoy
	// For a test: what the model says of a door's gates in place of the truth.
	Wrong func(d door.Door, a Answer) Answer
	// In one state of so many the command explains each gate, by the numbers and by asking it, and must agree; 0 is in none.
	Explain int
	Timed   bool     // with gates that hang on time, which nothing is compared with
	Env     []string // of Envoy
	// The Envoy is started in drain mode: it has failed its health checks before it has any configuration.
	Drained bool
}

// Comparisons is how many were made.
func (s *Seen) Comparisons() (n int) {
	for with, times := range s.Compared {
		if !strings.Contains(with, ", ") { // what is special of some of them
			n += times
		}
	}
	return n
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

// Doors finds doors by their names, with commas between; both is the two.
func Doors(names string) (all []door.Door, err error) {
	if names == "both" {
		names = "contrib,stock"
	}
	for _, name := range strings.Split(names, ",") {
		d, err := door.Named(name)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// Start starts an Envoy and what it is connected to, in the world where each run begins.
func Start(ctx context.Context, o Options) (r *Run, err error) {
	r = &Run{world: newWorld(), client: &http.Client{Timeout: 10 * time.Second}, options: o, calls: calls{}, answers: map[place]Answer{},
		Seen: Seen{Compared: map[string]int{}, Longest: map[string]Milliseconds{}, Ghosts: map[string]int{}}}
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
	if r.control, err = newControl(ctx, o.Doors); err != nil {
		return r, err
	}
	admin, err := bed.UnusedAddress() // a gate polls it, so that it has to be known beforehand
	if err != nil {
		return r, err
	}
	for _, port := range []*int{&r.control.second, &r.control.calls} {
		unused, err := bed.UnusedAddress()
		if err != nil {
			return r, err
		}
		*port = unused.Port
	}
	if o.Timed {
		r.control.admin = admin.String()
	}
	if _, err := r.control.push(r.world, r.backends.port); err != nil {
		return r, err
	}
	return r, r.launch(ctx, admin.Port)
}

// launch starts Envoy, and waits until it has the world.
func (r *Run) launch(ctx context.Context, admin int) error {
	config, err := bed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return err
	}
	if r.world.Drained = r.options.Drained; r.options.Drained {
		if err := os.WriteFile(filepath.Join(r.dir, "drain"), nil, 0o600); err != nil {
			return err
		}
		config.Set("flags_path", r.dir)
	}
	config.Listen(0, admin)
	config.Delete("overload_manager")
	config.Delete("static_resources.listeners")
	config.Set("node", map[string]any{"id": node, "cluster": node})
	r.control.use(config)
	options := bed.Options{Env: r.options.Env}
	for _, d := range r.options.Doors {
		d.Prepare(config)
		options = d.Options(options)
	}
	// What is asked is waited for, and nothing is brought up to date for it.
	options.Sync = nil
	if r.Envoy, err = bed.StartEnvoy(ctx, r.dir, config, options); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	for _, d := range r.options.Doors {
		if d.Can(door.GRPC) == nil {
			r.watches = append(r.watches, newWatches(d))
		}
	}
	return nil
}

// Close ends everything that the run has started.
func (r *Run) Close() {
	for _, w := range r.watches {
		w.close()
	}
	r.calls.close()
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
	if e.Kind == "gates" { // another listener has taken the place of theirs
		for _, w := range r.watches {
			w.end()
		}
	}
	return r.compare(ctx)
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
	case "call":
		if !e.On {
			r.calls.end(e.Cluster)
			return nil
		}
		return r.call(ctx, e.Cluster)
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
		listeners, err := r.Envoy.Listeners()
		if err != nil {
			return err
		}
		if r.Envoy.Ingress = listeners["ingress"]; r.Envoy.Ingress == "" {
			return fmt.Errorf("envoy has the listeners %v", listeners)
		}
		if r.second = listeners["second"]; r.world.Second != (r.second != "") {
			return fmt.Errorf("envoy has the listeners %v", listeners)
		}
		if body, err := r.body(r.Envoy.Ingress, "/keeper"); err != nil || body != fmt.Sprint(r.world.Gates) {
			return fmt.Errorf("/keeper is an older one (%v)", err)
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
