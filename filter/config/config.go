package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/policy"
)

// Bounds that keep a configuration, however it came about, from costing a probe more than it should.
const (
	MaxClusters   = 64        // clusters a gate may ask
	MaxMinHealthy = 1_000_000 // hosts
	maxWatchers   = 1_000_000 // of grpc_max_watchers
	maxNameBytes  = 1024      // of a cluster's name, a stat name, a stat prefix
	maxPathBytes  = 1024
	maxServices   = 64 // of grpc_services
	maxBodyBytes  = 4096
	maxDuration   = 24 * time.Hour
)

// Variant is a way into Envoy. What one of them can't do its configuration may not ask for.
type Variant uint8

// The variants.
const (
	Plugin Variant = iota // Envoy's golang extension, in the contrib build
	Module                // a dynamic module, in any Envoy
)

// Config is what a user may say of a gate, with every default filled in. Decode makes one; a Config made otherwise has
// not been checked.
type Config struct {
	// Path is the exact path of a probe, compared without the query. Default "/".
	Path string
	// Policy is what is asked of the clusters.
	policy.Policy
	// IgnoreDrain answers by the clusters alone, even after Envoy was told to fail its health checks.
	IgnoreDrain bool
	// Healthy and Unhealthy are the two answers.
	Healthy, Unhealthy Response
	// StatPrefix names the gate in Envoy's stats: healthgate.<StatPrefix>.… Default "default".
	StatPrefix string
	// Details sends a JSON report to a client that asks for one. Default false.
	Details bool
	// Hold damps changes of the answer.
	Hold policy.Hold
	// StaleAfter is how old the clusters' health may be, up to 24 h. With the source stats, 0 asks nothing of its age;
	// with the source admin it is never 0 nor less than an interval, and 5 s or three intervals by default.
	StaleAfter time.Duration
	// Admin is where the health comes from with the source admin; nil with the source stats.
	Admin *Admin
	// digest identifies the configuration as it was written; "" without a hold.
	digest string
	// GRPCServices are the services for which grpc.health.v1.Health is answered, with the empty name, for all of them, always
	// among them; none where it is not answered.
	GRPCServices []string
	// GRPCMaxWatchers is how many calls of grpc.health.v1.Health/Watch may be open at a time, 1 to 1000000. Default 10000; 0 if
	// GRPCServices is empty.
	GRPCMaxWatchers int
}

// Admin is Envoy's admin interface as a source.
type Admin struct {
	Network  string        // "unix" or "tcp"
	Address  string        // a path, or host:port on loopback
	Interval time.Duration // between two looks, 0.1 s to 60 s; default 1 s
}

// Response is what a client is sent.
type Response struct {
	Status int    // HTTP status, 200 to 299 where healthy, 400 to 599 where not
	Body   string // plain text, at most 4096 bytes; may be empty, and is where the status has no body
}

// HasBody says whether a reply of the status may have a body, by RFC 9110: with 204 and 205 it would be read as the
// beginning of the next reply.
func HasBody(status int) bool { return status != 204 && status != 205 }

// MinStaleAfter is the shortest stale_after of the dynamic module with the source stats: its samples are taken on Envoy's main
// thread, which an update may keep busy for that long.
const MinStaleAfter = time.Second

// defaultAdminStaleAfter is how old what admin said may be, where stale_after does not say and three looks take no longer.
const defaultAdminStaleAfter = 5 * time.Second

// The default responses.
var (
	DefaultHealthy   = Response{Status: 200, Body: "ok\n"}
	DefaultUnhealthy = Response{Status: 503, Body: "unavailable\n"}
)

// Decode reads a configuration strictly: a key it does not know, a wrong type and a value out of range are errors, and
// so is a repeated cluster, and what the variant can't do. The error, where there is one, is of type Errors and holds all that
// is wrong.
func Decode(raw *structpb.Struct, variant Variant) (*Config, error) {
	c, errs := decode(raw, variant, true)
	if len(errs) > 0 {
		return nil, errs
	}
	if c.Hold.Configured() {
		c.digest = Digest(raw)
	}
	return c, nil
}

// Digest returns what identifies the configuration as it was written, "" without a hold.
func (c *Config) Digest() string { return c.digest }

// Digest is the same for two configurations only if they say the same in the same words.
func Digest(raw *structpb.Struct) string {
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(raw)
	if err != nil { // text that is not UTF-8, in a struct made by hand: it is like no other
		return fmt.Sprintf("%p", raw)
	}
	sum := sha256.Sum256(bytes)
	return string(sum[:])
}

