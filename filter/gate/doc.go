// Package gate runs one health gate: sample, evaluate, hold, reply, count, log, warn, report.
//
//	envoy.go     the interfaces to Envoy and to a source
//	probe.go     which requests are probes
//	reply.go     the reply for each verdict
//	report.go    the JSON report for clients that accept it
//	metrics.go   counting replies, noticing a change of the verdict, and which gate writes the gauge healthy
//	hold.go      handing the debounced verdict to the next gate with the same configuration
//	process.go   the state that all gates of a process share
//	gate.go      the steps in a row
//	warnings.go  warnings about clusters and draining
package gate
