package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3" // in an Any
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"healthgate/e2e/testbed"
)

// The Envoys of the tables of scale. They differ only in Healthgate. All of them have
//   - GET /, answered by the gate or, without Healthgate, by its route;
//   - GET /native, answered by Envoy's own filter for the same cluster, which shows when Envoy has a change of hosts;
//   - GET /version, answered with the version of the routes; the header server has the version of the listener;
//   - their listener, routes and hosts of the cluster service from files, by LDS, RDS and EDS;
//   - twenty clusters that are checked each second; failed checks are logged.
const (
	withoutUs    = "without Healthgate"
	withModule   = "dynamic module"
	withStale    = "dynamic module, stale_after 5s"
	withSmallest = "smallest module" // loaded in the place of ours, with the same configuration

	checkedClusters = 20
	// patience is how long a start, an update or a change may take.
	patience = 2 * time.Minute
)

type scaleEnvoy struct {
	*testbed.Envoy
	ctx              context.Context
	row              *ScaleRow // of the table that is measured
	clusters, chains int
	dir, address     string // of its files, and of its listener
	module           testbed.Variant
	reference        *testbed.Bootstrap
	checker          *httptest.Server // answers its health checks
	checks           atomic.Int64
	version          int // of its listener and its routes
}

// launch starts an Envoy, and returns the time until it answered a probe with 200. Its row counts the probes that were answered with
// another status before. The caller ends it, also after an error.
func (b *bench) launch(row *ScaleRow, clusters, chains int) (e *scaleEnvoy, took time.Duration, err error) {
	e = &scaleEnvoy{ctx: b.ctx, row: row, clusters: clusters, chains: chains, module: b.module, version: 1}
	e.checker = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { e.checks.Add(1) }))
	if e.dir, err = os.MkdirTemp(b.dir, ""); err != nil {
		return e, 0, err
	}
	address, err := testbed.UnusedAddress()
	if err != nil {
		return e, 0, err
	}
	e.address = address.String()
	if e.reference, err = plain(); err != nil {
		return e, 0, err
	}
	if err := errors.Join(e.writeHosts(e.checkerAddress()), e.writeRoutes(0, 0), e.writeListener()); err != nil {
		return e, 0, err
	}
	options := testbed.Options{Workers: 1}
	switch {
	case row.ours():
		options = b.module.Options(options)
	case row.Envoy == withSmallest:
		if err := os.Symlink(inBuild("libsmallest.so"), e.file(filepath.Base(b.module.Object()))); err != nil {
			return e, 0, err
		}
		options.Env = append(options.Env, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+e.dir)
	}
	if e.Envoy, err = testbed.LaunchEnvoy(e.dir, e.bootstrap(), options); err != nil {
		return e, 0, err
	}
	e.Admin = "unix:" + e.file("admin.sock")
	took, err = e.await(newConnections, "/", func(r reply) bool {
		if r.status != http.StatusOK {
			row.add(Watched{Probes: 1, Rejected: 1})
		}
		return r.status == http.StatusOK
	})
	if err != nil {
		err = fmt.Errorf("%s, %d clusters, %d filter chains: %w; its log:\n%s", row.Envoy, clusters, chains, err, testbed.Tail(e.Log(), 3))
	}
	return e, took, err
}

func (e *scaleEnvoy) end() {
	if e.Envoy != nil {
		e.Kill()
	}
	e.checker.Close()
}

func (e *scaleEnvoy) gated() bool             { return e.row.Envoy != withoutUs }
func (e *scaleEnvoy) file(name string) string { return filepath.Join(e.dir, name) }

func (e *scaleEnvoy) url(path string) string { return "http://" + e.address + path }
func (e *scaleEnvoy) checkerAddress() string { return e.checker.Listener.Addr().String() }