// DecodeOverride reads a route override as strictly as Decode, and gives the same errors. What can be judged only together
// with the rest is left to the Decode of what Merge returns. The keys that the override leaves out have their defaults.
func DecodeOverride(raw *structpb.Struct, variant Variant) (*Config, error) {
	c, errs := decode(raw, variant, false)
	if len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}

// Merge returns a filter's configuration with a route override applied: field by field at every depth; a list is replaced as a whole. An
// override with source: stats and no admin drops the filter's admin. Neither argument is changed.
func Merge(filter, route *structpb.Struct) *structpb.Struct {
	merged := mergeFields(filter, route)
	if route.GetFields()["source"].GetStringValue() == "stats" && route.GetFields()["admin"] == nil {
		delete(merged.Fields, "admin")
	}
	return merged
}

func mergeFields(filter, route *structpb.Struct) *structpb.Struct {
	merged := &structpb.Struct{Fields: maps.Clone(filter.GetFields())}
	for key, value := range route.GetFields() {
		below, above := merged.Fields[key].GetStructValue(), value.GetStructValue()
		if below != nil && above != nil {
			value = structpb.NewStructValue(mergeFields(below, above))
		}
		if merged.Fields == nil {
			merged.Fields = make(map[string]*structpb.Value)
		}
		merged.Fields[key] = value
	}
	return merged
}

// decode reads a configuration that is complete, or that is one to override another. What is wrong it takes for its default.
func decode(raw *structpb.Struct, variant Variant, complete bool) (*Config, Errors) {
	var errs Errors
	top := object{errs: &errs, fields: raw.GetFields()}

	c := &Config{
		Path:        decodePath(&top),
		Policy:      policy.Policy{Clusters: decodeClusters(&top, variant, complete)},
		IgnoreDrain: top.oneOf("drain", "fail", "ignore") == "ignore",
		StatPrefix:  decodeStatPrefix(&top),
	}
	c.Require = decodeRequire(&top, len(c.Clusters), complete && len(c.Clusters) == 0 && variant == Module)

	hold := top.object("hold")
	c.Hold.UnhealthyAfter = hold.duration("unhealthy_after", 0, 0, maxDuration)
	c.Hold.HealthyAfter = hold.duration("healthy_after", 0, 0, maxDuration)
	hold.refuseUnknown()
	c.StaleAfter = top.duration("stale_after", 0, 0, maxDuration)
	c.Admin = decodeSource(&top, complete)
	switch {
	case c.Admin != nil:
		decodeAge(&top, c)
	case complete && variant == Module && c.StaleAfter > 0 && c.StaleAfter < MinStaleAfter && !top.failed("source") && !top.failed("admin"):
		top.fail("stale_after", "%s is shorter than the dynamic module can keep: its samples may be that old while Envoy is busy; "+
			"set %s or more, or 0s", ShowSeconds(c.StaleAfter), ShowSeconds(MinStaleAfter))
	}

	response := top.object("response")
	c.Healthy = decodeResponse(response.object("healthy"), DefaultHealthy, 200, 299)
	c.Unhealthy = decodeResponse(response.object("unhealthy"), DefaultUnhealthy, 400, 599)
	c.Details = response.boolean("details", false)
	response.refuseUnknown()
	c.GRPCServices = decodeServices(&top, variant)
	if most := decodeMaxWatchers(&top, variant); len(c.GRPCServices) > 0 {
		c.GRPCMaxWatchers = most
	}
	top.refuseUnknown()
	return c, errs
}

func decodePath(top *object) string {
	path := top.text("path", "/", maxPathBytes)
	switch {
	case !strings.HasPrefix(path, "/"):
		top.fail("path", "%q does not start with /", path)
	case strings.ContainsAny(path, "?#"):
		top.fail("path", "%q has a query or a fragment; probes are compared without them", path)
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		top.fail("path", "%q has a space or a control character, which no request's path has", path)
	}
	return path
}

