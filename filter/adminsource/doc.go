// Package adminsource samples clusters from Envoy's admin interface (source: admin): for an Envoy whose stats are filtered out, and for
// reports that name hosts. It distinguishes unknown clusters from empty ones, and sees whether Envoy fails its health checks.
//
//	host.go      where Envoy counts a host
//	clusters.go  reading /clusters?format=json as a stream
//	poll.go      one poll: /server_info and /clusters over HTTP
//	poller.go    one background poller for each address, and the sources that use it
package adminsource
