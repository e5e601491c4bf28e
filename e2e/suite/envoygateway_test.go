package suite

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	// The types that Envoy Gateway uses besides.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"

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
	bed, err := testbed.Prepare(t.Context(), t.TempDir(), testbed.Setup{
		Variant: variant, Config: gatewaysBootstrap(t), Backends: []string{"127.0.0.1:0", "127.0.0.1:0"}, CheckEvery: "0.1s",
	})
	for _, backend := range bed.Backends {
		t.Cleanup(backend.Kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	admin := "unix:" + filepath.Join(bed.Dir, "admin.sock")
	bed.Config.Admin.Address = testbed.AddressOf(admin)
	testbed.SetEndpoints(bed.Config.StaticResources.Clusters[1], admin) // from which the metrics come
	envoy, err := testbed.StartEnvoy(t.Context(), bed.Dir, bed.Config, variant.Options(testbed.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: bed.Dir, cert: bed.Certificate, backends: bed.Backends, config: bed.Config}
	s.use(envoy)
	conn := dialPlain(t, s.at(gatewaysProbe).envoy.Ingress)
	for _, up := range []bool{true, false, true} {
		n, status := len(s.backends), 200
		if !up {
			n, status = 0, 503
		}
		s.serve(n)
		s.await(settle, func() error {
			if reply := s.plain(gatewaysProbe, http.MethodGet, "/"); reply.status != status {
				return fmt.Errorf("the probe gets %d, want %d", reply.status, status)
			}
			return nil
		})
		reply, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), asked("router.Router"))
		if err != nil || reply.Status != statusOf(up) {
			t.Errorf("Check: got %v, %v, want %v", reply, err, statusOf(up))
		}
		r, code := explain(t, s.adminAddress())
		if len(r.Gates) != 1 || r.Gates[0].Answer.Status != status || r.Gates[0].Answer.By != "probe" || (code == 0) != up {
			t.Errorf("explain: exit code %d, and %+v", code, r)
		}
	}
	munich := &router.Point{Latitude: 48.137, Longitude: 11.575}
	if _, err := router.Recommend(t.Context(), s.at(gatewaysService).dialGRPC(), munich); err != nil {
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
		if rules := lint(t, testbed.RawJSON(dump)); len(rules) > 0 {
			t.Errorf("lint of the running Envoy: %v", rules)
		}
		if rules := lint(t, testbed.RawJSON(readFile(t, egctlOutput()))); !slices.Equal(rules, []string{"idle"}) { // which patches.yaml is for
			t.Errorf("lint of what egctl prints: %v", rules)
		}
	})
}

func egctlOutput() string {
	return filepath.Join(testbed.Root(), "e2e", "envoygateway", "testdata", "egctl.json")
}

// gatewaysBootstrap returns the output of egctl as one static configuration, with routes and module in their places. The service's listener
// and cluster are the first ones, for which a testbed has a certificate and hosts.
func gatewaysBootstrap(t *testing.T) *testbed.Bootstrap {
	t.Helper()
	var printed struct{ XDS map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(readFile(t, egctlOutput())), &printed); err != nil {
		t.Fatal(err)
	}
	dump := &adminv3.ConfigDump{}
	if err := protojson.Unmarshal(printed.XDS["default/envoy"], dump); err != nil {
		t.Fatal(err)
	}
	b := &testbed.Bootstrap{}
	var listeners []*listenerv3.Listener
	var clusters []*clusterv3.Cluster
	routes := map[string]*routev3.RouteConfiguration{}
	for _, part := range dump.Configs {
		switch part := b.Unpack(part).(type) {
		case *adminv3.BootstrapConfigDump:
			b.Bootstrap = part.Bootstrap
		case *adminv3.ListenersConfigDump:
			for _, one := range part.DynamicListeners {
				listeners = append(listeners, b.Unpack(one.ActiveState.Listener).(*listenerv3.Listener))
			}
		case *adminv3.ClustersConfigDump:
			clusters = append(clusters, b.Unpack(part.DynamicActiveClusters[0].Cluster).(*clusterv3.Cluster))
		case *adminv3.RoutesConfigDump:
			for _, one := range part.DynamicRouteConfigs {
				routeConfig := b.Unpack(one.RouteConfig).(*routev3.RouteConfiguration)
				routes[routeConfig.Name] = routeConfig
			}
		}
	}
	static := b.StaticResources
	isServers := func(cluster *clusterv3.Cluster) bool { return cluster.Name != "prometheus_stats" } // of Envoy Gateway's server
	static.Clusters = append(clusters, slices.DeleteFunc(static.Clusters, isServers)...)
	static.Listeners = append(listeners, static.Listeners...)
	at := slices.IndexFunc(static.Listeners, func(listener *listenerv3.Listener) bool { return listener.Name == gatewaysService })
	static.Listeners[0], static.Listeners[at] = static.Listeners[at], static.Listeners[0]
	b.TLS().CommonTlsContext.TlsCertificateSdsSecretConfigs = nil
	b.DynamicResources, b.Node, b.ClusterManager = nil, nil, nil
	testbed.Patch(b.Cluster(), fmt.Sprintf("{type: STATIC, eds_cluster_config: null, load_assignment: {cluster_name: %s, endpoints: [{}]}}",
		gatewaysCluster))
	for _, listener := range static.Listeners {
		for _, chain := range append(listener.FilterChains, listener.DefaultFilterChain) {
			for _, filter := range chain.GetFilters() {
				if manager, is := b.Unpack(filter.GetTypedConfig()).(*hcmv3.HttpConnectionManager); is {
					placeRoutes(b, manager, routes)
				}
			}
		}
	}
	return b
}

// placeRoutes replaces RDS by the routes, and the module's path by the path of build/libhealthgate.so.
func placeRoutes(b *testbed.Bootstrap, manager *hcmv3.HttpConnectionManager, routes map[string]*routev3.RouteConfiguration) {
	if name := manager.GetRds().GetRouteConfigName(); name != "" {
		manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes[name]}
	}
	for _, filter := range manager.HttpFilters {
		if own, is := b.Unpack(filter.GetTypedConfig()).(*modulev3.DynamicModuleFilter); is {
			file := filepath.Join(testbed.Root(), "build", filepath.Base(own.DynamicModuleConfig.Module.GetLocal().GetFilename()))
			testbed.Patch(own.DynamicModuleConfig.Module, fmt.Sprintf("{local: {filename: %q}}", file))
		}
	}
}