// countChecks counts the health checks so far. It does not ask the admin interface, which would take seconds of the main thread.
func (e *scaleEnvoy) countChecks() (Watched, error) {
	log, err := os.ReadFile(e.file("checks.log"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return Watched{Checks: e.checks.Load(), Failed: int64(strings.Count(string(log), "health_check_failure_event"))}, err
}

func (e *scaleEnvoy) bootstrap() *testbed.Bootstrap {
	config := e.reference.Clone()
	config.StaticResources.Clusters = e.staticClusters()
	config.StaticResources.Listeners = nil
	config.Node = &corev3.Node{Id: "bench", Cluster: "bench"}
	config.DynamicResources = &bootstrapv3.Bootstrap_DynamicResources{LdsConfig: e.source("listener")}
	config.Admin.Address = testbed.AddressOf("unix:" + e.file("admin.sock"))
	if e.row.ours() {
		return config.For(e.module) // with the bootstrap extension
	}
	return config
}

// source returns an xDS source that is a file.
func (e *scaleEnvoy) source(name string) *corev3.ConfigSource {
	return testbed.Parse[*corev3.ConfigSource](fmt.Sprintf(`{resource_api_version: V3, path_config_source: {path: %q}}`, e.file(name)))
}

func (e *scaleEnvoy) staticClusters() []*clusterv3.Cluster {
	service := e.reference.CopyCluster("service")
	// With ignore_health_on_host_removal Envoy removes a host at once, not when a check fails.
	testbed.Patch(service, `{type: EDS, ignore_health_on_host_removal: true, load_assignment: null}`)
	service.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: e.source("hosts")}
	service.HealthChecks = e.healthChecks()
	all := []*clusterv3.Cluster{service}
	for i := range checkedClusters {
		c := e.reference.CopyCluster(fmt.Sprint("checked", i))
		testbed.SetEndpoints(c, e.checkerAddress())
		c.HealthChecks = e.healthChecks()
		all = append(all, c)
	}
	for i := range e.clusters {
		c := e.reference.CopyCluster(clusterName(i))
		testbed.SetEndpoints(c, "127.0.0.1:1") // nothing is sent there
		all = append(all, c)
	}
	return all
}

func (e *scaleEnvoy) healthChecks() []*corev3.HealthCheck {
	return []*corev3.HealthCheck{testbed.Parse[*corev3.HealthCheck](fmt.Sprintf(`
timeout: 1s
interval: 1s
no_traffic_interval: 1s
no_traffic_healthy_interval: 1s
unhealthy_threshold: 3
healthy_threshold: 1
http_health_check: {path: /}
always_log_health_check_failures: true
event_logger:
- name: file
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink
    event_log_path: %q`, e.file("checks.log")))}
}

func clusterName(i int) string { return fmt.Sprint("cluster", i) }

// write replaces the file of an xDS source, in the form of the module.
func (e *scaleEnvoy) write(name string, resource proto.Message) error {
	if e.gated() {
		e.module.Convert(resource)
	}
	text, err := protojson.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{testbed.Any(resource)}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.file(name+".new"), text, 0o600); err != nil {
		return err
	}
	return os.Rename(e.file(name+".new"), e.file(name))
}

func (e *scaleEnvoy) writeHosts(addresses ...string) error {
	cluster := &clusterv3.Cluster{Name: "service"}
	testbed.SetEndpoints(cluster, addresses...)
	return e.write("hosts", cluster.LoadAssignment)
}

// writeListener writes the listener, each filter chain of which changes with the version. The default chain answers the probes; the others
// match addresses to which nothing connects.
func (e *scaleEnvoy) writeListener() error {
	// chain returns a filter chain with a gate for a cluster.
	chain := func(cluster string, change func(*hcmv3.HttpConnectionManager)) *listenerv3.FilterChain {
		b := e.reference.Clone()
		b.HCM().ServerName = fmt.Sprint(e.version)
		if e.gated() {
			b.SetGateKey("clusters", []any{cluster})
			if e.row.Envoy == withStale {
				b.SetGateKey("stale_after", "5s")
			}
		} else {
			withoutGate(b)
		}
		change(b.HCM())
		return b.Clone().Listener().FilterChains[0]
	}
	listener := e.reference.CopyListener("ingress")
	listener.Address = testbed.AddressOf(e.address)
	listener.FilterChains = nil
	listener.DefaultFilterChain = chain("service", func(hcm *hcmv3.HttpConnectionManager) {
		hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "routes", ConfigSource: e.source("routes")}}
		hcm.HttpFilters = slices.Insert(hcm.HttpFilters, 0, nativeFilter("/native"))
	})
	for i := range e.chains - 1 {
		c := chain(clusterName(i%e.clusters), func(*hcmv3.HttpConnectionManager) {})
		c.FilterChainMatch = testbed.Parse[*listenerv3.FilterChainMatch](fmt.Sprintf(
			`{prefix_ranges: [{address_prefix: 127.2.%d.%d, prefix_len: 32}]}`, i/256, i%256))
		listener.FilterChains = append(listener.FilterChains, c)
	}
	return e.write("listener", listener)
}

