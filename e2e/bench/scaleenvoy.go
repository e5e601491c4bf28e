package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	withoutUs  = "without Healthgate"
	withModule = "dynamic module"
	withStale  = "dynamic module, stale_after 5s"

	checkedClusters = 20
	// patience is how long a start, an update or a change may take.
	patience = 2 * time.Minute
)

type scaleEnvoy struct {
	*testbed.Envoy
	name             string
	clusters, chains int
	dir, address     string // of its files, and of its listener
	module           testbed.Variant
	reference        *testbed.Bootstrap
	checker          *http.Server // answers its health checks
	checkerAddress   string
	checks           atomic.Int64
	version          int // of its listener and its routes
}

// launched is the time until a probe was answered with 200, and the number of probes that were answered with another status before.
type launched struct {
	took     time.Duration
	rejected int64
}

// launch starts an Envoy and waits until it answers probes.
func (b *bench) launch(name string, clusters, chains int) (e *scaleEnvoy, l launched, err error) {
	e = &scaleEnvoy{name: name, clusters: clusters, chains: chains, module: b.module}
	defer func() {
		if err != nil {
			e.end()
			err = fmt.Errorf("%s, %d clusters, %d filter chains: %w", name, clusters, chains, err)
		}
	}()
	if e.dir, err = os.MkdirTemp(b.dir, ""); err != nil {
		return e, l, err
	}
	address, err := testbed.UnusedAddress()
	if err != nil {
		return e, l, err
	}
	e.address = address.String()
	if e.reference, err = plain(); err != nil {
		return e, l, err
	}
	if err := e.startChecker(); err != nil {
		return e, l, err
	}
	e.version = 1
	if err := errors.Join(e.writeHosts(e.checkerAddress), e.writeRoutes(0, 0), e.writeListener()); err != nil {
		return e, l, err
	}
	options := testbed.Options{Workers: 1}
	if e.gated() {
		options = b.module.Options(options)
	}
	config := e.bootstrap()
	if e.Envoy, err = testbed.LaunchEnvoy(e.dir, config, options); err != nil {
		return e, l, err
	}
	e.Admin = "unix:" + e.file("admin.sock")
	began := time.Now()
	client := newConnections()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	err = testbed.WaitFor(ctx, patience, func() error {
		if !e.Alive() {
			cancel()
			return fmt.Errorf("envoy ended; its log:\n%s", testbed.Tail(e.Log(), 3))
		}
		reply, err := client.Get("http://" + e.address + "/")
		if err != nil {
			return err
		}
		_ = reply.Body.Close()
		if reply.StatusCode != http.StatusOK {
			l.rejected++
			return fmt.Errorf("a probe is answered with %s", reply.Status)
		}
		return nil
	})
	l.took = time.Since(began)
	return e, l, err
}

// newConnections returns a client with a new connection for each request.
func newConnections() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

func (e *scaleEnvoy) end() {
	if e.Envoy != nil {
		e.Kill()
	}
	if e.checker != nil {
		_ = e.checker.Close()
	}
}

func (e *scaleEnvoy) gated() bool             { return e.name != withoutUs }
func (e *scaleEnvoy) file(name string) string { return filepath.Join(e.dir, name) }

// startChecker starts the server that answers the health checks of this Envoy.
func (e *scaleEnvoy) startChecker() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e.checkerAddress = listener.Addr().String()
	e.checker = &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { e.checks.Add(1) })}
	go func() { _ = e.checker.Serve(listener) }()
	return nil
}

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
	if e.gated() {
		return config.For(e.module)
	}
	return config
}

// source returns an xDS source that is a file.
func (e *scaleEnvoy) source(name string) *corev3.ConfigSource {
	return testbed.Parse[*corev3.ConfigSource](fmt.Sprintf(`{resource_api_version: V3, path_config_source: {path: %q}}`, e.file(name)))
}

