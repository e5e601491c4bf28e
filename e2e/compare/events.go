package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Event is a change of the world. Its kind says which of the other fields it uses.
type Event struct {
	Kind     string  `json:"kind"`
	Cluster  string  `json:"cluster,omitempty"`
	Other    string  `json:"other,omitempty"` // the new name of a cluster
	Host     int     `json:"host,omitempty"`
	State    string  `json:"state,omitempty"`
	Priority int     `json:"priority,omitempty"`
	Locality int     `json:"locality,omitempty"`
	Number   int     `json:"number,omitempty"`
	Seed     uint64  `json:"seed,omitempty"`
	On       bool    `json:"on,omitempty"`
	Level    string  `json:"level,omitempty"` // of an override: all (the RouteConfiguration), a or b (virtual hosts), route
	Filter   int     `json:"filter,omitempty"`
	Route    int     `json:"route,omitempty"`
	Config   *Config `json:"config,omitempty"` // of an override: null removes it
}

// kinds are the kinds of events, each with its weight.
var kinds = []struct {
	name   string
	weight int
}{
	{"host", 64}, // EDS adds or changes a host
	{"remove host", 32},
	{"hosts", 24},      // EDS replaces all hosts of a cluster
	{"eject", 16},      // outlier detection ejects a host
	{"server", 24},     // a server changes its answer to health checks
	{"remove", 28},     // CDS removes a cluster
	{"add", 40},        // CDS adds a cluster
	{"rename", 12},     // CDS removes a cluster and adds another with the same hosts
	{"panic", 8},       // CDS changes healthy_panic_threshold, so Envoy creates the cluster again
	{"override", 96},   // RDS adds, changes or removes an override
	{"filter", 24},     // ECDS or LDS changes the configuration of a filter
	{"listener", 8},    // LDS adds or removes a second listener
	{"call", 16},       // a call that stays open begins or ends
	{"drain", 16},      // /healthcheck/fail, /healthcheck/ok
	{"reset", 12},      // /reset_counters
	{"freeze", 2},      // SIGSTOP and SIGCONT, with waiting probes
	{"long freeze", 1}, // longer than a sample of the module may be old
	{"time", 3},        // gates whose answer depends on time are compared repeatedly
	// No events, but -without can leave them out, too:
	{"hold", 0},  // gates with hold
	{"stale", 0}, // gates with stale_after
	{"watch", 0}, // open calls of Watch
}

// Without is the set of kinds that are left out, to find other disagreements while one is known.
type Without map[string]bool

