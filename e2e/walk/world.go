package walk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// World is what Envoy has been told, and what the gates are configured to ask: the model. Every event can be applied to every
// world, so that a list of events can be shortened anywhere.
type World struct {
	Clusters [clusters]Cluster
	Gates    []Policy   // of the listener
	Wider    []Override // of all routes and of their virtual host, the widest first
	Routes   []Override // of routes of their own
	Second   bool       // another listener has the same routes
	Drained  bool
	Calls    [clusters]bool // a call is open to a host of the cluster
}

const (
	clusters = 7
	most     = 50 // hosts of a cluster
	servers  = 8  // hosts of one that has servers behind it
	// Three clusters have servers behind their hosts: one whose hosts can be ejected by outlier detection, one with active
	// health checks, and one that leaves its hosts out of the panic threshold until they were checked once.
	ejecting = 4
	checked  = 5
	fresh    = 6
)

// called are the clusters to which calls are made that stay open.
var called = []int{ejecting, checked}

// hasServers says whether a cluster's hosts have servers behind them.
func hasServers(cluster int) bool {
	return cluster == ejecting || cluster == checked || cluster == fresh
}

// Cluster is one of Envoy's. Once it was there and is gone, its gauges stay at what they were last.
type Cluster struct {
	Present bool
	Panic   int // the healthy_panic_threshold, per cent; no gate looks at it
	Hosts   map[int]Host
	Ghost   Counts
}

// Host is one of a cluster.
type Host struct {
	State    string // of envoy.config.core.v3.HealthStatus
	Priority int
	Locality int
	Weight   int
	Ejected  bool
	Server   string // of the clusters that are checked: up, down or degraded; waiting until the first check is answered
}