func (e *scaleEnvoy) staticClusters() []*clusterv3.Cluster {
	service := e.reference.CopyCluster("service")
	service.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	service.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: e.source("hosts")}
	service.IgnoreHealthOnHostRemoval = true // otherwise Envoy keeps a removed host until a check fails
	service.HealthChecks = e.healthChecks()
	service.LoadAssignment = nil
	all := []*clusterv3.Cluster{service}
	for i := range checkedClusters {
		c := e.reference.CopyCluster(fmt.Sprint("checked", i))
		testbed.SetEndpoints(c, e.checkerAddress)
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

// write replaces the file of an xDS source.
func (e *scaleEnvoy) write(name string, resource proto.Message) error {
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
			if e.name == withStale {
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
	if e.gated() {
		e.module.Convert(listener)
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
	if e.gated() {
		e.module.Convert(routes)
	}
	return e.write("routes", routes)
}

func overridePath(i int) string { return fmt.Sprint("/gate/", i) }

// updateListener changes each filter chain, and returns the time until a new connection uses the new one.
func (e *scaleEnvoy) updateListener(ctx context.Context) (time.Duration, error) {
	e.version++
	return e.update(ctx, e.writeListener, func(r *http.Response, _ string) bool { return r.Header.Get("server") == fmt.Sprint(e.version) })
}

// updateRoutes changes the routes, and returns the time until a request uses the new ones, and how many overrides then do not answer with
// 200.
func (e *scaleEnvoy) updateRoutes(ctx context.Context, overrides, first int) (took time.Duration, rejected int64, err error) {
	e.version++
	write := func() error { return e.writeRoutes(overrides, first) }
	took, err = e.update(ctx, write, func(_ *http.Response, body string) bool { return body == fmt.Sprint(e.version) })
	if err != nil {
		return took, 0, err
	}
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for i := range overrides {
		status, err := get(client, "http://"+e.address+overridePath(i), nil)
		if err != nil {
			return took, rejected, err
		}
		if status != http.StatusOK {
			rejected++
		}
	}
	return took, rejected, nil
}

// update writes a file, and sends a request each millisecond until the reply is of the new version. testbed.WaitFor would ask too rarely.
func (e *scaleEnvoy) update(ctx context.Context, write func() error, isNew func(*http.Response, string) bool) (time.Duration, error) {
	if err := write(); err != nil {
		return 0, err
	}
	began, client := time.Now(), newConnections()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s: an update takes more than %v", e.name, patience))
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		updated := false
		_, err := get(client, "http://"+e.address+"/version", func(r *http.Response, body string) { updated = isNew(r, body) })
		if err == nil && updated {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// awaitDrained waits until Envoy has no filter chain of an earlier version.
func (e *scaleEnvoy) awaitDrained(ctx context.Context) error {
	return testbed.WaitFor(ctx, patience, func() error {
		text, err := e.Get("/stats?filter=draining")
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if name, value, _ := strings.Cut(strings.TrimSpace(line), ": "); strings.HasPrefix(name, "listener_manager.") && value != "0" {
				return fmt.Errorf("%s is %s", name, value)
			}
		}
		return nil
	})
}

// get sends a request, calls show with the response if that is not nil, and returns the status.
func get(client *http.Client, url string, show func(r *http.Response, body string)) (int, error) {
	response, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && show != nil {
		show(response, string(body))
	}
	return response.StatusCode, err
}

// changeHosts removes the host of the cluster service, or adds it, and returns how much later than Envoy's own filter the gate shows that.
func (e *scaleEnvoy) changeHosts(ctx context.Context, present bool) (time.Duration, error) {
	addresses, want := []string{}, http.StatusServiceUnavailable
	if present {
		addresses, want = []string{e.checkerAddress}, http.StatusOK
	}
	if err := e.writeHosts(addresses...); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s: no %d within %v of a change of hosts", e.name, want, patience))
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var changed time.Time // by Envoy's own filter
	for {
		if changed.IsZero() {
			if status, err := get(client, "http://"+e.address+"/native", nil); err == nil && status == want {
				changed = time.Now()
			}
		}
		if status, err := get(client, "http://"+e.address+"/", nil); err == nil && status == want && !changed.IsZero() {
			return time.Since(changed), nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
