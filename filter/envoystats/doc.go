// Package envoystats samples clusters by Envoy's own stats (source: stats), and is the only place that knows their names.
//
//	names.go     the names of Envoy's stats
//	age.go       for how long the health checks of a cluster have stopped, over all configurations
//	source.go    a sample of each cluster
//	draining.go  whether Envoy is draining
package envoystats
