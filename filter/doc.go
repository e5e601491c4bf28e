// Package filter decides what a health probe is told.
//
// It is the core of Healthgate: configuration in, counts of hosts in, an answer out. It knows neither Envoy nor any
// other host it runs in, reads no clock of its own and opens no socket, so every rule in it can be tested as a table.
// The package filter/golang connects it to Envoy's golang extension.
//
// Data flows one way, a file a step, and a file needs only those above it:
//
//	config.go      what may I configure?
//	membership.go  what do the clusters look like now?
//	verdict.go     is that good enough?
//	hold.go        has it been so for long enough?
//	reply.go       what do I reply? (report.go: to those who ask for JSON)
//	gate.go        the steps in a row, counted and logged
//
// The package filter/admin is another source for membership.go.
package filter
