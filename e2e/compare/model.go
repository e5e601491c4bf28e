package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// World is the configuration that Envoy has, and the state of the hosts behind it. Any event can be applied to any world, so a list of
// events can be shortened anywhere.
type World struct {
	Clusters  map[string]*Cluster
	Filters   [filters]Config
	Overrides map[Level]Config
	Second    bool // a second listener has the same routes
	Drained   bool
	Calls     map[string]bool // a call is open to a host of the cluster
}

const (
	filters   = 4 // the first half by ECDS, the others in the listener
	routes    = 24
	manyHosts = 50 // of a shared cluster
	servers   = 8  // hosts of a cluster that has servers behind it
)

// The clusters. Three have servers behind their hosts: Envoy's outlier detection ejects hosts of the first, the second has active health
// checks, and the third excludes its hosts until their first check. The own clusters are named by few routes and by no filter, so that
// Healthgate often releases their stats and finds them again. The absent ones do not exist at first.
var (
	ejecting, checked, fresh = "ejecting", "checked", "fresh"
	shared                   = numbered("shared", 6)
	own                      = numbered("own", routes/2)
	absent                   = numbered("absent", 4)
	neverAdded               = absent[:2] // no event adds these
	names                    = slices.Concat([]string{ejecting, checked, fresh}, shared, own, absent)
	called                   = []string{ejecting, checked} // calls to these stay open

	allRoutes    = "all"              // the level of the RouteConfiguration
	virtualHosts = []string{"a", "b"} // each also a level
)

func numbered(name string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(name, i))
	}
	return all
}

func hasServers(cluster string) bool {
	return cluster == ejecting || cluster == checked || cluster == fresh
}

// Cluster is a cluster of Envoy. The Go plugin still reads the gauges of a removed cluster, with their last values.
type Cluster struct {
	Present bool
	Existed bool // it has been present
	Panic   int  // healthy_panic_threshold, in per cent; no gate depends on it
	Hosts   map[int]*Host
	Frozen  Counts // of a removed cluster
}

// Host is a host of a cluster.
type Host struct {
	State    string // of envoy.config.core.v3.HealthStatus
	Priority int
	Locality int
	Weight   int
	Ejected  bool
	Server   string // state of its server, if any: up, down or degraded; waiting: it does not answer the first check until an event
}

var states = []string{"HEALTHY", "HEALTHY", "UNKNOWN", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"}

// Counts are the membership gauges of a cluster.
type Counts struct{ Healthy, Degraded, Excluded, Total int }

// Counts counts the hosts as Envoy v1.39.1 does: coarseHealth of HostImpl in source/common/upstream/upstream_impl.h.
func (c *Cluster) Counts() Counts {
	if !c.Present {
		return c.Frozen
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

// Config is the configuration of a gate, or an override, which has some of the keys.
type Config struct {
	Clusters   []Requirement `json:"clusters,omitempty"`
	Require    any           `json:"require,omitempty"` // "all", "any" or a number
	Drain      string        `json:"drain,omitempty"`
	Hold       *Hold         `json:"hold,omitempty"`
	StaleAfter string        `json:"stale_after,omitempty"`
}

// Requirement is an entry of clusters.
type Requirement struct {
	Name       string `json:"name"`
	MinHealthy int    `json:"min_healthy"`
	MinPercent int    `json:"min_healthy_percent,omitempty"`
	Degraded   string `json:"degraded,omitempty"`
	Excluded   string `json:"excluded,omitempty"`
}

// Hold delays changes of the verdict.
type Hold struct {
	UnhealthyAfter string `json:"unhealthy_after"`
	HealthyAfter   string `json:"healthy_after"`
}

// keys returns the configuration as decoded JSON.
func (c Config) keys() map[string]any {
	keys := map[string]any{}
	if err := json.Unmarshal([]byte(c.String()), &keys); err != nil {
		panic(err) // it has just been written
	}
	return keys
}

func (c Config) String() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // Require holds a string or a number
	}
	return string(text)
}

// merge returns the configuration with the override applied: the override's keys replace the same keys of the configuration.
func (c Config) merge(o Config) Config {
	if o.Clusters != nil {
		c.Clusters = o.Clusters
	}
	c.Require, c.Drain = cmp.Or(o.Require, c.Require), cmp.Or(o.Drain, c.Drain)
	c.Hold, c.StaleAfter = cmp.Or(o.Hold, c.Hold), cmp.Or(o.StaleAfter, c.StaleAfter)
	return c
}

// native reports whether Envoy's own health_check filter can be configured alike.
func (c Config) native() bool {
	all := c.Require == nil || c.Require == "all"
	return all && c.Drain != "ignore" && !c.timed() && !slices.ContainsFunc(c.Clusters, func(r Requirement) bool {
		return r.MinHealthy != 0 || r.Degraded == "ignore" || r.Excluded == "ignore"
	})
}

// timed reports whether the answer depends on time.
func (c Config) timed() bool { return c.hold() || c.staleAfter() > 0 }

func (c Config) hold() bool {
	return c.Hold != nil && (duration(c.Hold.UnhealthyAfter) > 0 || duration(c.Hold.HealthyAfter) > 0)
}
func (c Config) staleAfter() time.Duration { return duration(c.StaleAfter) }

func duration(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err) // made here, or read from a list of events that a run has printed
	}
	return d
}

