package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"healthgate/e2e/testbed"
)

// settleWithin bounds every wait for Envoy to have its configuration.
const settleWithin = 30 * time.Second

// Options are the settings of a run.
type Options struct {
	Variants []Variant // in the one Envoy
	// Wrong, for a test, replaces the model's answer of a gate.
	Wrong   func(v Variant, a Answer) Answer
	Explain int      // in one state of so many `healthgate explain` must agree with the module's gates; 0 is in none
	Admin   bool     // with gates with source: admin, which nothing is compared with
	Env     []string // of Envoy
	Drained bool     // Envoy is started in drain mode
	Without Without
	Events  int // after which a search ends; 0: it ends by the time
	// Patience is how long an answer may differ; 0 is the usual time. Linger is how long each state is compared again and again: a list of
	// few events shows what needs the module to sample between two of them.
	Patience, Linger time.Duration
}

// Run is one Envoy that goes through events beside the model.
type Run struct {
	Envoy *testbed.Envoy
	Seen

	Options
	world     *World
	resources *Resources
	control   *Control
	backends  *Backends
	client    *http.Client
	dir       string
	listeners map[string]string // the address of each listener that is compared
	calls     Calls
	watches   []*Watch
	states    int
	points    []*Point
	known     map[string]*Point // all that there have been
	held      map[string]bool   // the configurations with hold that there have been, by their paths
	checks    Checks            // of the cluster checked
}

// Seen counts the comparisons of a run.
type Seen struct {
	Compared map[string]int `json:"compared"` // comparisons, by the two sides
	States   int            `json:"states"`
	// Longest is how many milliseconds a pair took at the most to agree.
	Longest map[string]int64 `json:"longest_wait_ms"`
	// Removed is how often a gate answered other than Envoy's own filter because it read the gauges of a removed cluster.
	Removed map[string]int `json:"gauges_of_removed_clusters"`
	Kinds   map[string]int `json:"events"`
	// Took is for how many seconds the events of a kind took, comparing not counted, and how many comparing took.
	Took map[string]float64 `json:"seconds_of"`
}

// Comparisons counts all of them.
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
	With  string `json:"with"`
	Where string `json:"where"`
	Got   string `json:"got"`
	Want  string `json:"want"`
	// FailsOpen marks the worst: the gate passes, and should not.
	FailsOpen bool   `json:"fails_open,omitempty"`
	point     *Point // nil if it is not about one gate
}

func (d *Disagreement) String() string {
	text := fmt.Sprintf("%s: healthgate answers %s, %s %s", d.Where, d.Got, d.With, d.Want)
	if d.FailsOpen {
		return "FAILS OPEN: " + text
	}
	return text
}

// Start starts an Envoy and all that it is connected to, in the world in which each run begins.
func Start(ctx context.Context, o Options) (r *Run, err error) {
	r = &Run{Options: o, world: newWorld(), calls: Calls{}, known: map[string]*Point{}, held: map[string]bool{}}
	r.Seen = Seen{Compared: map[string]int{}, Longest: map[string]int64{},
		Removed: map[string]int{}, Kinds: map[string]int{}, Took: map[string]float64{}}
	r.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "healthgate-compare-"); err != nil {
		return r, err
	}
	if r.backends, err = newBackends(); err != nil {
		return r, err
	}
	if r.control, err = newControl(ctx); err != nil {
		return r, err
	}
	reference, err := testbed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return r, err
	}
	r.resources = &Resources{variants: o.Variants, reference: reference, servers: r.backends.port, keep: o.Without["forget"],
		natives: map[string]any{}, made: map[string]made{}}
	for _, gate := range r.resources.nativeGates() {
		r.resources.natives[gate.nativeName()] = nativeOf(gate, Config{})
	}
	admin := 0 // a gate polls it, so it has to be known beforehand
	for _, port := range []*int{&admin, &r.resources.second, &r.resources.calls} {
		unused, err := testbed.UnusedAddress()
		if err != nil {
			return r, err
		}
		*port = unused.Port
	}
	if o.Admin {
		r.resources.admin = fmt.Sprint("127.0.0.1:", admin)
	}
	if _, err := r.push(); err != nil {
		return r, err
	}
	return r, r.launch(ctx, admin)
}

