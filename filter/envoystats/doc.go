// Package envoystats samples clusters from Envoy's own stats (source: stats), and is the only place that knows their names.
//
//	names.go     the names of Envoy's stats
//	age.go       how long the health checks of a cluster have been stopped, shared by all configurations
//	source.go    a sample of each cluster
//	draining.go  whether Envoy is draining
package envoystats