func decodeStatPrefix(top *object) string {
	prefix := top.text("stat_prefix", "default", maxNameBytes)
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.", r)
	}
	switch {
	case prefix == "":
		top.fail("stat_prefix", "is empty; leave it out for %q", "default")
	case strings.ContainsFunc(prefix, func(r rune) bool { return !allowed(r) }):
		top.fail("stat_prefix", "%q has a character other than letters, digits, _, - and .", prefix)
	case strings.HasPrefix(prefix, "."), strings.HasSuffix(prefix, "."), strings.Contains(prefix, ".."):
		top.fail("stat_prefix", "%q has a dot at an end or two in a row, so the metrics' names would have an empty part; write it as in edge.eu-1", prefix)
	}
	return prefix
}

func decodeClusters(top *object, variant Variant, required bool) []policy.Cluster {
	values, given := top.list("clusters")
	// A gate that asks nothing of any cluster says whether Envoy's main thread lives. A drain is no reason to restart Envoy.
	liveness := top.fields["drain"].GetStringValue() == "ignore"
	switch {
	case !given && (!required || top.get("clusters") != nil): // what is no list has been reported
		return nil
	case !given:
		top.fail("clusters", "is required: name at least one cluster, as in clusters: [service]")
	case len(values) == 0 && variant == Module && (liveness || !required):
		return nil
	case len(values) == 0 && liveness:
		top.fail("clusters", "is empty; name at least one cluster: a gate without clusters is not supported by the Go plugin; use the dynamic module")
	case len(values) == 0 && variant == Module:
		top.fail("clusters", "is empty; name at least one cluster, or set drain: ignore for a gate that only says whether the main thread lives")
	case len(values) == 0:
		top.fail("clusters", "is empty; name at least one cluster")
	case len(values) > MaxClusters:
		top.fail("clusters", "has %d entries; at most %d are allowed", len(values), MaxClusters)
		return nil
	}

	clusters := make([]policy.Cluster, 0, len(values))
	first := make(map[string]string, len(values)) // a cluster's name to where it stands
	for i, value := range values {
		entry := top.entry("clusters", i, value, "name")
		if entry == nil {
			clusters = append(clusters, policy.Cluster{}) // so that require is judged by as many as were meant
			continue
		}
		cluster := decodeCluster(entry)
		if earlier, repeated := first[cluster.Name]; repeated && cluster.Name != "" {
			entry.fail("name", "%q is repeated, it stands in %s already", cluster.Name, earlier)
		} else {
			first[cluster.Name] = entry.path
		}
		clusters = append(clusters, cluster)
	}
	return clusters
}

func decodeCluster(entry *object) policy.Cluster {
	name, given := entry.required("name", maxNameBytes)
	if given && name == "" {
		entry.fail("name", "is empty; give the cluster's name in Envoy")
	}
	cluster := policy.Cluster{
		Name:     name,
		StatName: entry.text("stat_name", "", maxNameBytes),
		Rule: policy.Rule{
			MinHealthy:        uint64(entry.integer("min_healthy", 1, 0, MaxMinHealthy)),
			MinHealthyPercent: uint64(entry.integer("min_healthy_percent", 0, 0, 100)),
			IgnoreDegraded:    entry.oneOf("degraded", "count", "ignore") == "ignore",
			IgnoreExcluded:    entry.oneOf("excluded", "count", "ignore") == "ignore",
		},
	}
	if cluster.StatName == "" {
		cluster.StatName = cluster.Name
	}
	entry.refuseUnknown()
	return cluster
}

// decodeRequire returns how many of n clusters must pass; n is 0 where it is not known, or none where there are none.
func decodeRequire(top *object, n int, none bool) int {
	if none {
		if top.get("require") != nil {
			top.fail("require", "is given, but there are no clusters; leave it out")
		}
		return 0
	}
	switch v := top.get("require").GetKind().(type) {
	case nil:
		return n
	case *structpb.Value_StringValue:
		switch v.StringValue {
		case "all":
			return n
		case "any":
			return 1
		}
	case *structpb.Value_NumberValue:
		most := n
		if most == 0 {
			most = MaxClusters
		}
		if v.NumberValue >= 1 && v.NumberValue <= float64(most) && v.NumberValue == math.Trunc(v.NumberValue) {
			return int(v.NumberValue)
		}
		top.fail("require", "%v is not a whole number from 1 to %d, the number of clusters", v.NumberValue, most)
		return 0
	}
	top.fail("require", "%s is not all, any or a number of clusters", show(top.get("require")))
	return 0
}

