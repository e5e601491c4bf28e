package main

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
	Gates    []Policy // of the listener
	Routes   []Policy // of routes of their own
	Drained  bool
}

const (
	clusters = 6
	most     = 50 // hosts of a cluster
	servers  = 8  // hosts of one that has servers behind it
	// Two clusters have servers behind their hosts: one whose hosts can be ejected by outlier detection, one with active
	// health checks.
	ejecting = 4
	checked  = 5
)

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
	Server   string // of the cluster that is checked: up, down or degraded
}

var states = []string{"HEALTHY", "HEALTHY", "UNKNOWN", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"}

// Counts is what Envoy's gauges say of a cluster.
type Counts struct{ Healthy, Degraded, Total int }

// Counts counts the hosts as Envoy v1.39.1 does: coarseHealth of HostImpl in source/common/upstream/upstream_impl.h.
func (c Cluster) Counts() Counts {
	if !c.Present {
		return c.Ghost
	}
	n := Counts{Total: len(c.Hosts)}
	for _, h := range c.Hosts {
		switch {
		case h.Ejected, h.Server == "down", h.State == "UNHEALTHY", h.State == "DRAINING", h.State == "TIMEOUT":
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
}

// equivalent says whether Envoy's own health_check filter can be configured to the same: percentages alone, all of the
// clusters, degraded hosts counted, draining failed.
func (p Policy) equivalent() bool {
	all := p.Require == nil || p.Require == "all" || p.Require == len(p.Clusters)
	return all && p.Drain == "fail" && !slices.ContainsFunc(p.Clusters, func(r Requirement) bool {
		return r.MinHealthy != 0 || r.Degraded != "count"
	})
}

// Answer is what a probe is answered with.
type Answer struct {
	Status   int
	Details  string // the response code details
	Degraded bool   // x-envoy-degraded
}

// judge is the model of a gate, from the documentation.
func (w *World) judge(p Policy) Answer {
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
		enough := func(counted int) bool {
			// A cluster without hosts passes only where nothing is asked of it.
			return counted >= r.MinHealthy && 100*counted >= r.MinPercent*n.Total && (n.Total > 0 || r.MinHealthy+r.MinPercent == 0)
		}
		switch {
		case enough(counted):
			passed++
			if enough(n.Healthy) {
				healthyAlone++
			}
		case failure != "":
		case n.Total == 0:
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
		h := c.Hosts[e.Host]
		if e.Cluster == checked && h.Server == "" {
			h.Server = "up"
		}
		h.Ejected = h.Ejected && h.Locality == e.Locality // in another locality it is another host to Envoy
		h.State, h.Priority, h.Locality, h.Weight = e.State, e.Priority, e.Locality, e.Number
		c.Hosts[e.Host] = h
	case "host goes":
		delete(c.Hosts, e.Host)
	case "hosts": // all of them at once
		r := rand.New(rand.NewPCG(e.Seed, 0))
		before := maps.Clone(c.Hosts)
		clear(c.Hosts)
		for i := range e.Number {
			h := Host{State: states[r.IntN(len(states))], Priority: priority(r, e.Cluster), Locality: r.IntN(3), Weight: 1 + r.IntN(5)}
			if e.Cluster == checked {
				h.Server = "up"
			}
			h.Ejected = before[i].Ejected && before[i].Locality == h.Locality
			c.Hosts[i] = h
		}
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
		if !c.Present {
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
		if c.Present && c.Panic != e.Number {
			c.forget() // Envoy makes the cluster anew
		}
		c.Panic = e.Number
	case "gates":
		w.Gates = policies(e.Seed)
	case "routes":
		w.Routes = policies(e.Seed)
	case "drain":
		w.Drained = e.On
	default:
		panic("no such event: " + e.Kind)
	}
	return true
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
			need := Requirement{Cluster: cluster, MinPercent: []int{0, 1, 33, 50, 51, 100, r.IntN(101)}[r.IntN(7)], Degraded: "count"}
			if !native {
				need.MinHealthy = []int{0, 1, 2, r.IntN(20)}[r.IntN(4)]
				need.Degraded = []string{"count", "ignore"}[r.IntN(2)]
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

// newWorld is where each run begins.
func newWorld() *World {
	w := &World{Gates: policies(0), Routes: policies(1)}
	for i := range w.Clusters {
		w.Clusters[i] = Cluster{Present: true, Panic: 50, Hosts: map[int]Host{}}
	}
	return w
}

func priority(r *rand.Rand, cluster int) int {
	if cluster == ejecting {
		return 0 // others get no traffic, and so can't be ejected
	}
	return r.IntN(3)
}

// next makes a random event.
func next(r *rand.Rand) Event {
	cluster := r.IntN(clusters)
	size := most
	if cluster == ejecting || cluster == checked {
		size = servers
	}
	host := r.IntN(size)
	switch r.IntN(20) {
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
		return Event{Kind: "server", Cluster: checked, Host: r.IntN(servers), State: []string{"up", "down", "degraded"}[r.IntN(3)]}
	case 13:
		return Event{Kind: "cluster goes", Cluster: cluster}
	case 14, 15:
		return Event{Kind: "cluster comes", Cluster: cluster}
	case 16:
		return Event{Kind: "panic threshold", Cluster: cluster, Number: []int{0, 50, 100}[r.IntN(3)]}
	case 17:
		return Event{Kind: "gates", Seed: r.Uint64()}
	case 18:
		return Event{Kind: "routes", Seed: r.Uint64()}
	}
	return Event{Kind: "drain", On: r.IntN(2) == 0}
}

func name(cluster int) string { return fmt.Sprint("c", cluster) }

// address is where a host is, on loopback. Ports are the servers' where it has one, and nobody's elsewhere.
func address(cluster, host int) string { return fmt.Sprintf("127.2.%d.%d", cluster, host+1) }
