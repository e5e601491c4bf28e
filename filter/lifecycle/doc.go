// Package lifecycle owns configurations and route overrides from creation to end, and their gates. Both variants use it: they turn
// Envoy's callbacks into calls of this package, and its replies into Envoy's.
//
//	process.go        the state that all configurations of one Envoy share
//	pairs.go          which merged configurations end together
//	configuration.go  a filter's configuration, or a merged one, and its gate
//	override.go       a route override, and merging it
//	answer.go         the reply to a probe, whatever happens
package lifecycle
