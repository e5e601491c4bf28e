// Package envoystats samples clusters from Envoy's own stats (source: stats). It has the names of all stats of Envoy that the filter
// reads; only sample.c in package dynamicmodule repeats how the name of a cluster's gauge is formed.
//
//	names.go     the names of Envoy's stats
//	age.go       how long the health checks of a cluster have been stopped, shared by all configurations
//	source.go    a sample of each cluster
//	draining.go  whether Envoy is draining
package envoystats
