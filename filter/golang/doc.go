// Package golang is the Go plugin: it turns the callbacks of Envoy's golang extension (contrib/golang in Envoy v1.39.1) into calls of the
// package lifecycle, and its replies into Envoy's.
//
//	handles.go  Envoy's stats, each defined once
//	envoy.go    Envoy as a gate sees it, and which Envoy it is
//	config.go   configurations and route overrides
//	stream.go   streams
package golang
