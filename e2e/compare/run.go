package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"healthgate/e2e/testbed"
)

// settleWithin bounds every wait for Envoy to have its configuration.
const settleWithin = 30 * time.Second

// Options are the settings of a run.
type Options struct {
	Variants []Variant // all in one Envoy
	Seed     uint64    // of the events
	Duration time.Duration
	Events   int           // a search ends after this many; 0: it ends by time
	Shorten  time.Duration // limits the time for shortening the events that show a disagreement
	Without  Without
	Explain  int  // `healthgate explain` is compared in one state out of this many; 0: never
	Drained  bool // Envoy starts in drain mode
	Soak     bool // under load, with growth checks, and with gates with source: admin, which are not compared
	// Wrong, for a test, replaces the model's answer of a gate.
	Wrong func(v Variant, a Answer) Answer
	// Patience is how long an answer may differ; 0: the constant patience. Linger is how long each state is compared repeatedly: in a list of
	// few events, a disagreement may depend on the module sampling between two of them.
	Patience, Linger time.Duration
}

// Run applies events to one Envoy and to the model.
type Run struct {
	Envoy *testbed.Envoy
	Seen

	Options
	world     *World
	made      map[string]made // xDS resources by type and name
	control   *Control
	backends  *Backends
	client    *http.Client
	dir       string
	closers   []func()
	listeners map[string]string        // addresses of the listeners that are compared
	calls     map[string]io.ReadCloser // responses that have begun and do not end, by cluster
	watches   []*Watch
	clients   []*Clients
	gates     []*Gate
	known     map[string]*Gate // all gates that have existed
	hadHold   map[string]bool  // paths and configurations with hold that have existed
	checks    Checks           // of the cluster checked
}

// Seen counts the comparisons of a run.
type Seen struct {
	Compared map[string]int     `json:"compared"` // comparisons by the two sides
	States   int                `json:"states"`
	Longest  map[string]int64   `json:"longest_wait_ms"`            // how long two sides took to agree
	Removed  map[string]int     `json:"gauges_of_removed_clusters"` // answers that differ from Envoy's own filter for this reason
	Kinds    map[string]int     `json:"events"`
	Took     map[string]float64 `json:"seconds_of"` // time for the events of a kind, and for comparing
}

// Comparisons returns how many comparisons there were.
func (s *Seen) Comparisons() (n int) {
	for pair, times := range s.Compared {
		if !strings.Contains(pair, ", ") { // a subset
			n += times
		}
	}
	return n
}

// Disagreement is an answer that should have been another.
type Disagreement struct {
	With      string `json:"with"`
	Where     string `json:"where"`
	Got       string `json:"got"`
	Want      string `json:"want"`
	FailsOpen bool   `json:"fails_open,omitempty"` // the gate passes, and should not
}

func (d *Disagreement) String() string {
	text := fmt.Sprintf("%s: healthgate answers %s, %s %s", d.Where, d.Got, d.With, d.Want)
	if d.FailsOpen {
		return "FAILS OPEN: " + text
	}
	return text
}

// Start starts an Envoy and everything that it connects to.
func Start(ctx context.Context, o Options) (r *Run, err error) {
	r = &Run{
		Options: o, world: newWorld(), made: map[string]made{}, calls: map[string]io.ReadCloser{}, known: map[string]*Gate{},
		hadHold: map[string]bool{},
		Seen: Seen{
			Compared: map[string]int{}, Longest: map[string]int64{}, Removed: map[string]int{}, Kinds: map[string]int{},
			Took: map[string]float64{},
		},
		client: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "healthgate-compare-"); err != nil {
		return r, err
	}
	r.closers = append(r.closers, func() { _ = os.RemoveAll(r.dir) }, r.client.CloseIdleConnections)
	if r.backends, err = newBackends(); err != nil {
		return r, err
	}
	r.closers = append(r.closers, r.backends.Close)
	if r.control, err = newControl(ctx); err != nil {
		return r, err
	}
	r.closers = append(r.closers, r.control.server.Stop)
	if err := r.control.push(r.resources()); err != nil {
		return r, err
	}
	begun := time.Now()
	if err := r.startEnvoy(ctx); err != nil {
		return r, err
	}
	r.closers = append(r.closers, r.Envoy.Kill)
	if err := r.settle(ctx, Event{Kind: "listener"}); err != nil {
		return r, err
	}
	for _, v := range r.Variants {
		if v.AnswersGRPC() && !r.Without["watch"] {
			for _, host := range virtualHosts {
				watch := newWatch(v, r.listeners["ingress"], host)
				r.watches = append(r.watches, watch)
				r.closers = append(r.closers, func() { _ = watch.conn.Close() })
			}
		}
	}
	r.observe(Event{Kind: "listener"}, Window{begun, time.Now()})
	return r, nil
}