// Level is where an override of a filter may be: on the RouteConfiguration (allRoutes), on a virtual host, or on a route.
type Level struct {
	Filter int
	Routes string // allRoutes or a virtual host; "" for one route
	Route  int    // only if Routes is ""
}

// routeLevel is the level of a route's override, which the route has if it exists.
func routeLevel(route int) Level { return Level{route % filters, "", route} }

// Place is where a gate is configured: in a filter, or on a route with an override. Each route is in both virtual hosts, except the ones
// for `healthgate explain`, which names gates by path.
type Place struct {
	Filter      int
	VirtualHost string
	Route       int // -1: the filter's own path
}

// allPlaces are all places that a world may have.
var allPlaces = func() (all []Place) {
	for i, host := range virtualHosts {
		for filter := range filters {
			all = append(all, Place{filter, host, -1})
		}
		for route := range routes {
			if i == 0 || !explained(route) {
				all = append(all, Place{route % filters, host, route})
			}
		}
	}
	return all
}()

// places returns where gates are configured.
func (w *World) places() []Place {
	return slices.DeleteFunc(slices.Clone(allPlaces), func(p Place) bool {
		_, exists := w.Overrides[routeLevel(p.Route)]
		return p.Route >= 0 && !exists
	})
}

// explained reports whether `healthgate explain` is compared at a route, which is then in one virtual host only.
func explained(route int) bool { return route%4 == 3 }

// merged returns the merged configuration of a gate. With levels, each level overrides the wider one; without, only the most specific one
// overrides the filter's, because Envoy gives a dynamic module no other.
func (w *World) merged(p Place, levels bool) Config {
	c := w.Filters[p.Filter]
	for _, level := range []Level{{p.Filter, allRoutes, 0}, {p.Filter, p.VirtualHost, 0}, {p.Filter, "", p.Route}} {
		o, ok := w.Overrides[level]
		if ok && !levels {
			c = w.Filters[p.Filter]
		}
		c = c.merge(o)
	}
	return c
}

// Answer is the reply to a probe.
type Answer struct {
	Status   int
	Details  string // the response code details
	Degraded bool   // x-envoy-degraded: true
	Draining bool   // x-envoy-immediate-health-check-fail: true
}

var (
	answerDraining = Answer{Status: 503, Details: "healthgate_draining", Draining: true}
	answerStale    = Answer{Status: 503, Details: "healthgate_stale"}
)

// evaluate returns the answer that the documentation promises, apart from drain, hold and stale_after. A gate that sees removed clusters
// fails them, as Envoy's own filter does; another one reads gauges that stay as they were.
func (w *World) evaluate(c Config, seesRemoved bool) Answer {
	passed, needed := 0, len(c.Clusters)
	if c.Require == "any" {
		needed = 1
	} else if n, err := strconv.Atoi(fmt.Sprint(c.Require)); err == nil {
		needed = n
	}
	failure, passedHealthy := "", 0
	for _, r := range c.Clusters {
		n := w.Clusters[r.Name].Counts()
		counted, total := n.Healthy, n.Total
		if r.Degraded != "ignore" {
			counted += n.Degraded
		}
		if r.Excluded == "ignore" {
			total -= n.Excluded
		}
		enough := func(counted int) bool {
			// A cluster without hosts passes only if both minimums are 0.
			return counted >= r.MinHealthy && 100*counted >= r.MinPercent*total && (total > 0 || r.MinHealthy+r.MinPercent == 0)
		}
		unknown := seesRemoved && !w.Clusters[r.Name].Present
		switch {
		case enough(counted) && !unknown:
			passed++
			if enough(n.Healthy) {
				passedHealthy++
			}
		case failure != "":
		case unknown:
			failure = "healthgate_cluster_unknown"
		case total == 0:
			failure = "healthgate_cluster_empty"
		default:
			failure = "healthgate_cluster_unhealthy"
		}
	}
	if passed >= needed {
		return Answer{Status: 200, Details: "healthgate_ok", Degraded: passedHealthy < needed}
	}
	return Answer{Status: 503, Details: failure}
}

