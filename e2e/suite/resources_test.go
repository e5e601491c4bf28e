package suite

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"healthgate/e2e/testbed"
)

// takeHosts makes the first cluster read its hosts from a file, and not check them.
func (s *site) takeHosts() {
	s.t.Helper()
	s.writeHosts()
	s.config.Patch(s.config.Cluster(), `{type: EDS, load_assignment: null, health_checks: null, dns_lookup_family: null,
		eds_cluster_config: {eds_config: `+s.fromFile("eds")+`}}`)
	s.config.Node = node()
}

// takeRoutes makes the listener read its routes from a file.
func (s *site) takeRoutes() {
	s.t.Helper()
	s.routes = s.config.Clone().HCM().GetRouteConfig()
	s.routes.Name = "routes"
	s.writeRoutes(s.routes)
	s.useRDS(s.config)
	s.config.Node = node()
}

// useRDS makes the connection manager take its routes from the file of the site.
func (s *site) useRDS(c *testbed.Bootstrap) {
	c.Patch(c.HCM(), `rds: {route_config_name: routes, config_source: `+s.fromFile("rds")+`}`)
}

// takeFromFile makes Envoy read its listeners ("lds") or clusters ("cds") from the file in the site's folder.
func (s *site) takeFromFile(config *testbed.Bootstrap, kind string) {
	static := map[string]string{"lds": "listeners", "cds": "clusters"}[kind]
	config.Patch(config.Bootstrap,
		fmt.Sprintf(`{static_resources: {%s: null}, dynamic_resources: {%s_config: %s}}`, static, kind, s.fromFile(kind)))
	config.Node = node()
}

// node is Envoy's own name, which it must have if anything is not static.
func node() *corev3.Node { return &corev3.Node{Id: "e2e", Cluster: "e2e"} }

// fromFile is the configuration source of a kind of resource, in YAML.
func (s *site) fromFile(kind string) string {
	return fmt.Sprintf(`{resource_api_version: V3, path_config_source: {path: %q}}`, s.resourceFile(kind))
}

func (s *site) resourceFile(kind string) string { return filepath.Join(s.dir, kind+".json") }

// write replaces a file of resources by a move, which is what Envoy watches for.
func (s *site) write(kind string, resources ...proto.Message) {
	s.t.Helper()
	response := &discoveryv3.DiscoveryResponse{}
	for _, resource := range resources {
		response.Resources = append(response.Resources, testbed.Any(resource))
	}
	next := s.resourceFile(kind) + ".next"
	mustSucceed(s.t, os.WriteFile(next, testbed.JSON(response), 0o600))
	mustSucceed(s.t, os.Rename(next, s.resourceFile(kind)))
}

// writeListener writes the listener that Envoy reads, in the variant's form.
func (s *site) writeListener(listener *listenerv3.Listener) {
	s.t.Helper()
	s.write("lds", listener)
}

// writeClusters writes the clusters that Envoy reads.
func (s *site) writeClusters(clusters ...*clusterv3.Cluster) {
	s.t.Helper()
	resources := make([]proto.Message, len(clusters))
	for i, cluster := range clusters {
		resources[i] = cluster
	}
	s.write("cds", resources...)
}

// removeClusters removes every cluster by CDS.
func (s *site) removeClusters() {
	s.t.Helper()
	s.writeClusters()
	s.awaitStat("cluster_manager.cluster_removed", 1)
}

// writeRoutes writes the routes that Envoy reads, given in the Go plugin's form.
func (s *site) writeRoutes(routes *routev3.RouteConfiguration) {
	s.t.Helper()
	converted := proto.CloneOf(routes)
	variant.Convert(converted)
	s.write("rds", converted)
}

// changeRoutes writes the routes as they were at the start, with a change.
func (s *site) changeRoutes(change func(*routev3.VirtualHost)) {
	s.t.Helper()
	routes := proto.CloneOf(s.routes)
	change(routes.VirtualHosts[0])
	s.writeRoutes(routes)
}

// overrideRoute adds by RDS the route of a probe, with an override of the gate.
func (s *site) overrideRoute(path, gate string) {
	s.t.Helper()
	s.changeRoutes(func(host *routev3.VirtualHost) { addRoute(host, path, gate) })
	s.awaitGate(path, true)
}

// removeOverrides makes RDS give the routes as they were at the start.
func (s *site) removeOverrides(path string) {
	s.t.Helper()
	s.writeRoutes(s.routes)
	s.awaitGate(path, false)
}

// awaitGate waits until a gate answers a path, or none does.
func (s *site) awaitGate(path string, want bool) {
	s.t.Helper()
	s.await(settle, func() error {
		if reply := s.path(path); (reply.header.Get("cache-control") != "") != want {
			return fmt.Errorf("%s is answered with %d, by a gate: %v", path, reply.status, !want)
		}
		return nil
	})
}

// withEDS makes the first cluster read its hosts from a file, without active health checks.
func withEDS() option {
	return func(p *plan) {
		p.addresses = nil
		p.eds = true
	}
}