// startEnvoy starts an Envoy that gets its configuration from the control plane.
func (r *Run) startEnvoy(ctx context.Context) error {
	config, err := testbed.ParseBootstrap(fmt.Appendf(nil, `
node: {id: %[1]s, cluster: %[1]s}
admin: {address: {pipe: {path: %[2]s}}}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control}}]}
  cds_config: %[3]s
  lds_config: %[3]s
static_resources:
  clusters:
  - name: control
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`, node, r.adminSocket(), ads))
	if err != nil {
		return err
	}
	config.SetEndpoints(r.control.address)
	if r.world.Drained = r.Drained; r.Drained {
		if err := os.WriteFile(filepath.Join(r.dir, "drain"), nil, 0o600); err != nil {
			return err
		}
		config.FlagsPath = r.dir
	}
	// The contrib host would take a fifth of Envoy's main thread to copy all stats every 5 ms.
	options := testbed.Options{Env: []string{"CONTRIB_HOST_REFRESH_MILLISECONDS=20"}}
	if r.Soak {
		options.Env = append(options.Env, traceGoroutines(r.logEvery()))
	}
	for _, v := range r.Variants {
		v.Convert(config.Bootstrap)
		options = v.Options(options)
	}
	options.Sync = nil // the comparison itself waits
	r.Envoy, err = testbed.StartEnvoy(ctx, r.dir, config, options)
	return err
}

func (r *Run) adminSocket() string { return filepath.Join(r.dir, "admin.sock") }

// Close ends everything that the run has started. It may be called more than once.
func (r *Run) Close() {
	for cluster := range r.calls {
		r.hangUp(cluster)
	}
	for _, closer := range slices.Backward(r.closers) {
		closer()
	}
	r.closers = nil
}

// Apply causes an event, waits until Envoy has it, and compares. The error is of the run, not of a gate.
func (r *Run) Apply(ctx context.Context, e Event) (*Disagreement, error) {
	if !r.world.apply(e) {
		return nil, nil
	}
	r.Kinds[e.Kind]++
	begun := time.Now()
	found, err := r.cause(ctx, e)
	if err == nil {
		err = r.settle(ctx, e)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", asJSON(e), err)
	}
	r.observe(e, Window{begun, time.Now()})
	r.Took[e.Kind] += time.Since(begun).Seconds()
	defer func(begun time.Time) { r.Took["comparing"] += time.Since(begun).Seconds() }(time.Now())
	if found != nil {
		return found, nil
	}
	if e.Kind == "time" {
		if found, err := r.compareTimed(ctx, time.Duration(e.Number)*time.Millisecond); err != nil || found != nil {
			return found, err
		}
	}
	for end := time.Now().Add(r.Linger); ; {
		if found, err := r.compare(ctx); err != nil || found != nil || !time.Now().Before(end) {
			return found, err
		}
	}
}

// cause causes an event.
func (r *Run) cause(ctx context.Context, e Event) (found *Disagreement, err error) {
	switch e.Kind {
	case "drain":
		_, err = r.Envoy.Post(map[bool]string{true: "/healthcheck/fail", false: "/healthcheck/ok"}[e.On])
		return nil, err
	case "reset":
		_, err = r.Envoy.Post("/reset_counters")
		return nil, err
	case "server":
		r.backends.states.Store(address(e.Cluster, e.Host), e.State)
		return nil, nil
	case "eject":
		return nil, r.eject(ctx, e)
	case "call":
		if r.hangUp(e.Cluster); e.On {
			err = r.call(ctx, e.Cluster)
		}
		return nil, err
	case "freeze", "long freeze":
		return r.freeze(ctx, time.Duration(e.Number)*time.Millisecond)
	case "remove host", "hosts":
		// A host that is added again is a new one, with a server in its first state.
		if first := firstState(e.Cluster); first != "" {
			for i := range servers {
				if h := r.world.Clusters[e.Cluster].Hosts[i]; h == nil || h.Server == first {
					r.backends.states.Store(address(e.Cluster, i), first)
				}
			}
		}
	}
	return nil, r.control.push(r.resources())
}

// eject makes a host's server fail, and sends requests until Envoy has ejected the host.
func (r *Run) eject(ctx context.Context, e Event) error {
	at := address(e.Cluster, e.Host)
	r.backends.states.Store(at, "failing")
	defer r.backends.states.Store(at, "up")
	ejected := 0
	for _, h := range r.world.Clusters[ejecting].Hosts {
		if h.Ejected {
			ejected++
		}
	}
	gauge := "cluster." + ejecting + ".outlier_detection.ejections_active"
	return testbed.WaitFor(ctx, settleWithin, func() error {
		for range servers {
			if _, _, err := r.Get("ingress", virtualHosts[0], "/eject", ""); err != nil {
				return err
			}
		}
		stats, err := r.Envoy.Stats(gauge)
		if err == nil && stats[gauge] != uint64(ejected) {
			err = fmt.Errorf("%d hosts are ejected, want %d", stats[gauge], ejected)
		}
		return err
	})
}