// removed returns the first cluster of a configuration that Envoy does not have, or "".
func (w *World) removed(c Config) string {
	for _, r := range c.Clusters {
		if !w.Clusters[r.Name].Present {
			return r.Name
		}
	}
	return ""
}

// forgotten reports whether a configuration names a removed cluster whose gauges nothing has to keep. A gate that reads them may read the
// last values, or 0.
func (w *World) forgotten(c Config) bool {
	return slices.ContainsFunc(c.Clusters, func(r Requirement) bool {
		cluster := w.Clusters[r.Name]
		return slices.Contains(absent, r.Name) && cluster.Existed && !cluster.Present
	})
}

// newWorld returns the world in which each run begins. It depends on no seed or flag, so a printed list of events is complete.
func newWorld() *World {
	w := &World{Clusters: map[string]*Cluster{}, Calls: map[string]bool{}, Overrides: map[Level]Config{}}
	for _, name := range names {
		w.Clusters[name] = &Cluster{Present: true, Existed: true, Panic: 50, Hosts: map[int]*Host{}}
		if !hasServers(name) {
			w.Clusters[name].Hosts[0] = &Host{State: "HEALTHY", Weight: 1}
		}
	}
	for _, name := range absent {
		w.Clusters[name] = &Cluster{Panic: 50, Hosts: map[int]*Host{}}
	}
	for i := range filters {
		w.Filters[i] = Config{Clusters: []Requirement{{Name: shared[i], MinHealthy: 1}}}
	}
	for i := range routes {
		w.Overrides[routeLevel(i)] = Config{Clusters: []Requirement{{Name: own[i%len(own)], MinHealthy: 1}}, StaleAfter: "0s"}
	}
	return w
}

// put adds the host of an event, or changes it.
func (c *Cluster) put(e Event) {
	h := c.Hosts[e.Host]
	if h == nil {
		h = &Host{Server: firstState(e.Cluster)}
		c.Hosts[e.Host] = h
	}
	h.Ejected = h.Ejected && h.Locality == e.Locality // Envoy takes a host in another locality for a new one
	h.State, h.Priority, h.Locality, h.Weight = e.State, e.Priority, e.Locality, e.Number
}

// replace gives the cluster other random hosts. One that it already has keeps its server's state.
func (c *Cluster) replace(e Event) {
	r := rand.New(rand.NewPCG(e.Seed, 0))
	maps.DeleteFunc(c.Hosts, func(i int, _ *Host) bool { return i >= e.Number })
	for i := range e.Number {
		c.put(Event{
			Cluster: e.Cluster, Host: i, State: pick(r, states...), Priority: priority(r, e.Cluster), Locality: r.IntN(3), Number: 1 + r.IntN(5),
		})
	}
}

// unejectAll ends all ejections, as Envoy does when it creates the cluster again.
func (c *Cluster) unejectAll() {
	for _, h := range c.Hosts {
		h.Ejected = false
	}
}

// firstState returns the state of the server of a new host.
func firstState(cluster string) string {
	switch cluster {
	case checked:
		return "up"
	case fresh:
		return "waiting"
	}
	return ""
}

func priority(r *rand.Rand, cluster string) int {
	if cluster == ejecting {
		return 0 // other priorities get no traffic, so Envoy cannot eject their hosts
	}
	return r.IntN(3)
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// address returns the loopback address of a host. Something listens there only if the host has a server.
func address(cluster string, host int) string {
	return fmt.Sprintf("127.2.%d.%d", slices.Index(names, cluster), host+1)
}

// describe returns a gate's name, its configuration and the counts of its clusters.
func (w *World) describe(g *Gate) string {
	var counts []string
	for _, r := range g.config.Clusters {
		cluster := w.Clusters[r.Name]
		counts = append(counts, fmt.Sprintf("%s present=%v %+v", r.Name, cluster.Present, cluster.Counts()))
	}
	return fmt.Sprintf("%s %s of %s", g, g.config, strings.Join(counts, ", "))
}
