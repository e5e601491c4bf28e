// Package explain is the command explain: it reports the answer of each gate of a running Envoy, its numbers and the next step. It reads
// admin, and probes a gate if it can reach the listener.
//
//	report.go    the report, and the steps in a row
//	dump.go      the gates and updates in /config_dump
//	stats.go     the stats that are read, and the answers that they show
//	evaluate.go  a gate's answer, computed as the gate would
//	probe.go     a gate's answer, by probes
//	next.go      the next step for a reason
//	watch.go     explain --watch: a line for each change
package explain