var states = []string{"HEALTHY", "HEALTHY", "UNKNOWN", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"}

// Counts is what Envoy's gauges say of a cluster.
type Counts struct{ Healthy, Degraded, Excluded, Total int }

// Counts counts the hosts as Envoy v1.39.1 does: coarseHealth of HostImpl in source/common/upstream/upstream_impl.h.
func (c Cluster) Counts() Counts {
	if !c.Present {
		return c.Ghost
	}
	n := Counts{Total: len(c.Hosts)}
	for _, h := range c.Hosts {
		if h.Server == "waiting" || h.State == "DRAINING" { // excludeBasedOnHealthFlag in upstream_impl.cc
			n.Excluded++
		}
		switch {
		case h.Ejected, h.Server == "waiting", h.Server == "down", h.State == "UNHEALTHY", h.State == "DRAINING", h.State == "TIMEOUT":
		case h.State == "DEGRADED", h.Server == "degraded":
			n.Degraded++
		default:
			n.Healthy++
		}
	}
	return n
}

// Policy is the configuration of a gate, by its documented keys.
type Policy struct {
	Clusters []Requirement
	Require  any // nil, "all", "any" or a number
	Drain    string
}

// Requirement is what a policy asks of a cluster.
type Requirement struct {
	Cluster    int
	MinHealthy int
	MinPercent int
	Degraded   string
	Excluded   string
}

// Override is what a level of the routes configures: of a policy's keys those that it has.
type Override struct {
	Clusters []Requirement // or none
	Require  any           // or nil
	Drain    string        // or ""
}

// laidOver is the policy where the override's keys are in the place of its own.
func (o Override) laidOver(p Policy) Policy {
	if o.Clusters != nil {
		p.Clusters = o.Clusters
	}
	if o.Require != nil {
		p.Require = o.Require
	}
	if o.Drain != "" {
		p.Drain = o.Drain
	}
	return p
}

// everything asks for nothing of any cluster. It is the policy of the filter that the routes override.
func everything() Policy {
	p := Policy{Drain: "ignore"}
	for i := range clusters {
		p.Clusters = append(p.Clusters, Requirement{Cluster: i, Degraded: "count", Excluded: "count"})
	}
	return p
}

// says is what a level of the routes does; one that says nothing is no level at all.
func (o Override) says() bool { return len(o.plugin()) > 0 }

// routed are the policies of the routes, and last that of one that overrides nothing itself. A door that knows all levels has each
// laid over the wider one; another knows the most specific alone, which for each route but the last is its own.
func (w *World) routed(levels bool) (all []Policy) {
	filter, wide := everything(), everything()
	for _, o := range w.Wider {
		if !levels && o.says() {
			wide = filter
		}
		wide = o.laidOver(wide)
	}
	for _, o := range w.Routes {
		below := filter
		if levels {
			below = wide
		}
		all = append(all, o.laidOver(below))
	}
	return append(all, wide)
}

// marker is what the routes are told from older ones by.
func (w *World) marker() string { return fmt.Sprint(w.Wider, w.Routes) }

// equivalent says whether Envoy's own health_check filter can be configured to the same: percentages alone, all of the
// clusters, degraded hosts counted, draining failed.
func (p Policy) equivalent() bool {
	all := p.Require == nil || p.Require == "all" || p.Require == len(p.Clusters)
	return all && p.Drain == "fail" && !slices.ContainsFunc(p.Clusters, func(r Requirement) bool {
		return r.MinHealthy != 0 || r.Degraded != "count" || r.Excluded != "count"
	})
}

// Answer is what a probe is answered with.
type Answer struct {
	Status   int
	Details  string // the response code details
	Degraded bool   // x-envoy-degraded
}

// judge is the model of a gate, from the documentation. A door that is told of clusters that go fails them; another reads their
// gauges on, which stay as they were: it answers from a ghost.
func (w *World) judge(p Policy, told bool) Answer {
	if w.Drained && p.Drain == "fail" {
		return Answer{503, "healthgate_draining", false}
	}
	passed, needed := 0, len(p.Clusters)
	switch require := p.Require.(type) {
	case int:
		needed = require
	case string:
		if require == "any" {
			needed = 1
		}
	}
	failure, healthyAlone := "", 0
	for _, r := range p.Clusters {
		n := w.Clusters[r.Cluster].Counts()
		counted := n.Healthy
		if r.Degraded == "count" {
			counted += n.Degraded
		}
		total := n.Total
		if r.Excluded == "ignore" {
			total -= n.Excluded
		}
		enough := func(counted int) bool {
			// A cluster without hosts passes only where nothing is asked of it.
			return counted >= r.MinHealthy && 100*counted >= r.MinPercent*total && (total > 0 || r.MinHealthy+r.MinPercent == 0)
		}
		gone := told && !w.Clusters[r.Cluster].Present
		switch {
		case enough(counted) && !gone:
			passed++
			if enough(n.Healthy) {
				healthyAlone++
			}
		case failure != "":
		case gone:
			failure = "healthgate_cluster_unknown"
		case total == 0:
			failure = "healthgate_cluster_empty"
		default:
			failure = "healthgate_cluster_unhealthy"
		}
	}
	if passed >= needed {
		return Answer{200, "healthgate_ok", healthyAlone < needed}
	}
	return Answer{503, failure, false}
}

// Event is one thing that happens. Which of its fields count, its kind says.
type Event struct {
	Kind     string `json:"kind"`
	Cluster  int    `json:"cluster,omitempty"`
	Host     int    `json:"host,omitempty"`
	State    string `json:"state,omitempty"`
	Priority int    `json:"priority,omitempty"`
	Locality int    `json:"locality,omitempty"`
	Number   int    `json:"number,omitempty"`
	Seed     uint64 `json:"seed,omitempty"`
	On       bool   `json:"on,omitempty"`
}

// apply changes the world. It says whether the event had a meaning in it.
func (w *World) apply(e Event) bool {
	c := &w.Clusters[e.Cluster]
	switch e.Kind {
	case "host": // a host comes, or changes
		c.put(e)
	case "host goes":
		delete(c.Hosts, e.Host)
	case "hosts": // all of them at once
		c.replace(e)
	case "eject":
		h, ok := c.Hosts[e.Host]
		// Nothing is sent to others, so that they can't fail.
		if !ok || !c.Present || h.Ejected || h.State != "HEALTHY" && h.State != "UNKNOWN" {
			return false
		}
		h.Ejected = true
		c.Hosts[e.Host] = h
	case "server":
		h, ok := c.Hosts[e.Host]
		if !ok {
			return false
		}
		h.Server = e.State
		c.Hosts[e.Host] = h
	case "cluster goes":
		if !c.Present || e.Cluster == fresh { // one that comes again waits for its hosts' first check
			return false
		}
		c.Ghost, c.Present = c.Counts(), false
		c.forget()
	case "cluster comes":
		if c.Present {
			return false
		}
		c.Present = true
	case "panic threshold":
		if e.Cluster == fresh {
			return false
		}
		if c.Present && c.Panic != e.Number {
			c.forget() // Envoy makes the cluster anew
		}
		c.Panic = e.Number
	case "gates":
		w.Gates = policies(e.Seed)
	case "routes":
		w.Wider, w.Routes = overrides(e.Seed)
	case "second listener":
		if w.Second == e.On {
			return false
		}
		w.Second = e.On
	case "drain":
		w.Drained = e.On
	case "call": // it begins, or ends
		// It comes through only where somebody serves.
		if n := c.Counts(); w.Calls[e.Cluster] == e.On || e.On && (!c.Present || n.Healthy+n.Degraded == 0) {
			return false
		}
		w.Calls[e.Cluster] = e.On
	default:
		panic("no such event: " + e.Kind)
	}
	return true
}

// put makes a host of the cluster that of an event.
func (c *Cluster) put(e Event) {
	h := c.Hosts[e.Host]
	if h.Server == "" {
		h.Server = firstState(e.Cluster)
	}
	h.Ejected = h.Ejected && h.Locality == e.Locality // in another locality it is another host to Envoy
	h.State, h.Priority, h.Locality, h.Weight = e.State, e.Priority, e.Locality, e.Number
	c.Hosts[e.Host] = h
}

// replace gives the cluster other hosts, at random.
func (c *Cluster) replace(e Event) {
	r := rand.New(rand.NewPCG(e.Seed, 0))
	before := maps.Clone(c.Hosts)
	clear(c.Hosts)
	for i := range e.Number {
		h := Host{State: states[r.IntN(len(states))], Priority: priority(r, e.Cluster), Locality: r.IntN(3), Weight: 1 + r.IntN(5)}
		h.Server = firstState(e.Cluster)
		if old, ok := before[i]; ok && e.Cluster == fresh {
			h.Server = old.Server // what a check has found goes with it into another locality
		}
		h.Ejected = before[i].Ejected && before[i].Locality == h.Locality
		c.Hosts[i] = h
	}
}

// forget has the hosts be new ones, which nobody has ejected.
func (c *Cluster) forget() {
	for i, h := range c.Hosts {
		h.Ejected = false
		c.Hosts[i] = h
	}
}

// policies makes configurations of gates: some at random, one that Envoy's own filter has too.
func policies(seed uint64) []Policy {
	r := rand.New(rand.NewPCG(seed, 1))
	var all []Policy
	for i := range 4 {
		p := Policy{Drain: "fail"}
		native := i == 0
		if !native && r.IntN(3) == 0 {
			p.Drain = "ignore"
		}
		for _, cluster := range r.Perm(clusters)[:1+r.IntN(3)] {
			need := Requirement{Cluster: cluster, MinPercent: []int{0, 1, 33, 50, 51, 100, r.IntN(101)}[r.IntN(7)], Degraded: "count", Excluded: "count"}
			if !native {
				need.MinHealthy = []int{0, 1, 2, r.IntN(20)}[r.IntN(4)]
				need.Degraded = []string{"count", "ignore"}[r.IntN(2)]
				need.Excluded = []string{"count", "ignore"}[r.IntN(2)]
			}
			p.Clusters = append(p.Clusters, need)
		}
		if !native {
			p.Require = []any{nil, "all", "any", 1 + r.IntN(len(p.Clusters))}[r.IntN(4)]
		}
		all = append(all, p)
	}
	return all
}

// overrides makes configurations of routes: each level has some keys of a policy's, and often none.
func overrides(seed uint64) (wider, routes []Override) {
	r := rand.New(rand.NewPCG(seed, 2))
	level := func(p Policy, one int) (o Override) { // a key is left out one time in so many
		if r.IntN(one) > 0 {
			o.Clusters = p.Clusters
		}
		if n, number := p.Require.(int); r.IntN(one) > 0 && (!number || n <= len(o.Clusters)) {
			o.Require = p.Require
		}
		if r.IntN(one) > 0 {
			o.Drain = p.Drain
		}
		return o
	}
	for _, p := range policies(seed)[:2] {
		if _, number := p.Require.(int); number {
			p.Require = 1 // a narrower level may have fewer clusters
		}
		o := level(p, 2)
		if r.IntN(3) == 0 {
			o = Override{}
		}
		wider = append(wider, o)
	}
	for _, p := range policies(seed + 1) {
		routes = append(routes, level(p, 4))
	}
	return wider, routes
}

// newWorld is where each run begins.
func newWorld() *World {
	w := &World{Gates: policies(0)}
	w.Wider, w.Routes = overrides(1)
	for i := range w.Clusters {
		w.Clusters[i] = Cluster{Present: true, Panic: 50, Hosts: map[int]Host{}}
	}
	return w
}

// firstState is how the server of a host begins.
func firstState(cluster int) string {
	switch cluster {
	case checked:
		return "up"
	case fresh:
		return "waiting"
	}
	return ""
}

func priority(r *rand.Rand, cluster int) int {
	if cluster == ejecting {
		return 0 // others get no traffic, and so can't be ejected
	}
	return r.IntN(3)
}

// Next makes a random event.
func Next(r *rand.Rand) Event {
	cluster := r.IntN(clusters)
	size := most
	if hasServers(cluster) {
		size = servers
	}
	host := r.IntN(size)
	switch r.IntN(27) {
	case 0, 1, 2, 3, 4:
		return Event{Kind: "host", Cluster: cluster, Host: host, State: states[r.IntN(len(states))],
			Priority: priority(r, cluster), Locality: r.IntN(3), Number: 1 + r.IntN(5)}
	case 5, 6:
		return Event{Kind: "host goes", Cluster: cluster, Host: host}
	case 7, 8:
		n := r.IntN(size + 1)
		if r.IntN(3) == 0 {
			n = r.IntN(3)
		}
		return Event{Kind: "hosts", Cluster: cluster, Number: n, Seed: r.Uint64()}
	case 9, 10:
		return Event{Kind: "eject", Cluster: ejecting, Host: r.IntN(servers)}
	case 11, 12:
		return Event{Kind: "server", Cluster: []int{checked, fresh, fresh}[r.IntN(3)], Host: r.IntN(servers), State: []string{"up", "down", "degraded"}[r.IntN(3)]}
	case 13:
		return Event{Kind: "cluster goes", Cluster: cluster}
	case 14, 15:
		return Event{Kind: "cluster comes", Cluster: cluster}
	case 16:
		return Event{Kind: "panic threshold", Cluster: cluster, Number: []int{0, 50, 100}[r.IntN(3)]}
	case 17:
		return Event{Kind: "gates", Seed: r.Uint64()}
	case 18, 19:
		return Event{Kind: "routes", Seed: r.Uint64()}
	case 20:
		return Event{Kind: "second listener", On: r.IntN(4) > 0}
	case 21, 22:
		return Event{Kind: "call", Cluster: called[r.IntN(len(called))], On: r.IntN(3) > 0}
	case 23:
		return Event{Kind: "cluster goes", Cluster: called[r.IntN(len(called))]}
	case 24, 25:
		return Event{Kind: "cluster comes", Cluster: called[r.IntN(len(called))]}
	}
	return Event{Kind: "drain", On: r.IntN(2) == 0}
}

func name(cluster int) string { return fmt.Sprint("c", cluster) }

// address is where a host is, on loopback. Ports are the servers' where it has one, and nobody's elsewhere.
func address(cluster, host int) string { return fmt.Sprintf("127.2.%d.%d", cluster, host+1) }
