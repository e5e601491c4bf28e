package suite

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	// The types that Envoy Gateway uses besides.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

const (
	gatewaysProbe   = "default/envoy/probe"
	gatewaysService = "default/envoy/https"
	gatewaysStats   = "envoy-gateway-proxy-stats-0.0.0.0-19001"
	gatewaysCluster = "grpcroute/default/service/rule/0"
)

// What egctl makes of manifests/overlays/envoy-gateway, as it is committed, runs in a stock Envoy, without Envoy Gateway.
func TestEnvoyGatewaysConfigurationAnswers(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	certificate, err := testbed.NewCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(t.TempDir(), "admin.sock")
	s := newSite(t, backends(2), func(p *plan) {
		p.gated = false
		p.configured = append(p.configured, func(p *plan, addresses []string) {
			p.config = gatewaysConfig(t, admin, certificate, addresses)
		})
	})
	s.cert = certificate
	conn, err := grpc.NewClient("passthrough:///"+s.at(gatewaysProbe).envoy.Ingress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, step := range []struct {
		up     bool
		status int
		health grpc_health_v1.HealthCheckResponse_ServingStatus
	}{{true, 200, serving}, {false, 503, notServing}, {true, 200, serving}} {
		for _, backend := range s.backends {
			if err := backend.SetServing(step.up); err != nil {
				t.Fatal(err)
			}
		}
		s.await(settle, func() error {
			if reply := s.plain(gatewaysProbe, http.MethodGet, "/"); reply.status != step.status {
				return fmt.Errorf("the probe gets %d, want %d", reply.status, step.status)
			}
			return nil
		})
		if reply, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), asked("router.Router")); err != nil || reply.Status != step.health {
			t.Errorf("Check: got %v, %v, want %v", reply, err, step.health)
		}
		r, code := explainAll(t, "unix://"+admin)
		if len(r.Gates) != 1 || r.Gates[0].Answer.Status != step.status || r.Gates[0].Answer.By != "probe" || (code == 0) != step.up {
			t.Errorf("explain: exit code %d, and %+v", code, r)
		}
	}
	service := s.at(gatewaysService).dialGRPC()
	if _, err := router.NewRouterClient(service).Recommend(t.Context(), &router.RecommendRequest{Points: []*router.Point{{Latitude: 48}}}); err != nil {
		t.Errorf("a call of the service: %v", err)
	}
	// Its own listener has a certificate, and the probe's has none: neither answers for the other.
	if reply := s.plain(gatewaysProbe, http.MethodPost, "/router.Router/Recommend"); reply.status != 404 {
		t.Errorf("the service's path gets %d at the probe's listener", reply.status)
	}
	t.Run("metrics", func(t *testing.T) {
		shown := s.in(t).plain(gatewaysStats, http.MethodGet, "/stats/prometheus").body
		for _, name := range askedFor(t) {
			if !regexp.MustCompile(`(?m)^` + name + `[{ ]`).MatchString(shown) {
				t.Errorf("%s is asked for, and not shown", name)
			}
		}
		if !strings.Contains(shown, `envoy_cluster_health_check_attempt{envoy_cluster_name="`+gatewaysCluster+`"}`) {
			t.Error("the cluster's health checks are not shown by its name")
		}
	})
	t.Run("access log", func(t *testing.T) {
		s := s.in(t)
		s.awaitLog(`"response_code_details":"healthgate_cluster_unhealthy"`, settle)
		s.awaitLog(`"route_name":"`+gatewaysCluster, settle) // of the call, which is later than the probes
		if strings.Contains(s.envoy.Log(), `"response_code_details":"healthgate_ok"`) {
			t.Error("a probe that passes has a line")
		}
	})
	t.Run("lint", func(t *testing.T) {
		dump, err := s.envoy.Get("/config_dump?include_eds")
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal([]byte(dump), &tree); err != nil {
			t.Fatal(err)
		}
		if rules := lint(t, testbed.Tree(tree)); len(rules) > 0 {
			t.Errorf("lint of the running Envoy: %v", rules)
		}
		tree = nil
		if err := json.Unmarshal([]byte(readFile(t, egctlOutput())), &tree); err != nil {
			t.Fatal(err)
		}
		if rules := lint(t, testbed.Tree(tree)); len(rules) != 1 || rules[0] != "idle" { // which patches.yaml is for
			t.Errorf("lint of what egctl prints: %v", rules)
		}
	})
}

func egctlOutput() string {
	return filepath.Join(testbed.Root(), "e2e", "envoygateway", "testdata", "egctl.json")
}

