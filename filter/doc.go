// Package filter decides what a health probe is told.
//
// It is the core of Healthgate: configuration in, counts of hosts in, an answer out. It knows neither Envoy nor any
// other host it runs in, reads no clock of its own and opens no socket, so every rule in it can be tested as a table.
// The package filter/lifecycle gives a configuration its life, and a variant, such as filter/golang, connects that to Envoy.
//
// Data flows one way, a file a step, and a file needs only those above it:
//
//	config.go, object.go  what may I configure?
//	membership.go         what do the clusters look like now? (stats.go: by Envoy's own stats; age.go: who still checks?)
//	liveness.go           is Envoy draining?
//	verdict.go            is that good enough? the policy
//	hold.go               has it been so for long enough?
//	reply.go              what do I reply? (report.go: to those who ask for JSON)
//	journal.go            what is counted and logged? (gauge.go: which gate writes a gauge that several share)
//	gate.go               the steps in a row
//	watch.go              what is done between probes: looks (warnings.go: what is warned of)
//
// The package filter/adminsource is another source for membership.go.
package filter
