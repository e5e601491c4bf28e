package dynamicmodule

import (
	"slices"
	"strings"

	"healthgate/filter/envoystats"
	gates "healthgate/filter/gate"
	"healthgate/filter/lifecycle"
)

// reader is Envoy as one gate sees it. The gauges that the gate reads are sampled until the reader is closed.
type reader struct {
	*filterEnvoy
	gauges   []*gauge
	clusters []uint64 // hashes of names
}

func (r *reader) Gauge(name string) envoystats.Value { return r.gauge(name) }

func (r *reader) gauge(name string) *gauge {
	registered := r.module.sampler.register(name)
	r.gauges = append(r.gauges, registered...)
	return registered[0]
}

func (r *reader) Cluster(name, statName string) envoystats.Value {
	e := &existence{&r.module.sampler.clusters, hashOf(name), hashOf(clusterPart(statName)), r.gauge(envoystats.TotalOf(statName))}
	r.clusters = append(r.clusters, e.name)
	return e
}

func (r *reader) Register(c *lifecycle.Configuration, g *gates.Gate) (unregister func()) {
	return r.module.register(c, g, r)
}

func (r *reader) Close() { r.module.sampler.unregister(r.gauges...) }

var _ envoystats.Clusters = (*reader)(nil)

// areCovered reports whether a pass has read all of the gauges.
func areCovered(gauges []*gauge) bool {
	return !slices.ContainsFunc(gauges, func(g *gauge) bool { return !g.covered.Load() })
}

// changedSince reports whether a later pass has changed one of the reader's gauges.
func (r *reader) changedSince(pass uint64) bool {
	return slices.ContainsFunc(r.gauges, func(g *gauge) bool { return g.changed.Load() > pass })
}

// existence is 1 while Envoy has a cluster. It is an envoystats.Value.
type existence struct {
	clusters       *clusters
	name, statName uint64 // hashes
	total          *gauge
}

func (e *existence) Get() uint64 {
	if e.clusters.has(e.name, e.statName, e.total.Found()) {
		return 1
	}
	return 0
}

// clusterPart returns the part of a cluster's stats between "cluster." and the last dot.
func clusterPart(statName string) string {
	part := strings.TrimPrefix(envoystats.TotalOf(statName), "cluster.")
	return part[:max(0, strings.LastIndexByte(part, '.'))]
}