// gatewaysConfig returns what egctl prints as one static configuration: admin at a socket, every listener at a free port of loopback, the
// cluster with its hosts and checked often, routes, certificate and module in their places.
func gatewaysConfig(t *testing.T, admin string, certificate *testbed.Certificate, hosts []string) *testbed.Config {
	t.Helper()
	var printed struct{ XDS map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(readFile(t, egctlOutput())), &printed); err != nil {
		t.Fatal(err)
	}
	dump := &adminv3.ConfigDump{}
	if err := protojson.Unmarshal(printed.XDS["default/envoy"], dump); err != nil {
		t.Fatal(err)
	}
	var bootstrap *bootstrapv3.Bootstrap
	var listeners []*listenerv3.Listener
	var clusters []*clusterv3.Cluster
	routes := map[string]*routev3.RouteConfiguration{}
	for _, part := range dump.Configs {
		switch part := unpacked(t, part).(type) {
		case *adminv3.BootstrapConfigDump:
			bootstrap = part.Bootstrap
		case *adminv3.ListenersConfigDump:
			for _, one := range part.DynamicListeners {
				listeners = append(listeners, unpacked(t, one.ActiveState.Listener).(*listenerv3.Listener))
			}
		case *adminv3.ClustersConfigDump:
			for _, one := range part.DynamicActiveClusters {
				clusters = append(clusters, unpacked(t, one.Cluster).(*clusterv3.Cluster))
			}
		case *adminv3.RoutesConfigDump:
			for _, one := range part.DynamicRouteConfigs {
				routeConfig := unpacked(t, one.RouteConfig).(*routev3.RouteConfiguration)
				routes[routeConfig.Name] = routeConfig
			}
		}
	}
	if len(clusters) != 1 || clusters[0].Name != gatewaysCluster || len(listeners) != 3 || len(routes) != 2 {
		t.Fatalf("egctl printed %d clusters, %d listeners, %d routes", len(clusters), len(listeners), len(routes))
	}
	adminAddress := &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: admin}}}
	bootstrap.Admin.Address = adminAddress
	bootstrap.DynamicResources, bootstrap.Node = nil, nil
	bootstrap.ClusterManager.LocalClusterName = ""
	static := bootstrap.StaticResources
	static.Clusters = nil // those of Envoy Gateway's server
	static.Clusters = append(clusters, &clusterv3.Cluster{Name: "prometheus_stats", LoadAssignment: assignment("prometheus_stats", adminAddress)})
	static.Listeners = append(static.Listeners, listeners...)
	var addresses []*corev3.Address
	for _, host := range hosts {
		addresses = append(addresses, socketAddress(t, host))
	}
	clusters[0].ClusterDiscoveryType, clusters[0].EdsClusterConfig = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, nil
	clusters[0].LoadAssignment = assignment(gatewaysCluster, addresses...)
	often := durationpb.New(100e6)
	check := clusters[0].HealthChecks[0]
	check.Interval, check.NoTrafficInterval, check.NoTrafficHealthyInterval = often, often, often
	for _, listener := range static.Listeners {
		listener.Address = socketAddress(t, "127.0.0.1:0")
		for _, chain := range append(listener.FilterChains, listener.DefaultFilterChain) {
			for _, filter := range chain.GetFilters() {
				if manager, is := unpacked(t, filter.GetTypedConfig()).(*hcmv3.HttpConnectionManager); is {
					withRoutes(t, manager, routes)
					filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, manager)}
				}
			}
			if socket := chain.GetTransportSocket(); socket != nil {
				tls := unpacked(t, socket.GetTypedConfig()).(*tlsv3.DownstreamTlsContext)
				tls.CommonTlsContext.TlsCertificateSdsSecretConfigs = nil
				tls.CommonTlsContext.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(certificate.CertFile), PrivateKey: file(certificate.KeyFile)}}
				socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, tls)}
			}
		}
	}
	text, err := protojson.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	return testbed.Tree(tree)
}

// withRoutes puts routes in the place of RDS, and the module's file in that of the image.
func withRoutes(t *testing.T, manager *hcmv3.HttpConnectionManager, routes map[string]*routev3.RouteConfiguration) {
	t.Helper()
	if name := manager.GetRds().GetRouteConfigName(); name != "" {
		manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes[name]}
	}
	for _, filter := range manager.HttpFilters {
		if own, is := unpacked(t, filter.GetTypedConfig()).(*modulev3.DynamicModuleFilter); is {
			local := own.DynamicModuleConfig.Module.GetLocal()
			local.Specifier = file(filepath.Join(testbed.Root(), "build", filepath.Base(local.GetFilename()))).Specifier
			filter.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(t, own)}
		}
	}
}

func file(name string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
}

func assignment(cluster string, addresses ...*corev3.Address) *endpointv3.ClusterLoadAssignment {
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, address := range addresses {
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: address}}})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{locality}}
}

func socketAddress(t *testing.T, hostport string) *corev3.Address {
	t.Helper()
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(number)}}}}
}

func unpacked(t *testing.T, packed *anypb.Any) proto.Message {
	t.Helper()
	message, err := packed.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func packed(t *testing.T, message proto.Message) *anypb.Any {
	t.Helper()
	any, err := anypb.New(message)
	if err != nil {
		t.Fatal(err)
	}
	return any
}
