// Package lifecycle is what every variant into Envoy shares: the life of a configuration, from what was configured to what
// answers a probe, and its end. A variant turns Envoy's callbacks into calls of this package, and its answers into Envoy's.
//
//	process.go        what all configurations of one Envoy have in common
//	configuration.go  a filter's configuration, or one that a route's override was laid over
//	override.go       a route's override, and what it is laid over
//	start.go          what a gate needs while it lives: its source, its watch, its warnings
//	handles.go        each stat of a configuration, found once
//	answer.go         what a probe is answered by a configuration, whatever happens
package lifecycle