// decodeServices returns the services of grpc.health.v1.Health, none where it is not to be answered.
func decodeServices(top *object, variant Variant) []string {
	values, _ := top.list("grpc_services")
	switch {
	case len(values) == 0:
		return nil
	case variant != Module:
		top.fail("grpc_services", "is not supported by the Go plugin; use the dynamic module")
		return nil
	case len(values) > maxServices:
		top.fail("grpc_services", "has %d entries; at most %d are allowed", len(values), maxServices)
		return nil
	}
	services := make([]string, 0, len(values)+1)
	for i, value := range values {
		name, isText := value.GetKind().(*structpb.Value_StringValue)
		at := fmt.Sprintf("grpc_services[%d]", i)
		switch {
		case !isText:
			top.fail(at, "%s is not a string", show(value))
		case len(name.StringValue) > maxNameBytes:
			top.fail(at, "has %d bytes; at most %d are allowed", len(name.StringValue), maxNameBytes)
		case slices.Contains(services, name.StringValue):
			top.fail(at, "%q is repeated", clip(name.StringValue))
		default:
			services = append(services, name.StringValue)
		}
	}
	if !slices.Contains(services, "") {
		services = append(services, "")
	}
	return services
}

func decodeMaxWatchers(top *object, variant Variant) int {
	most := top.integer("grpc_max_watchers", 10_000, 1, maxWatchers)
	if variant != Module && top.fields["grpc_max_watchers"] != nil && !top.failed("grpc_max_watchers") {
		top.fail("grpc_max_watchers", "not supported by the Go plugin; use the dynamic module")
	}
	return int(most)
}

// decodeSource returns nil for the source stats.
func decodeSource(top *object, complete bool) *Admin {
	source := top.oneOf("source", "stats", "admin")
	given := top.get("admin") != nil
	o := top.object("admin")
	defer o.refuseUnknown()
	admin := &Admin{Interval: o.duration("interval", time.Second, 100*time.Millisecond, time.Minute)}
	address := o.text("address", "", maxPathBytes)
	switch {
	case top.failed("source"), top.failed("admin"):
		return nil
	case !complete: // a route's may have the one, and the filter's the other
		if address == "" {
			return nil
		}
	case source == "stats":
		if given {
			top.fail("admin", "is given, but source is stats; set source: admin, or leave admin out")
		}
		return nil
	case address == "":
		o.fail("address", "is required with source: admin, as in unix:///run/envoy/admin.sock")
		return nil
	}
	if path, unix := strings.CutPrefix(address, "unix://"); unix {
		if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) || len(path) > maxUnixPathBytes {
			o.fail("address", "%q is not unix:// and an absolute path of at most %d bytes", clip(address), maxUnixPathBytes)
		}
		admin.Network, admin.Address = "unix", path
		return admin
	}
	at, err := netip.ParseAddrPort(address)
	switch {
	case err != nil:
		o.fail("address", "%q is neither unix:///path nor an IP address and port, as in 127.0.0.1:9901", clip(address))
	case !at.Addr().IsLoopback():
		o.fail("address", "%q is not on loopback; admin must not be reachable from elsewhere", address)
	case at.Port() == 0:
		o.fail("address", "%q has port 0", address)
	}
	admin.Network, admin.Address = "tcp", address
	return admin
}

// decodeAge holds the age that is allowed to the looks of the source admin, each of which is to be fresh until the next.
func decodeAge(top *object, c *Config) {
	switch interval := c.Admin.Interval; {
	case top.failed("stale_after"), top.failed("admin"):
	case c.StaleAfter == 0:
		c.StaleAfter = max(defaultAdminStaleAfter, 3*interval)
	case c.StaleAfter < interval:
		top.fail("stale_after", "%s is shorter than admin.interval (%s), so that each look would be stale before the next; set %s or more",
			ShowSeconds(c.StaleAfter), ShowSeconds(interval), ShowSeconds(3*interval))
	}
}

// maxUnixPathBytes is what a sockaddr_un holds, its last NUL left out.
const maxUnixPathBytes = 107

func decodeResponse(o *object, byDefault Response, minStatus, maxStatus int64) Response {
	r := Response{Status: int(o.integer("status", int64(byDefault.Status), minStatus, maxStatus))}
	if HasBody(r.Status) {
		r.Body = o.text("body", byDefault.Body, maxBodyBytes)
	} else if r.Body = o.text("body", "", maxBodyBytes); r.Body != "" {
		o.fail("body", "is given, but a reply of status %d has none; leave it out, set it to \"\", or set another status", r.Status)
	}
	o.refuseUnknown()
	return r
}
