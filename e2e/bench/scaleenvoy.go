package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"healthgate/e2e/testbed"
)

// The Envoys of the tables of scale. They differ in Healthgate alone: all of them have
//   - GET /, answered by the gate or, without Healthgate, by its route;
//   - GET /native, answered by Envoy's own filter from the same cluster, as the clock of a change of hosts;
//   - GET /version, answered with the version of the routes; the header server has the version of the listener;
//   - their listener, routes and the hosts of the cluster service from files, by LDS, RDS and EDS;
//   - twenty clusters that are checked each second; a check that fails is logged.
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
	dir, address     string // its files, and its listener
	backend          string
	module           testbed.Variant
	reference        *testbed.Config
	checker          *http.Server // answers its checks
	checkerAddress   string
	checks           atomic.Int64
	version          int // of its listener and its routes
}

// launched is the time until a probe was answered with 200, and how many probes were answered with another status before.
type launched struct {
	took     time.Duration
	rejected int64
}

// launch starts an Envoy and waits until it answers probes.
func (b *bench) launch(name string, clusters, chains int) (e *scaleEnvoy, l launched, err error) {
	e = &scaleEnvoy{name: name, clusters: clusters, chains: chains, backend: b.backend, module: b.module}
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
	client := fresh()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	err = testbed.WaitFor(ctx, patience, func() error {
		if !e.Alive() {
			cancel()
			return fmt.Errorf("envoy has ended; its log:\n%s", testbed.Tail(e.Log(), 3))
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

// fresh is a client with a connection for each request.
func fresh() *http.Client {
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

// startChecker starts what answers the checks of this Envoy.
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

// countChecks counts the checks so far. Neither count asks admin, which would take seconds of the main thread.
func (e *scaleEnvoy) countChecks() (Watched, error) {
	log, err := os.ReadFile(e.file("checks.log"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return Watched{Checks: e.checks.Load(), Failed: int64(strings.Count(string(log), "health_check_failure_event"))}, err
}

func (e *scaleEnvoy) bootstrap() *testbed.Config {
	config := e.reference.Clone()
	config.Set("static_resources.clusters", e.staticClusters())
	config.Delete("static_resources.listeners")
	config.Set("node", map[string]any{"id": "bench", "cluster": "bench"})
	config.Set("dynamic_resources", map[string]any{"lds_config": e.source("listener")})
	config.Set("admin.address", map[string]any{"pipe": map[string]any{"path": e.file("admin.sock")}})
	if e.gated() {
		e.module.Prepare(config)
	}
	return config
}

// source is an xDS source.
func (e *scaleEnvoy) source(name string) map[string]any {
	return map[string]any{"resource_api_version": "V3", "path_config_source": map[string]any{"path": e.file(name)}}
}

const typeURL = "type.googleapis.com/"

func (e *scaleEnvoy) staticClusters() []any {
	service := e.reference.Part(testbed.Cluster)
	service.Set("type", "EDS")
	service.Set("eds_cluster_config", map[string]any{"eds_config": e.source("hosts")})
	service.Set("ignore_health_on_host_removal", true) // or Envoy keeps a removed host until a check fails
	service.Set("health_checks", e.healthChecks())
	service.Delete("load_assignment")
	all := []any{service.Get("")}
	cluster := func(name, host string) *testbed.Config {
		c := e.reference.Part(testbed.Cluster)
		c.Set("name", name)
		c.Set("load_assignment", map[string]any{"cluster_name": name, "endpoints": []any{
			map[string]any{"lb_endpoints": []any{testbed.Endpoint(host)}}}})
		return c
	}
	for i := range checkedClusters {
		c := cluster(fmt.Sprint("checked", i), e.checkerAddress)
		c.Set("health_checks", e.healthChecks())
		all = append(all, c.Get(""))
	}
	for i := range e.clusters {
		all = append(all, cluster(clusterName(i), e.backend).Get(""))
	}
	return all
}

func (e *scaleEnvoy) healthChecks() any {
	return []any{map[string]any{
		"timeout": "1s", "interval": "1s", "no_traffic_interval": "1s", "no_traffic_healthy_interval": "1s",
		"unhealthy_threshold": 3, "healthy_threshold": 1, "http_health_check": map[string]any{"path": "/"},
		"always_log_health_check_failures": true,
		"event_logger": []any{map[string]any{"name": "file", "typed_config": map[string]any{
			"@type":          typeURL + "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
			"event_log_path": e.file("checks.log"),
		}}},
	}}
}

func clusterName(i int) string { return fmt.Sprint("cluster", i) }

// write replaces the file of an xDS source.
func (e *scaleEnvoy) write(name, message string, resource any) error {
	resource.(map[string]any)["@type"] = typeURL + message
	text, err := json.Marshal(map[string]any{"resources": []any{resource}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.file(name+".new"), text, 0o600); err != nil {
		return err
	}
	return os.Rename(e.file(name+".new"), e.file(name))
}

func (e *scaleEnvoy) writeHosts(addresses ...string) error {
	endpoints := []any{}
	for _, address := range addresses {
		endpoints = append(endpoints, testbed.Endpoint(address))
	}
	return e.write("hosts", "envoy.config.endpoint.v3.ClusterLoadAssignment", map[string]any{
		"cluster_name": "service", "endpoints": []any{map[string]any{"lb_endpoints": endpoints}}})
}

// writeListener writes the listener, each filter chain of which changes with the version. The default chain answers the probes; the others
// are for addresses to which nothing connects.
func (e *scaleEnvoy) writeListener() error {
	reference := e.reference.Part(testbed.Listener)
	reference.Set("address.socket_address", socketAddress(e.address))
	reference.Set(hcm+".server_name", fmt.Sprint(e.version))
	one := func(clusters ...any) *testbed.Config {
		listener := reference.Clone()
		if !e.gated() {
			withoutGate(listener)
			return listener
		}
		listener.Set(filters+".0."+testbed.FilterConfig+".clusters", clusters)
		if e.name == withStale {
			listener.Set(filters+".0."+testbed.FilterConfig+".stale_after", "5s")
		}
		return listener
	}
	listener := one("service")
	listener.Delete(hcm + ".route_config")
	listener.Set(hcm+".rds", map[string]any{"route_config_name": "routes", "config_source": e.source("routes")})
	listener.Set(filters, slices.Insert(listener.Get(filters).([]any), 0, any(nativeFilter("/native"))))
	listener.Set("default_filter_chain", listener.Get("filter_chains.0"))
	chains := []any{}
	for i := range e.chains - 1 {
		chain := one(clusterName(i % e.clusters)).Part("filter_chains.0")
		chain.Set("filter_chain_match", map[string]any{"prefix_ranges": []any{
			map[string]any{"address_prefix": fmt.Sprintf("127.2.%d.%d", i/256, i%256), "prefix_len": 32}}})
		chains = append(chains, chain.Get(""))
	}
	listener.Set("filter_chains", chains)
	if e.gated() {
		e.module.Rewrite(listener)
	}
	return e.write("listener", "envoy.config.listener.v3.Listener", listener.Get(""))
}

func socketAddress(address string) any {
	return testbed.Tree(testbed.Endpoint(address)).Get("endpoint.address.socket_address")
}

// writeRoutes writes the routes, among them some with an override; each override names another cluster, from a first one on.
func (e *scaleEnvoy) writeRoutes(overrides, first int) error {
	listener := e.reference.Part(testbed.Listener)
	if !e.gated() {
		withoutGate(listener)
	}
	all := listener.Get(routes).([]any)
	probe := listener.Part(probeRoute)
	version := probe.Clone()
	version.Delete("typed_per_filter_config")
	version.Set("name", "version")
	version.Set("match", map[string]any{"path": "/version"})
	version.Set("direct_response", map[string]any{"status": 200, "body": map[string]any{"inline_string": fmt.Sprint(e.version)}})
	all = slices.Insert(all, 1, version.Get(""))
	for i := range overrides {
		path := overridePath(i)
		route := probe.Clone()
		route.Set("name", path)
		route.Set("match", map[string]any{"path": path})
		if e.gated() {
			route.Set("typed_per_filter_config.healthgate", map[string]any{
				"@type": typeURL + "envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute",
				"plugins_config": map[string]any{"healthgate": map[string]any{"config": map[string]any{
					"@type": typeURL + "xds.type.v3.TypedStruct",
					"value": map[string]any{"path": path, "clusters": []any{clusterName((first + i) % e.clusters)}},
				}}},
			})
		}
		all = slices.Insert(all, 1, route.Get(""))
	}
	listener.Set(routes, all)
	config := listener.Part(hcm + ".route_config")
	config.Set("name", "routes")
	if e.gated() {
		e.module.Rewrite(config)
	}
	return e.write("routes", "envoy.config.route.v3.RouteConfiguration", config.Get(""))
}

func overridePath(i int) string { return fmt.Sprint("/gate/", i) }

// updateListener changes each filter chain, and returns how long it takes until a new connection gets the new one.
func (e *scaleEnvoy) updateListener(ctx context.Context) (time.Duration, error) {
	e.version++
	return e.update(ctx, e.writeListener, func(r *http.Response, _ string) bool { return r.Header.Get("server") == fmt.Sprint(e.version) })
}

// updateRoutes changes the routes, and returns how long it takes until a request gets the new ones, and how many of the overrides then
// answer with something else than 200.
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

// update writes a file, and sends a request each millisecond until the reply is of the new version. testbed.WaitFor asks every ten: too
// seldom for an update that takes no longer.
func (e *scaleEnvoy) update(ctx context.Context, write func() error, isNew func(*http.Response, string) bool) (time.Duration, error) {
	if err := write(); err != nil {
		return 0, err
	}
	began, client := time.Now(), fresh()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s: an update is not there within %v", e.name, patience))
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

// awaitDrained waits until no filter chain of an earlier version is left.
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

// changeHosts removes the host of the cluster service, or adds it, and returns how much later than Envoy's own filter the gate answers
// by it.
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