// launch starts Envoy, and waits until it has the world.
func (r *Run) launch(ctx context.Context, admin int) error {
	config := r.resources.reference.Clone()
	if r.world.Drained = r.Drained; r.Drained {
		if err := os.WriteFile(filepath.Join(r.dir, "drain"), nil, 0o600); err != nil {
			return err
		}
		config.Set("flags_path", r.dir)
	}
	config.Listen(0, admin)
	config.Delete("overload_manager")
	config.Delete("static_resources.listeners")
	config.Set("node", map[string]any{"id": node, "cluster": node})
	config.Set("static_resources.clusters", []any{map[string]any{
		"name": "control", "type": "STATIC", "connect_timeout": "1s",
		"typed_extension_protocol_options": config.Get(testbed.Cluster + ".typed_extension_protocol_options"),
		"load_assignment": map[string]any{"cluster_name": "control", "endpoints": []any{
			map[string]any{"lb_endpoints": []any{testbed.Endpoint(r.control.address.String())}}}},
	}})
	config.Set("dynamic_resources", map[string]any{
		"ads_config": map[string]any{"api_type": "GRPC", "transport_api_version": "V3",
			"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "control"}}}},
		"lds_config": adsTree, "cds_config": adsTree,
	})
	// Copying all stats every 5 ms for the contrib host would take a fifth of Envoy's main thread.
	options := testbed.Options{Env: append(r.Env, "CONTRIB_HOST_REFRESH_MILLISECONDS=20")}
	for _, v := range r.Variants {
		v.Prepare(config)
		options = v.Options(options)
	}
	options.Sync = nil // the comparison waits by itself
	begun := time.Now()
	var err error
	if r.Envoy, err = testbed.StartEnvoy(ctx, r.dir, config, options); err != nil {
		return err
	}
	if err := r.settle(ctx, Event{Kind: "listener"}, nil); err != nil {
		return err
	}
	for _, v := range r.Variants {
		if v.AnswersGRPC() && !r.Without["watch"] {
			for _, host := range virtualHosts {
				r.watches = append(r.watches, newWatch(v, host))
			}
		}
	}
	r.observe(Event{Kind: "listener"}, Window{begun, time.Now()})
	return nil
}

// Close ends everything that the run has started.
func (r *Run) Close() {
	for _, w := range r.watches {
		w.Close()
	}
	r.calls.Close()
	if r.Envoy != nil {
		r.Envoy.Kill()
	}
	if r.control != nil {
		r.control.server.Stop()
	}
	if r.backends != nil {
		r.backends.Close()
	}
	r.client.CloseIdleConnections()
	_ = os.RemoveAll(r.dir)
}

// Apply makes an event happen, waits until Envoy has it, and compares. The error is of the run, not of a gate.
func (r *Run) Apply(ctx context.Context, e Event) (*Disagreement, error) {
	if !r.world.apply(e) {
		return nil, nil
	}
	r.Kinds[e.Kind]++
	begun := time.Now()
	found, changed, err := r.happen(ctx, e)
	if err == nil {
		err = r.settle(ctx, e, changed)
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
		if found, err := r.pass(ctx, time.Duration(e.Number)*time.Millisecond); err != nil || found != nil {
			return found, err
		}
	}
	for end := time.Now().Add(r.Linger); ; {
		if found, err := r.compare(ctx); err != nil || found != nil || !time.Now().Before(end) {
			return found, err
		}
	}
}

// happen causes an event. It returns the types of resources that it has changed.
func (r *Run) happen(ctx context.Context, e Event) (found *Disagreement, changed []resourcev3.Type, err error) {
	post := func(path string) (*Disagreement, []resourcev3.Type, error) {
		_, err := r.Envoy.Post(path)
		return nil, nil, err
	}
	switch e.Kind {
	case "drain":
		return post(map[bool]string{true: "/healthcheck/fail", false: "/healthcheck/ok"}[e.On])
	case "reset":
		return post("/reset_counters")
	case "server":
		r.backends.set(address(e.Cluster, e.Host), e.State)
		return nil, nil, nil
	case "eject":
		return nil, nil, r.eject(ctx, e)
	case "call":
		if !e.On {
			r.calls.end(e.Cluster)
			return nil, nil, nil
		}
		return nil, nil, r.call(ctx, e.Cluster)
	case "freeze", "long freeze":
		found, err = r.freeze(ctx, time.Duration(e.Number)*time.Millisecond)
		return found, nil, err
	case "time":
		return nil, nil, nil
	case "host goes", "hosts":
		// A host that comes back is a new one, with a server in its first state.
		if first := firstState(e.Cluster); first != "" {
			for i := range servers {
				if h, ok := r.world.Clusters[e.Cluster].Hosts[i]; !ok || h.Server == first {
					r.backends.set(address(e.Cluster, i), first)
				}
			}
		}
	}
	changed, err = r.push()
	return nil, changed, err
}

func (r *Run) push() ([]resourcev3.Type, error) {
	var all map[resourcev3.Type][]types.Resource
	all, err := r.resources.of(r.world)
	if err != nil {
		return nil, err
	}
	return r.control.push(all)
}

// eject makes a host's server fail, and sends requests until Envoy has ejected the host.
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

// freeze stops Envoy's process for some time, while probes wait for it. Time has passed for none of them, so none may be answered that the
// sample is stale.
func (r *Run) freeze(ctx context.Context, d time.Duration) (found *Disagreement, err error) {
	pid := r.Envoy.Pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // if it is stopped still
	if err := testbed.WaitFor(ctx, settleWithin, func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, rest, _ := strings.Cut(string(text), ") "); err == nil && !strings.HasPrefix(rest, "T") {
			err = fmt.Errorf("envoy has not stopped: %.20s", rest)
		}
		return err
	}); err != nil {
		return nil, err
	}
	type reply struct {
		point  *Point
		answer Answer
		err    error
	}
	waiting := slices.DeleteFunc(slices.Clone(r.points), func(p *Point) bool {
		return p.Listener != "ingress" || p.config.timed() && p.Variant.ReadsGauges()
	})
	if len(waiting) > 40 {
		waiting = waiting[:40]
	}
	replies := make(chan reply, len(waiting))
	for _, p := range waiting {
		go func() {
			answer, err := r.probe(p, false)
			replies <- reply{p, answer, err}
		}()
	}
	select {
	case <-time.After(d): // the time is the event
	case <-ctx.Done():
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return nil, err
	}
	for range waiting {
		got := <-replies
		switch {
		case got.err != nil && err == nil:
			err = got.err
		case got.answer.Details == answerStale.Details && found == nil:
			found = &Disagreement{With: "the contract", point: got.point, Where: fmt.Sprintf("%s, waiting during a freeze of %v", got.point, d),
				Got: fmt.Sprintf("%+v", got.answer), Want: "an answer by the health before"}
		}
		r.Compared[got.point.Variant.Name+" and the contract of a freeze"]++
	}
	return found, err
}

