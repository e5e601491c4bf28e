// Package dynamicmodule is the variant into any stock Envoy from 1.38 on: a dynamic module, by Envoy's ABI v0.1.0.
//
// C answers on Envoy's workers, Go decides on its main thread: a timer has all gauges passed over, Go judges each gate by them and
// publishes its reply, and a probe is sent what is published, without a call into Go. healthgate.h says which file of C answers
// which question; those of Go are:
//
//	module.go   what C calls: each of Envoy's events that Go decides something on
//	config.go   what is configured, as Envoy hands it over
//	variant.go     filters, routes, and the looks at their gates
//	gate.go     one gate: what it is judged, and what its probes are sent
//	host.go     Envoy as a gate sees it
//	sampler.go  the stats of Envoy's that gates read, and the clusters that it has removed
//	pace.go     when to look next
//	grpc.go     what grpc.health.v1.Health answers for a gate
package dynamicmodule
