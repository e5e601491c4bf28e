package config

import (
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/policy"
)

// Bounds of a configuration, so that no probe is expensive.
const (
	MaxClusters   = 64        // clusters of a gate
	MaxMinHealthy = 1_000_000 // hosts
	maxWatchers   = 1_000_000 // grpc_max_watchers
	maxNameBytes  = 1024      // a cluster's name, a stat name, a stat prefix
	maxPathBytes  = 1024
	maxServices   = 64 // grpc_services
	maxBodyBytes  = 4096
	maxDuration   = 24 * time.Hour
)

// MinStaleAfter is the shortest stale_after of the dynamic module with source: stats: an update may keep Envoy's main thread busy for that
// long.
const MinStaleAfter = time.Second

// defaultAdminStaleAfter is the default of stale_after with source: admin, unless three intervals are longer.
const defaultAdminStaleAfter = 5 * time.Second

// Variant is how Healthgate is loaded. A key that a variant cannot honour is an error there.
type Variant uint8

// The variants.
const (
	Plugin Variant = iota // Go plugin, in the golang extension of Envoy's contrib build
	Module                // dynamic module, in any stock Envoy
)

// Config is the decoded configuration of one gate, with every default filled in. Decode and Merge make it; treat it as immutable.
type Config struct {
	// Path is the exact path of a probe, compared without the query. Default "/".
	Path string
	// Policy combines the rules of the clusters.
	policy.Policy
	// IgnoreDrain makes the reply depend on the clusters alone, even while Envoy fails its health checks. Default false.
	IgnoreDrain bool
	// Healthy and Unhealthy are the two responses.
	Healthy, Unhealthy Response
	// StatPrefix is part of the gate's metric names: healthgate.<StatPrefix>.… Default "default".
	StatPrefix string
	// Details sends a JSON report to clients that accept it. Default false.
	Details bool
	// Hold debounces the verdict. Default 0, 0.
	Hold policy.Hold
	// StaleAfter is how old the clusters' data may be, up to 24 h. With source: stats, 0 is no limit in the Go plugin and 5 s in the
	// dynamic module; with source: admin it is at least one interval, and 5 s or three intervals by default.
	StaleAfter time.Duration
	// Admin is Envoy's admin interface as the source; nil with source: stats.
	Admin *Admin
	// GRPCServices are the services for which the gate answers grpc.health.v1.Health. They include the empty name, which means all of them.
	// The list is empty if the gate does not answer such calls. Dynamic module only.
	GRPCServices []string
	// GRPCMaxWatchers limits the open calls of grpc.health.v1.Health/Watch, 1 to 1000000. Default 10000; 0 if GRPCServices is empty.
	GRPCMaxWatchers int

	written written
}

// written is a configuration as it was written, for Merge.
type written struct {
	raw     *structpb.Struct
	variant Variant
	digest  string
}

// Admin is Envoy's admin interface as the source.
type Admin struct {
	Network  string        // "unix" or "tcp"
	Address  string        // a path, or host:port on loopback
	Interval time.Duration // between two polls, 0.1 s to 60 s; default 1 s
}

// Response is an HTTP response to a probe.
type Response struct {
	Status int    // 200 to 299 if healthy, 400 to 599 if not
	Body   string // plain text, at most 4096 bytes; empty if the status has no body
}

// The default responses.
var (
	DefaultHealthy   = Response{Status: 200, Body: "ok\n"}
	DefaultUnhealthy = Response{Status: 503, Body: "unavailable\n"}
)

// HasBody reports whether a response of this status may have a body (RFC 9110): with 204 and 205 a client would read it as the start of
// the next response.
func HasBody(status int) bool { return status != 204 && status != 205 }

// Digest identifies the configuration as it was written: the same configuration, written differently, has another digest.
func (c *Config) Digest() string { return c.written.digest }

// digestOf returns a hash of a configuration as it was written.
func digestOf(raw *structpb.Struct) string {
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(raw)
	if err != nil { // text that is not UTF-8, which Envoy never passes; such a configuration equals no other
		return fmt.Sprintf("%p", raw)
	}
	sum := sha256.Sum256(bytes)
	return string(sum[:])
}