func kindNames() (all []string) {
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

func parseWithout(list string) (Without, error) {
	without := Without{}
	for name := range strings.SplitSeq(list, ",") {
		if name != "" && !slices.Contains(kindNames(), name) {
			return nil, fmt.Errorf("no kind %q; the kinds are %s", name, strings.Join(kindNames(), ", "))
		}
		without[name] = true
	}
	if without["freeze"] {
		without["long freeze"] = true
	}
	return without, nil
}

// apply changes the world, and reports whether the event changed anything.
func (w *World) apply(e Event) bool {
	var h *Host
	c := w.Clusters[e.Cluster]
	if c != nil {
		h = c.Hosts[e.Host]
	}
	switch e.Kind {
	case "host":
		c.put(e)
	case "remove host":
		if h == nil {
			return false
		}
		delete(c.Hosts, e.Host)
	case "hosts":
		c.replace(e)
	case "eject":
		// Envoy sends requests to no other hosts, so they cannot fail.
		if h == nil || !c.Present || h.Ejected || h.State != "HEALTHY" && h.State != "UNKNOWN" {
			return false
		}
		h.Ejected = true
	case "server":
		if h == nil || h.Server == e.State {
			return false
		}
		h.Server = e.State
	case "remove":
		if !c.Present || e.Cluster == fresh { // its hosts would have to wait for their first check again
			return false
		}
		c.Frozen, c.Present = c.Counts(), false
		c.unejectAll()
	case "add":
		if c.Present {
			return false
		}
		c.Present, c.Existed = true, true
	case "rename":
		other := w.Clusters[e.Other]
		if !c.Present || other.Present {
			return false
		}
		c.Frozen, c.Present = c.Counts(), false
		other.Present, other.Existed = true, true
		other.Hosts, c.Hosts = c.Hosts, map[int]*Host{}
	case "panic":
		if e.Cluster == fresh || c.Panic == e.Number {
			return false
		}
		if c.Present {
			c.unejectAll()
		}
		c.Panic = e.Number
	case "override":
		if e.Config != nil {
			w.Overrides[e.level()] = *e.Config
			break
		}
		if _, exists := w.Overrides[e.level()]; !exists {
			return false
		}
		delete(w.Overrides, e.level())
	case "filter":
		w.Filters[e.Filter] = *e.Config
	case "listener":
		changed := w.Second != e.On
		w.Second = e.On
		return changed
	case "call":
		// A call succeeds only if a host serves.
		if n := c.Counts(); w.Calls[e.Cluster] == e.On || e.On && (!c.Present || n.Healthy+n.Degraded == 0) {
			return false
		}
		w.Calls[e.Cluster] = e.On
	case "drain":
		changed := w.Drained != e.On
		w.Drained = e.On
		return changed
	case "reset", "freeze", "long freeze", "time":
	default:
		panic("unknown event: " + e.Kind)
	}
	return true
}

// level returns where an event adds, changes or removes an override.
func (e Event) level() Level {
	if e.Level == "route" {
		return routeLevel(e.Route)
	}
	return Level{e.Filter, e.Level, 0}
}

// Generator makes random events.
type Generator struct {
	*rand.Rand
	kinds   []string // each as often as its weight says
	without Without
	removed map[Level]Config // the override that was removed last from each place, to be brought back as it was
	plugin  bool             // the Go plugin is in the same Envoy
}

func newGenerator(o Options) *Generator {
	g := &Generator{
		Rand: rand.New(rand.NewPCG(o.Seed, 0)), without: o.Without, removed: map[Level]Config{},
		plugin: slices.ContainsFunc(o.Variants, func(v Variant) bool { return v.Name == plugin }),
	}
	for _, k := range kinds {
		if !o.Without[k.name] {
			g.kinds = append(g.kinds, slices.Repeat([]string{k.name}, k.weight)...)
		}
	}
	return g
}

// Next returns the next event for a world.
func (g *Generator) Next(w *World) Event {
	e := Event{Kind: pick(g.Rand, g.kinds...)}
	switch e.Kind {
	case "host", "remove host", "hosts", "remove", "add", "rename", "panic":
		e.Cluster = g.cluster(w, e.Kind)
	}
	size := map[bool]int{true: servers, false: manyHosts}[hasServers(e.Cluster)]
	if slices.Contains(own, e.Cluster) {
		size = 3
	}
	switch e.Kind {
	case "host":
		e.Host, e.State, e.Number = g.IntN(size), pick(g.Rand, states...), 1+g.IntN(5)
		e.Priority, e.Locality = priority(g.Rand, e.Cluster), g.IntN(3)
	case "remove host":
		e.Host = g.host(w.Clusters[e.Cluster])
	case "hosts":
		e.Number, e.Seed = g.IntN(size+1), g.Uint64()
		if g.IntN(3) == 0 {
			e.Number = g.IntN(3)
		}
	case "eject":
		e.Cluster = ejecting
		e.Host = g.host(w.Clusters[ejecting])
	case "server":
		e.Cluster = pick(g.Rand, checked, fresh, fresh)
		e.Host, e.State = g.host(w.Clusters[e.Cluster]), pick(g.Rand, "up", "down", "degraded")
	case "rename":
		e.Other = pick(g.Rand, slices.Concat(shared, own, absent[len(neverAdded):])...)
	case "panic":
		e.Number = pick(g.Rand, 0, 50, 100)
	case "override":
		return g.override(e, w)
	case "filter":
		e.Filter = g.IntN(filters)
		c := g.config("", false)
		e.Config = &c
	case "listener":
		e.On = g.IntN(4) > 0
	case "call":
		e.Cluster, e.On = pick(g.Rand, called...), g.IntN(3) > 0
	case "drain":
		e.On = !w.Drained && g.IntN(2) == 0 // drained for less than half of the time
	case "freeze":
		e.Number = 100 + g.IntN(600) // milliseconds
	case "long freeze":
		e.Number = 5300 + g.IntN(1500)
	case "time":
		e.Number = 500 + g.IntN(2500)
	}
	return e
}

// cluster picks a cluster that a kind of event can change, if there is one.
func (g *Generator) cluster(w *World, kind string) string {
	fits := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		c := w.Clusters[name]
		return slices.Contains(neverAdded, name) || kind == "add" && c.Present || kind == "rename" && hasServers(name) ||
			(kind == "remove" || kind == "rename" || kind == "remove host") && !c.Present
	})
	switch {
	case len(fits) == 0:
		return shared[0]
	case (kind == "remove" || kind == "add") && g.IntN(8) == 0 && slices.Contains(fits, checked):
		return checked // its health checks begin again from 0
	}
	return pick(g.Rand, fits...)
}