// confirmStale is how long the module sees an old sample before it answers as stale. On a busy machine that may be too short for Envoy's
// other threads to run after a freeze, but then the gate must not stay stale.
const confirmStale = 100 * time.Millisecond

// freeze stops Envoy's process for some time, while probes wait for it. None of them may be answered as stale at once: no time has passed
// for the process.
func (r *Run) freeze(ctx context.Context, d time.Duration) (*Disagreement, error) {
	pid := r.Envoy.Pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // also after an error
	waiting := slices.DeleteFunc(slices.Clone(r.gates), func(g *Gate) bool {
		return g.Listener != "ingress" || g.config.timed() && g.Variant.ReadsGauges()
	})
	waiting = waiting[:min(len(waiting), 40)]
	answers, answered := make([]Answer, len(waiting)), make([]time.Time, len(waiting))
	var probes errgroup.Group
	for i, g := range waiting {
		probes.Go(func() (err error) {
			answers[i], err = r.probe(g, false)
			answered[i] = time.Now()
			return err
		})
	}
	time.Sleep(d) // the time that passes is the event
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return nil, err
	}
	continued := time.Now()
	if err := probes.Wait(); err != nil {
		return nil, err
	}
	staysStale := func(g *Gate) bool {
		return testbed.WaitFor(ctx, slack, func() error {
			again, err := r.probe(g, false)
			if err == nil && again.Details == answerStale.Details {
				err = errors.New("the gate stays stale")
			}
			return err
		}) != nil
	}
	for i, g := range waiting {
		r.Compared[g.Variant.Name+" and the documentation, during a freeze"]++
		early := answered[i].Sub(continued) < confirmStale
		if answers[i].Details == answerStale.Details && (early || staysStale(g)) {
			return &Disagreement{
				With: "the documentation", Where: fmt.Sprintf("%s, waiting during a freeze of %v", g, d),
				Got: fmt.Sprintf("%+v", answers[i]), Want: "promises an answer by the health before it",
			}, nil
		}
	}
	return nil, nil
}

// settle waits until Envoy has the world: its configuration, and its hosts in its gauges.
func (r *Run) settle(ctx context.Context, e Event) error {
	if err := testbed.WaitFor(ctx, settleWithin, r.control.accepted); err != nil {
		return err
	}
	switch e.Kind {
	case "override", "time", "reset", "drain", "call":
		return nil
	case "filter", "listener":
		return r.settleListeners(ctx)
	}
	return testbed.WaitFor(ctx, settleWithin, func() error {
		stats, err := r.Envoy.Stats("(cluster_manager.(active|warming)_clusters|cluster.[^.]+.membership_)")
		if err != nil {
			return err
		}
		present := uint64(1) // the control plane's
		for name, c := range r.world.Clusters {
			if !c.Present {
				continue
			}
			present++
			scope := "cluster." + name + ".membership_"
			got := Counts{int(stats[scope+"healthy"]), int(stats[scope+"degraded"]), int(stats[scope+"excluded"]), int(stats[scope+"total"])}
			if got != c.Counts() {
				return fmt.Errorf("the gauges of %s are %+v, want %+v", name, got, c.Counts())
			}
		}
		active, warming := stats["cluster_manager.active_clusters"], stats["cluster_manager.warming_clusters"]
		if active != present || warming != 0 {
			return fmt.Errorf("%d clusters are active and %d warming, want %d active", active, warming, present)
		}
		return nil
	})
}

// settleListeners waits until Envoy has the listeners, and none is warming.
func (r *Run) settleListeners(ctx context.Context) error {
	want := []string{"calls", "ingress"}
	if r.world.Second {
		want = append(want, "second")
	}
	err := testbed.WaitFor(ctx, settleWithin, func() error {
		stats, err := r.Envoy.Stats("listener_manager.total_listeners_warming")
		if err != nil || stats["listener_manager.total_listeners_warming"] != 0 {
			return fmt.Errorf("listeners are warming: %v (%v)", stats, err)
		}
		if r.listeners, err = r.Envoy.Listeners(); err != nil {
			return err
		}
		if got := slices.Sorted(maps.Keys(r.listeners)); !slices.Equal(got, want) {
			return fmt.Errorf("envoy has the listeners %v, want %v", got, want)
		}
		return nil
	})
	// A connection keeps the filters that it began with until Envoy closes it.
	r.client.CloseIdleConnections()
	return err
}

// Get sends a request to a listener, and returns the response and its body.
func (r *Run) Get(listener, host, path, accept string) (*http.Response, []byte, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+r.listeners[listener]+path, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Host = host
	if accept != "" {
		request.Header.Set("accept", accept)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, body, err
}