// writeRoutes writes the routes, with some overrides, each for another cluster, from a first one on.
func (e *scaleEnvoy) writeRoutes(overrides, first int) error {
	b := e.reference.Clone()
	if !e.gated() {
		withoutGate(b)
	}
	route := func(path string) *routev3.Route {
		r := proto.CloneOf(b.ProbeRoute())
		r.Name = path
		testbed.Patch(r, `match: {path: `+path+`}`)
		return r
	}
	version := route("/version")
	version.TypedPerFilterConfig = nil
	testbed.Patch(version, fmt.Sprintf(`direct_response: {status: 200, body: {inline_string: "%d"}}`, e.version))
	host := b.VirtualHost()
	testbed.PrependRoute(host, version)
	for i := range overrides {
		r := route(overridePath(i))
		if e.gated() {
			r.TypedPerFilterConfig["healthgate"] = testbed.GateOverride(fmt.Sprintf(
				`{path: %s, clusters: [%s]}`, overridePath(i), clusterName((first+i)%e.clusters)))
		}
		testbed.PrependRoute(host, r)
	}
	routes := proto.CloneOf(b.HCM().GetRouteConfig())
	routes.Name = "routes"
	return e.write("routes", routes)
}

func overridePath(i int) string { return fmt.Sprint("/gate/", i) }

// updateListener changes each filter chain, measures the time until a new connection uses the new one, and waits until Envoy has none of
// the old ones.
func (e *scaleEnvoy) updateListener() error {
	e.version++
	err := e.update(e.writeListener(), func(r reply) bool { return r.server == fmt.Sprint(e.version) })
	if err != nil {
		return err
	}
	return testbed.WaitFor(e.ctx, patience, func() error {
		stats, err := e.Stats("listener_manager.total_")
		if n := stats["listener_manager.total_filter_chains_draining"] + stats["listener_manager.total_listeners_draining"]; n > 0 {
			err = fmt.Errorf("%d filter chains or listeners drain", n)
		}
		return err
	})
}

// updateRoutes changes the routes, measures the time until a request uses the new ones, and probes each override once.
func (e *scaleEnvoy) updateRoutes(overrides, first int) error {
	e.version++
	err := e.update(e.writeRoutes(overrides, first), func(r reply) bool { return r.body == fmt.Sprint(e.version) })
	if err != nil {
		return err
	}
	for i := range overrides {
		r, err := e.get(http.DefaultClient, overridePath(i))
		if err != nil {
			return err
		}
		e.row.add(Watched{Probes: 1})
		if r.status != http.StatusOK {
			e.row.add(Watched{Rejected: 1})
		}
	}
	return nil
}

// update measures the time from the writing of a file until the reply is of the new version.
func (e *scaleEnvoy) update(written error, isNew func(reply) bool) error {
	if written != nil {
		return written
	}
	took, err := e.await(newConnections, "/version", isNew)
	e.row.Updates = append(e.row.Updates, milliseconds(took))
	return err
}

// changeHosts removes the host of the cluster service, or adds it, and returns how much later than Envoy's own filter the gate shows that.
func (e *scaleEnvoy) changeHosts(present bool) (time.Duration, error) {
	addresses, want := []string{}, http.StatusServiceUnavailable
	if present {
		addresses, want = []string{e.checkerAddress()}, http.StatusOK
	}
	if err := e.writeHosts(addresses...); err != nil {
		return 0, err
	}
	wanted := func(r reply) bool { return r.status == want }
	if _, err := e.await(http.DefaultClient, "/native", wanted); err != nil {
		return 0, err
	}
	return e.await(http.DefaultClient, "/", wanted)
}

// countSamples returns how many samples the module has taken, and when. It keeps the main thread busy, so it is called neither while that
// is measured nor while checks are counted.
func (e *scaleEnvoy) countSamples() (n int64, at time.Time, err error) {
	text, err := e.Get("/stats?type=Counters&filter=^healthgate[.]looks$")
	if err == nil {
		_, err = fmt.Sscanf(text, "healthgate.looks: %d", &n)
	}
	return n, time.Now(), err
}

// reply is a response of Envoy.
type reply struct {
	status       int
	server, body string
}

// newConnections is a client with a new connection for each request.
var newConnections = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (e *scaleEnvoy) get(client *http.Client, path string) (reply, error) {
	response, err := client.Get(e.url(path))
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header.Get("server"), string(body)}, err
}

// await sends a request each millisecond until the reply is as wanted, and returns how long that took.
func (e *scaleEnvoy) await(client *http.Client, path string, wanted func(reply) bool) (time.Duration, error) {
	began := time.Now()
	err := testbed.WaitEvery(e.ctx, time.Millisecond, patience, func() error {
		r, err := e.get(client, path)
		if err == nil && !wanted(r) {
			err = fmt.Errorf("%s is answered with %+v", path, r)
		}
		return err
	})
	return time.Since(began), err
}