// host picks a host of a cluster; 0 if it has none.
func (g *Generator) host(c *Cluster) int {
	if len(c.Hosts) == 0 {
		return 0
	}
	return pick(g.Rand, slices.Sorted(maps.Keys(c.Hosts))...)
}

// override removes an override, brings the last one back, or makes a new one.
func (g *Generator) override(e Event, w *World) Event {
	e.Level = "route"
	if g.IntN(4) == 0 {
		e.Level, e.Filter = pick(g.Rand, append(virtualHosts, allRoutes)...), g.IntN(filters)
	} else {
		e.Route = g.IntN(1 + g.IntN(routes)) // some change often, others seldom
	}
	before, exists := w.Overrides[e.level()]
	removed, existed := g.removed[e.level()]
	switch {
	case exists && g.IntN(2) == 0:
		g.removed[e.level()] = before
		return e
	case !exists && existed && g.IntN(3) > 0:
		e.Config = &removed
		return e
	}
	ownCluster := ""
	if e.Level == "route" {
		ownCluster = own[e.Route%len(own)]
	}
	c := g.config(ownCluster, true)
	switch g.IntN(4) { // some overrides have some of the keys only
	case 0:
		c.Clusters, c.StaleAfter = nil, ""
		if c.Require != "any" {
			c.Require = nil
		}
	case 1:
		c.Drain, c.Hold = "", nil
	}
	e.Config = &c
	return e
}

// config returns a random configuration, which often names the own cluster of a route, if that is not "".
func (g *Generator) config(ownCluster string, override bool) Config {
	pool := slices.Concat([]string{ejecting, checked, fresh}, shared)
	if override || !g.plugin {
		// The contrib host defines the gauges of a filter's clusters, so a cluster that never existed would seem to exist.
		pool = append(pool, absent...)
	}
	native := g.IntN(3) == 0
	c := Config{Drain: "fail", Require: "all", StaleAfter: "0s"} // a wider level may set others
	for _, i := range g.Perm(len(pool))[:1+g.IntN(2)] {
		c.Clusters = append(c.Clusters, g.requirement(pool[i], native))
	}
	if ownCluster != "" && g.IntN(4) > 0 {
		c.Clusters = slices.Insert(c.Clusters, g.IntN(2), g.requirement(ownCluster, native))
		if g.IntN(2) == 0 {
			c.Clusters = []Requirement{g.requirement(ownCluster, native)}
		}
	}
	if native {
		return c
	}
	switch timing := g.IntN(4); {
	case timing < 2 && !g.without["hold"]:
		c.Hold = pick(g.Rand, &Hold{"12s", "0s"}, &Hold{"0s", "12s"}, &Hold{"0.5s", "0.2s"}, &Hold{"3s", "2s"}, &Hold{"3s", "2s"},
			&Hold{"2s", "4s"})
		if ownCluster != "" && g.IntN(3) > 0 {
			c.Clusters = []Requirement{g.requirement(ownCluster, false)} // its hosts change seldom
		}
	case timing == 2 && !g.without["stale"]:
		c.Clusters, c.StaleAfter = []Requirement{g.requirement(checked, false)}, "2s"
	}
	c.Drain, c.Require = pick(g.Rand, "fail", "fail", "ignore"), pick[any](g.Rand, "all", "all", "any", 1)
	if ownCluster != "" && g.IntN(2) == 0 { // on a route, so no narrower level has fewer clusters
		c.Require = 1 + g.IntN(len(c.Clusters))
	}
	return c
}

func (g *Generator) requirement(cluster string, native bool) Requirement {
	r := Requirement{Name: cluster, MinPercent: pick(g.Rand, 0, 1, 33, 50, 51, 100, g.IntN(101))}
	if !native {
		r.MinHealthy = pick(g.Rand, 0, 1, 1, 2, g.IntN(20))
		r.Degraded, r.Excluded = pick(g.Rand, "", "count", "ignore"), pick(g.Rand, "", "count", "ignore")
	}
	return r
}