// hosts returns a host for each letter, which names its state: h(ealthy), d(egraded), u(nhealthy). Without active health checks the state
// is its health.
func hosts(states string) (list []*endpointv3.LbEndpoint) {
	statuses := map[rune]corev3.HealthStatus{
		'h': corev3.HealthStatus_HEALTHY, 'd': corev3.HealthStatus_DEGRADED, 'u': corev3.HealthStatus_UNHEALTHY,
		'x': corev3.HealthStatus_DRAINING, 't': corev3.HealthStatus_TIMEOUT, '?': corev3.HealthStatus_UNKNOWN,
	}
	for i, state := range states {
		host := testbed.HostAt(fmt.Sprintf("127.0.0.1:%d", 20000+i))
		host.HealthStatus = statuses[state]
		list = append(list, host)
	}
	return list
}

// writeHosts makes the hosts the cluster's, and waits until Envoy's gauges show it.
func (s *site) writeHosts(hosts ...*endpointv3.LbEndpoint) {
	s.t.Helper()
	cluster := &clusterv3.Cluster{Name: "service"}
	testbed.SetEndpoints(cluster)
	cluster.LoadAssignment.Endpoints[0].LbEndpoints = hosts
	s.write("eds", cluster.LoadAssignment)
	if s.envoy == nil {
		return
	}
	want := map[string]uint64{"healthy": 0, "degraded": 0, "total": uint64(len(hosts))}
	for _, host := range hosts {
		switch host.HealthStatus {
		case corev3.HealthStatus_HEALTHY, corev3.HealthStatus_UNKNOWN:
			want["healthy"]++
		case corev3.HealthStatus_DEGRADED:
			want["degraded"]++
		}
	}
	s.awaitStats("cluster.service.membership_", want)
}

// clustersByCDS makes CDS give the clusters, so that a test can remove them, and returns them.
func clustersByCDS(clusters *[]*clusterv3.Cluster) option {
	return func(p *plan) {
		p.cds = true
		p.changes = append(p.changes, func(c *testbed.Bootstrap) {
			*clusters = c.Clone().GetStaticResources().GetClusters()
			allowMissingClusters(c)
		})
	}
}

// twoClusters adds a cluster "other" with the same hosts, and makes CDS give both.
func twoClusters(clusters *[]*clusterv3.Cluster) option {
	return func(p *plan) {
		withConfig(func(c *testbed.Bootstrap) { c.AddCluster(c.CopyCluster("other")) })(p)
		clustersByCDS(clusters)(p)
	}
}

// allowMissingClusters makes Envoy take routes to clusters that it does not have.
func allowMissingClusters(c *testbed.Bootstrap) {
	c.HCM().GetRouteConfig().ValidateClusters = wrapperspb.Bool(false)
}

// nextListener returns the reference configuration with another configuration of the gate and further changes, whose listener can
// replace the site's.
func (s *site) nextListener(gate string, changes ...func(*testbed.Bootstrap)) *testbed.Bootstrap {
	s.t.Helper()
	config := readConfig(s.t, "envoy/envoy.yaml")
	config.UseCertificate(s.cert)
	config.Listen(0, 0)
	config.SetGate(gate)
	for _, change := range changes {
		change(config)
	}
	return config
}

// reload replaces Envoy's listener by the next one. It reports whether Envoy has taken it, and returns after the gates' next sample.
func (s *site) reload(gate string, changes ...func(*testbed.Bootstrap)) (taken bool) {
	s.t.Helper()
	taken = s.update(s.nextListener(gate, changes...))
	s.awaitSample()
	return taken
}

// mustReload fails if Envoy refuses the next listener.
func (s *site) mustReload(gate string, changes ...func(*testbed.Bootstrap)) {
	s.t.Helper()
	if !s.reload(gate, changes...) {
		s.t.Fatal("envoy refused a good listener")
	}
}

// update replaces Envoy's listener, and waits until Envoy has taken or refused it, but not for a sample.
func (s *site) update(config *testbed.Bootstrap) (taken bool) {
	s.t.Helper()
	read := func() (rejected, success int) {
		text, err := s.envoy.Ask(http.MethodGet, "/stats?filter=^listener_manager.lds.update_(rejected|success)$")
		if err == nil {
			_, err = fmt.Sscanf(text, "listener_manager.lds.update_rejected: %d\nlistener_manager.lds.update_success: %d", &rejected, &success)
		}
		mustSucceed(s.t, err)
		return rejected, success
	}
	rejected, success := read()
	s.writeListener(config.For(variant).Listener())
	s.await(settle, func() error {
		r, n := read()
		if taken = n > success; !taken && r == rejected {
			return fmt.Errorf("envoy has neither taken nor refused the listener yet")
		}
		return nil
	})
	return taken
}

// neverRouted makes a listener wait for routes that never arrive, because the service is no control plane.
func neverRouted(c *testbed.Bootstrap) {
	c.Patch(c.HCM(), `rds: {route_config_name: late, config_source: {resource_api_version: V3, initial_fetch_timeout: 0s,
		api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: service}}]}}}`)
}
