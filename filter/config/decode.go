package config

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/policy"
)

// Decode reads a filter's configuration strictly: an unknown key, a wrong type, a value out of range, a repeated cluster and a key that
// the variant cannot honour are errors. The error is of type Errors and has all of them. The configuration keeps a reference to raw.
func Decode(raw *structpb.Struct, variant Variant) (*Config, error) {
	c, errs := decode(raw, variant, true)
	if len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}

// decoder reads the keys of a filter's configuration, or of a route override, which inherits its other keys from the filter. It replaces a
// wrong value by the default.
type decoder struct {
	object
	variant  Variant
	override bool
}

func decode(raw *structpb.Struct, variant Variant, complete bool) (*Config, Errors) {
	var errs Errors
	d := &decoder{object{errs: &errs, fields: raw.GetFields()}, variant, !complete}

	c := &Config{Path: d.path()}
	c.Clusters = d.clusters()
	c.Require = d.require(len(c.Clusters))
	c.IgnoreDrain = d.oneOf("drain", "fail", "ignore") == "ignore"
	c.StatPrefix = d.statPrefix()
	hold := d.child("hold")
	c.Hold.UnhealthyAfter = hold.duration("unhealthy_after", 0, 0, maxDuration)
	c.Hold.HealthyAfter = hold.duration("healthy_after", 0, 0, maxDuration)
	hold.refuseUnknown()
	c.StaleAfter = d.duration("stale_after", 0, 0, maxDuration)
	c.Admin = d.admin()
	c.StaleAfter = d.checkStaleAfter(c.StaleAfter, c.Admin)
	response := d.child("response")
	c.Healthy = decodeResponse(response.child("healthy"), DefaultHealthy, 200, 299)
	c.Unhealthy = decodeResponse(response.child("unhealthy"), DefaultUnhealthy, 400, 599)
	if details, ok := readValue[boolean](response, "details", "true or false"); ok {
		c.Details = details.BoolValue
	}
	response.refuseUnknown()
	c.GRPCServices = d.grpcServices()
	if watchers := d.grpcMaxWatchers(); len(c.GRPCServices) > 0 {
		c.GRPCMaxWatchers = watchers
	}
	d.refuseUnknown()
	if len(errs) == 0 {
		c.written = written{raw, variant, digestOf(raw)}
	}
	return c, errs
}

func (d *decoder) path() string {
	path := d.text("path", "/", maxPathBytes)
	switch {
	case !strings.HasPrefix(path, "/"):
		d.fail("path", "%q does not start with /", path)
	case strings.ContainsAny(path, "?#"):
		d.fail("path", "%q has a query or a fragment; leave it out, probes are compared without it", path)
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		d.fail("path", "%q has a space or a control character, which no request's path has", path)
	}
	return path
}

var statPrefixCharacters = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)

func (d *decoder) statPrefix() string {
	prefix := d.text("stat_prefix", "default", maxNameBytes)
	switch {
	case prefix == "":
		d.fail("stat_prefix", "is empty; leave it out for %q", "default")
	case !statPrefixCharacters.MatchString(prefix):
		d.fail("stat_prefix", "%q has a character other than letters, digits, _, - and .", prefix)
	case slices.Contains(strings.Split(prefix, "."), ""):
		d.fail("stat_prefix", "%q has a dot at an end or two in a row, so the metrics' names would have an empty part; "+
			"write it as in edge.eu-1", prefix)
	}
	return prefix
}

func (d *decoder) clusters() []policy.Cluster {
	values, given := d.list("clusters")
	// A gate without clusters answers liveness probes: it fails only if Envoy's main thread hangs. It has to ignore a drain, which is no
	// reason to restart Envoy.
	ignoresDrain := d.fields["drain"].GetStringValue() == "ignore"
	switch {
	case !given && (d.override || d.fields["clusters"] != nil): // a wrong type is reported already
		return nil
	case !given:
		d.fail("clusters", "is required: name at least one cluster, as in clusters: [service]")
	case len(values) == 0 && d.variant == Module && (ignoresDrain || d.override):
		return nil
	case len(values) == 0 && ignoresDrain:
		d.fail("clusters", "an empty list is not supported by the Go plugin; use the dynamic module, or name at least one cluster")
	case len(values) == 0 && d.variant == Module:
		d.fail("clusters", "is empty; name at least one cluster, or set drain: ignore for a gate that fails only if Envoy's main thread hangs")
	case len(values) == 0:
		d.fail("clusters", "is empty; name at least one cluster")
	case len(values) > MaxClusters:
		d.fail("clusters", "has %d entries; at most %d are allowed", len(values), MaxClusters)
		return nil
	}

	clusters := make([]policy.Cluster, 0, len(values))
	first := make(map[string]string, len(values)) // from a cluster's name to its path
	for i, value := range values {
		entry := &object{at: fmt.Sprintf("clusters[%d]", i), errs: d.errs}
		switch kind := value.GetKind().(type) {
		case fields:
			entry.fields = kind.StructValue.GetFields()
		case text: // short for an object with only the name
			entry.fields = map[string]*structpb.Value{"name": value}
		default:
			d.fail(entry.at, "%s is not a name or an object", showValue(value))
			clusters = append(clusters, policy.Cluster{}) // so that require is compared with the intended number
			continue
		}
		cluster := decodeCluster(entry)
		if earlier, repeated := first[cluster.Name]; repeated && cluster.Name != "" {
			entry.fail("name", "%q is repeated; %s has it already", cluster.Name, earlier)
		} else {
			first[cluster.Name] = entry.at
		}
		clusters = append(clusters, cluster)
	}
	return clusters
}

