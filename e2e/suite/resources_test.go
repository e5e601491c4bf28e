package suite

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"healthgate/e2e/testbed"
)

// takeHosts makes the first cluster read its hosts from a file, and not check them.
func (s *site) takeHosts() {
	s.t.Helper()
	s.writeHosts()
	testbed.Patch(s.config.Cluster(), `{type: EDS, load_assignment: null, health_checks: null, dns_lookup_family: null}`)
	s.config.Cluster().EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: s.fromFile("eds")}
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
	c.HCM().RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "routes", ConfigSource: s.fromFile("rds")}}
}

// node is Envoy's own name, which it must have if anything is not static.
func node() *corev3.Node { return &corev3.Node{Id: "e2e", Cluster: "e2e"} }

// takeFromFile makes Envoy read its listeners ("lds") or clusters ("cds") from the file in the site's folder.
func (s *site) takeFromFile(config *testbed.Bootstrap, kind string) {
	config.Node = node()
	if config.DynamicResources == nil {
		config.DynamicResources = &bootstrapv3.Bootstrap_DynamicResources{}
	}
	switch kind {
	case "lds":
		config.StaticResources.Listeners, config.DynamicResources.LdsConfig = nil, s.fromFile(kind)
	case "cds":
		config.StaticResources.Clusters, config.DynamicResources.CdsConfig = nil, s.fromFile(kind)
	}
}

// fromFile is the configuration source of a kind of resource.
func (s *site) fromFile(kind string) *corev3.ConfigSource {
	return testbed.Parse[*corev3.ConfigSource](fmt.Sprintf(`{resource_api_version: V3, path_config_source: {path: %q}}`, s.resourceFile(kind)))
}

func (s *site) resourceFile(kind string) string { return filepath.Join(s.dir, kind+".json") }

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
	s.await(settle, func() error {
		reply := s.mustDo(s.client("h2"), "GET", path, nil)
		if reply.header.Get("cache-control") == "" {
			return fmt.Errorf("%s is answered by no gate: %d", path, reply.status)
		}
		return nil
	})
}

// removeOverrides makes RDS give the routes as they were at the start.
func (s *site) removeOverrides() {
	s.t.Helper()
	s.writeRoutes(s.routes)
	s.await(settle, func() error {
		if reply := s.path("/readyz"); reply.header.Get("cache-control") != "" {
			return fmt.Errorf("/readyz is still answered by a gate")
		}
		return nil
	})
}

// write replaces a file of resources by a move, which is what Envoy watches for.
func (s *site) write(kind string, resources ...proto.Message) {
	s.t.Helper()
	response := &discoveryv3.DiscoveryResponse{}
	for _, resource := range resources {
		response.Resources = append(response.Resources, testbed.Any(resource))
	}
	next := s.resourceFile(kind) + ".next"
	if err := os.WriteFile(next, testbed.JSON(response), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(next, s.resourceFile(kind)); err != nil {
		s.t.Fatal(err)
	}
}

// edsHost is a host of EDS. Without active health checks its status is its health.
type edsHost struct {
	address string
	status  string // of envoy.config.core.v3.HealthStatus
}

// withEDS makes the first cluster read its hosts from a file, without active health checks.
func withEDS() option {
	return func(p *plan) {
		p.addresses = nil
		p.eds = true
	}
}

// hosts returns a host for each letter, which names its state: h(ealthy), d(egraded), u(nhealthy).
func hosts(states string) []edsHost {
	names := map[rune]string{'h': "HEALTHY", 'd': "DEGRADED", 'u': "UNHEALTHY", 'x': "DRAINING", 't': "TIMEOUT", '?': "UNKNOWN"}
	var list []edsHost
	for i, state := range states {
		list = append(list, edsHost{fmt.Sprintf("127.0.0.1:%d", 20000+i), names[state]})
	}
	return list
}

// writeHosts makes the hosts the cluster's, and waits until Envoy's gauges show it.
func (s *site) writeHosts(hosts ...edsHost) {
	s.t.Helper()
	cluster := &clusterv3.Cluster{Name: "service"}
	testbed.SetEndpoints(cluster)
	endpoints := cluster.LoadAssignment.Endpoints[0]
	var healthy, degraded uint64
	for _, host := range hosts {
		endpoint := testbed.HostAt(host.address)
		endpoint.HealthStatus = corev3.HealthStatus(corev3.HealthStatus_value[host.status])
		endpoints.LbEndpoints = append(endpoints.LbEndpoints, endpoint)
		switch host.status {
		case "HEALTHY", "UNKNOWN":
			healthy++
		case "DEGRADED":
			degraded++
		}
	}
	s.write("eds", cluster.LoadAssignment)
	if s.envoy == nil {
		return
	}
	s.await(settle, func() error {
		const prefix = "cluster.service.membership_"
		stats, err := s.envoy.Stats(prefix)
		if err != nil {
			return err
		}
		if h, d, n := stats[prefix+"healthy"], stats[prefix+"degraded"], stats[prefix+"total"]; h != healthy || d != degraded ||
			n != uint64(len(hosts)) {
			return fmt.Errorf("envoy counts %d healthy and %d degraded of %d, want %d and %d of %d", h, d, n, healthy, degraded, len(hosts))
		}
		return nil
	})
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

// removeClusters removes every cluster by CDS.
func (s *site) removeClusters() {
	s.t.Helper()
	s.writeClusters()
	s.awaitStat("cluster_manager.cluster_removed", 1)
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

// reload updates Envoy's listener, and waits until Envoy has taken or refused it.
func (s *site) reload(gate string, changes ...func(*testbed.Bootstrap)) (taken bool) {
	s.t.Helper()
	const lds = "listener_manager.lds."
	before := s.stats(lds)
	s.writeListener(s.nextListener(gate, changes...).For(variant).Listener())
	s.await(settle, func() error {
		after := s.stats(lds)
		taken = after[lds+"update_success"] > before[lds+"update_success"]
		if !taken && after[lds+"update_rejected"] == before[lds+"update_rejected"] {
			return fmt.Errorf("envoy has not taken the listener yet")
		}
		return nil
	})
	return taken
}

// update replaces Envoy's listener, and waits until Envoy has taken it, but not for a sample.
func (s *site) update(config *testbed.Bootstrap) {
	s.t.Helper()
	taken := func() (n int) {
		text, err := s.envoy.Ask(http.MethodGet, "/stats?filter=^listener_manager.lds.update_success$")
		if err == nil {
			_, err = fmt.Sscanf(text, "listener_manager.lds.update_success: %d", &n)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	before := taken()
	s.writeListener(config.For(variant).Listener())
	s.await(settle, func() error {
		if taken() == before {
			return errors.New("envoy has not taken the listener yet")
		}
		return nil
	})
}

// neverRouted makes a listener wait for routes that never arrive, because the service is no control plane.
func neverRouted(c *testbed.Bootstrap) {
	c.Patch(c.HCM(), `rds: {route_config_name: late, config_source: {resource_api_version: V3, initial_fetch_timeout: 0s,
		api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: service}}]}}}`)
}
