// Package dynamicmodule is the dynamic module: it connects Envoy's ABI for dynamic modules, v0.1.0, to package lifecycle. It runs in
// stock Envoy 1.38 to 1.40.
//
// Go decides and C answers. A thread of Go samples Envoy's gauges, evaluates each gate and publishes its reply; a worker sends a probe the
// published reply without calling Go. The files in reading order; one in C uses only those before it:
//
//	abi_types.h, abi.h  Envoy's types and functions
//	base.h              what the next three files offer
//	base.c              log, memory, hash, clock
//	sample.c            one pass over all gauges
//	age.c               how old samples are, and whether the main thread hangs
//	gate.h              what the next three files and Go offer
//	metric.c            Healthgate's own stats
//	gate.c              the replies of a gate, and the published one
//	route.c             which gate a stream has
//	stream.h            what the next six files offer
//	stream.c            the headers of a request, and the parts of a gRPC response
//	probe.c             the reply to a probe
//	message.c           the request of a gRPC call
//	group.c             how many calls of Watch are open, and whether their configuration still answers
//	watch.c             the open calls of Watch
//	grpc.c              calls of grpc.health.v1.Health
//	http.c              the hooks of the filter
//	bootstrap.c         the hooks of the bootstrap extension
//	unused.c            the hooks that a health gate does not need
//
//	base.go             log, text for C, clock
//	clusters.go         which clusters Envoy has
//	sampler.go          the gauges that gates read
//	pace.go             when to make the next pass
//	document.go         the configuration in Envoy's bytes
//	metrics.go          Envoy as the gates of one filter see it
//	reader.go           Envoy as one gate sees it
//	gate.go             one gate, with its replies in C
//	supersede.go        which gates a newer configuration has replaced
//	module.go           all configurations and gates of one Envoy
//	sampling.go         sampling and evaluating, mostly on one thread of Go; which versions of Envoy the module is tested with
//	exports.go          the functions that C calls
package dynamicmodule