func decodeCluster(entry *object) policy.Cluster {
	name := entry.text("name", "", maxNameBytes)
	switch {
	case entry.fields["name"] == nil:
		entry.fail("name", "is required")
	case name == "" && !entry.failed("name"):
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

// require returns how many of n clusters must pass. An override without clusters may require up to MaxClusters, because it does not know
// how many the filter has.
func (d *decoder) require(n int) int {
	d.known = append(d.known, "require")
	value := d.fields["require"]
	if n == 0 && d.variant == Module && !d.override {
		if value != nil {
			d.fail("require", "is given, but there are no clusters; leave it out")
		}
		return 0
	}
	switch v := value.GetKind().(type) {
	case nil:
		return n
	case text:
		switch v.StringValue {
		case "all":
			return n
		case "any":
			return 1
		}
	case number:
		highest := n
		if n == 0 {
			highest = MaxClusters
		}
		if v.NumberValue < 1 || v.NumberValue > float64(highest) || v.NumberValue != math.Trunc(v.NumberValue) {
			d.refuse("require", "a whole number from 1 to %d, the number of clusters", highest)
		}
		return int(v.NumberValue)
	}
	d.refuse("require", "all, any or a number of clusters")
	return 0
}

// admin returns nil with source: stats.
func (d *decoder) admin() *Admin {
	source := d.oneOf("source", "stats", "admin")
	o := d.child("admin")
	defer o.refuseUnknown()
	admin := &Admin{Interval: o.duration("interval", time.Second, 100*time.Millisecond, time.Minute)}
	address := o.text("address", "", maxPathBytes)
	switch {
	case d.failed("source"), d.failed("admin"):
		return nil
	case d.override: // the filter may set the other key
		if address == "" {
			return nil
		}
	case source == "stats":
		if d.fields["admin"] != nil {
			d.fail("admin", "is given, but source is stats; set source: admin, or leave admin out")
		}
		return nil
	case address == "":
		o.fail("address", "is required with source: admin, as in unix:///run/envoy/admin.sock")
		return nil
	}
	if path, unix := strings.CutPrefix(address, "unix://"); unix {
		if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) || len(path) > maxUnixPathBytes {
			o.fail("address", "%q is not unix:// and an absolute path of at most %d bytes", clipText(address), maxUnixPathBytes)
		}
		admin.Network, admin.Address = "unix", path
		return admin
	}
	endpoint, err := netip.ParseAddrPort(address)
	switch {
	case err != nil:
		o.fail("address", "%q is neither unix:///path nor an IP address and port, as in 127.0.0.1:9901", clipText(address))
	case !endpoint.Addr().IsLoopback():
		o.fail("address", "%q is not on loopback; admin must not be reachable from elsewhere", address)
	case endpoint.Port() == 0:
		o.fail("address", "%q has port 0; give the port of Envoy's admin interface", address)
	}
	admin.Network, admin.Address = "tcp", address
	return admin
}

// maxUnixPathBytes is the size of a sockaddr_un, without its last NUL.
const maxUnixPathBytes = 107

// checkStaleAfter compares stale_after with how often the source samples, and returns it or its default.
func (d *decoder) checkStaleAfter(staleAfter time.Duration, admin *Admin) time.Duration {
	switch {
	case d.failed("stale_after"), d.failed("source"), d.failed("admin"):
	case admin != nil && staleAfter == 0:
		return max(defaultAdminStaleAfter, 3*admin.Interval)
	case admin != nil && staleAfter < admin.Interval:
		d.fail("stale_after", "%s is shorter than admin.interval (%s), so each poll would be stale before the next one; set %s or more",
			ShowSeconds(staleAfter), ShowSeconds(admin.Interval), ShowSeconds(3*admin.Interval))
	case admin == nil && !d.override && d.variant == Module && staleAfter > 0 && staleAfter < MinStaleAfter:
		d.fail("stale_after", "%s is too short for the dynamic module, whose samples may be %s old while Envoy is busy; set %[2]s or more, or 0s",
			ShowSeconds(staleAfter), ShowSeconds(MinStaleAfter))
	}
	return staleAfter
}

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

const notByPlugin = "not supported by the Go plugin; use the dynamic module"

func (d *decoder) grpcServices() []string {
	values, _ := d.list("grpc_services")
	switch {
	case len(values) == 0:
		return nil
	case d.variant == Plugin:
		d.fail("grpc_services", notByPlugin)
		return nil
	case len(values) > maxServices:
		d.fail("grpc_services", "has %d entries; at most %d are allowed", len(values), maxServices)
		return nil
	}
	services := make([]string, 0, len(values)+1)
	for i, value := range values {
		name, isText := value.GetKind().(text)
		at := fmt.Sprintf("grpc_services[%d]", i)
		switch {
		case !isText:
			d.fail(at, "%s is not a string", showValue(value))
		case len(name.StringValue) > maxNameBytes:
			d.fail(at, "has %d bytes; at most %d are allowed", len(name.StringValue), maxNameBytes)
		case slices.Contains(services, name.StringValue):
			d.fail(at, "%q is repeated", clipText(name.StringValue))
		default:
			services = append(services, name.StringValue)
		}
	}
	if !slices.Contains(services, "") {
		services = append(services, "")
	}
	return services
}

func (d *decoder) grpcMaxWatchers() int {
	watchers := d.integer("grpc_max_watchers", 10_000, 1, maxWatchers)
	if d.variant == Plugin && d.fields["grpc_max_watchers"] != nil && !d.failed("grpc_max_watchers") {
		d.fail("grpc_max_watchers", notByPlugin)
	}
	return int(watchers)
}