// settle waits until Envoy has the world: its configuration, and its hosts in its gauges.
func (r *Run) settle(ctx context.Context, e Event, changed []resourcev3.Type) error {
	if err := r.control.await(ctx, changed, settleWithin); err != nil {
		return err
	}
	switch e.Kind {
	case "override", "time", "reset", "drain", "call":
		return nil
	case "filter", "listener":
		if e.Kind == "filter" && !slices.Contains(changed, resourcev3.ListenerType) {
			return nil
		}
		return r.settleListeners(ctx)
	}
	touched := []string{e.Cluster}
	present := 1 // the control plane's
	for name, c := range r.world.Clusters {
		if c.Present {
			present++
		}
		if strings.Contains(e.Kind, "freeze") && c.Present && hasServers(name) {
			touched = append(touched, name)
		}
	}
	if e.Other != "" {
		touched = append(touched, e.Other)
	}
	return testbed.WaitFor(ctx, settleWithin, func() error {
		stats, err := r.Envoy.Stats("(cluster_manager.(active|warming)_clusters|cluster.(" + strings.Join(touched, "|") + ").membership_)")
		if err != nil {
			return err
		}
		active, warming := stats["cluster_manager.active_clusters"], stats["cluster_manager.warming_clusters"]
		if active != uint64(present) || warming != 0 {
			return fmt.Errorf("%d clusters are active and %d warming, want %d", active, warming, present)
		}
		for _, name := range touched {
			c := r.world.Clusters[name]
			if c == nil || !c.Present {
				continue
			}
			scope := "cluster." + name + ".membership_"
			got := Counts{int(stats[scope+"healthy"]), int(stats[scope+"degraded"]), int(stats[scope+"excluded"]), int(stats[scope+"total"])}
			if got != c.Counts() {
				return fmt.Errorf("%s has %+v in its gauges, want %+v", name, got, c.Counts())
			}
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
		for _, name := range want {
			if r.listeners[name] == "" {
				return fmt.Errorf("envoy has the listeners %v", r.listeners)
			}
		}
		if len(r.listeners) != len(want) {
			return fmt.Errorf("envoy has the listeners %v", r.listeners)
		}
		return nil
	})
	// A connection stays with the filters that it began with, until Envoy closes it.
	r.client.CloseIdleConnections()
	return err
}

// Get sends a request to a listener, and returns the reply with its body.
func (r *Run) Get(listener, host, path, accept string) (*http.Response, []byte, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+r.listeners[listener]+path, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Host = host
	if accept != "" {
		request.Header.Set("accept", accept)
	}
	reply, err := r.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	return reply, body, err
}
