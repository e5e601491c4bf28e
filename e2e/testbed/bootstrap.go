package testbed

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Bootstrap is an Envoy configuration. Its accessors return the messages of the first listener and the first cluster, which is where
// envoy/envoy.yaml has everything; a caller changes them in place. A message that an Any holds is changed in place, too: the Bootstrap
// remembers each that Unpack has returned, and packs it before anything is read from the whole (Clone, JSON, Patch).
type Bootstrap struct {
	*bootstrapv3.Bootstrap
	unpacked []unpacked // an outer message before those inside it
}

// unpacked is a message that an Any holds.
type unpacked struct {
	any     *anypb.Any
	message proto.Message
}

// ReadBootstrap reads a bootstrap from a file of the checkout.
func ReadBootstrap(path string) (*Bootstrap, error) {
	text, err := os.ReadFile(filepath.Join(Root(), path))
	if err != nil {
		return nil, err
	}
	b, err := ParseBootstrap(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// ParseBootstrap reads a bootstrap from YAML.
func ParseBootstrap(text []byte) (*Bootstrap, error) {
	b := &Bootstrap{Bootstrap: &bootstrapv3.Bootstrap{}}
	return b, unmarshalYAML(text, b.Bootstrap)
}

// Clone returns a copy that shares nothing with the original.
func (b *Bootstrap) Clone() *Bootstrap {
	b.pack()
	return &Bootstrap{Bootstrap: proto.CloneOf(b.Bootstrap)}
}

// JSON returns the configuration in the form that Envoy reads.
func (b *Bootstrap) JSON() []byte {
	b.pack()
	return JSON(b.Bootstrap)
}

// Patch changes fields of a message in the bootstrap, as the function Patch does. Messages inside a patched field that a caller got before
// the call are no longer part of the bootstrap.
func (b *Bootstrap) Patch(message proto.Message, patch string) {
	b.pack()
	Patch(message, patch)
}

// Unpack returns the message that an Any of the bootstrap holds, to be changed in place.
func (b *Bootstrap) Unpack(any *anypb.Any) proto.Message {
	for _, u := range b.unpacked {
		if u.any == any {
			return u.message
		}
	}
	message, err := any.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	b.unpacked = append(b.unpacked, unpacked{any, message})
	return message
}

// pack writes each unpacked message into its Any, the inner ones first.
func (b *Bootstrap) pack() {
	for _, u := range slices.Backward(b.unpacked) {
		if err := anypb.MarshalFrom(u.any, u.message, proto.MarshalOptions{Deterministic: true}); err != nil {
			panic(err)
		}
	}
}

// Listener returns the first listener.
func (b *Bootstrap) Listener() *listenerv3.Listener { return b.GetStaticResources().GetListeners()[0] }

// Cluster returns the first cluster.
func (b *Bootstrap) Cluster() *clusterv3.Cluster { return b.GetStaticResources().GetClusters()[0] }

// HealthCheck returns the first cluster's health check.
func (b *Bootstrap) HealthCheck() *corev3.HealthCheck { return b.Cluster().GetHealthChecks()[0] }

// AddListener adds a static listener.
func (b *Bootstrap) AddListener(listener *listenerv3.Listener) {
	b.StaticResources.Listeners = append(b.StaticResources.Listeners, listener)
}

// AddCluster adds a static cluster.
func (b *Bootstrap) AddCluster(cluster *clusterv3.Cluster) {
	b.StaticResources.Clusters = append(b.StaticResources.Clusters, cluster)
}

// CopyListener returns a copy of the first listener under another name, which is not part of the bootstrap yet.
func (b *Bootstrap) CopyListener(name string) *listenerv3.Listener {
	listener := b.Clone().Listener()
	listener.Name = name
	return listener
}

// CopyCluster returns a copy of the first cluster under another name, which is not part of the bootstrap yet.
func (b *Bootstrap) CopyCluster(name string) *clusterv3.Cluster {
	cluster := proto.CloneOf(b.Cluster())
	RenameCluster(cluster, name)
	return cluster
}

// RenameCluster changes the name of a cluster, also in its load assignment.
func RenameCluster(cluster *clusterv3.Cluster, name string) {
	cluster.Name = name
	if cluster.LoadAssignment != nil {
		cluster.LoadAssignment.ClusterName = name
	}
}

// HCM returns the HTTP connection manager of the first listener.
func (b *Bootstrap) HCM() *hcmv3.HttpConnectionManager { return b.HCMOf(b.Listener()) }

// HCMOf returns the HTTP connection manager of a listener's first filter chain.
func (b *Bootstrap) HCMOf(listener *listenerv3.Listener) *hcmv3.HttpConnectionManager {
	return b.Unpack(listener.GetFilterChains()[0].GetFilters()[0].GetTypedConfig()).(*hcmv3.HttpConnectionManager)
}

// TLS returns the TLS settings of the first listener.
func (b *Bootstrap) TLS() *tlsv3.DownstreamTlsContext {
	return b.Unpack(b.Listener().GetFilterChains()[0].GetTransportSocket().GetTypedConfig()).(*tlsv3.DownstreamTlsContext)
}

// HasTLS reports whether the first listener has TLS.
func (b *Bootstrap) HasTLS() bool {
	return b.Listener().GetFilterChains()[0].GetTransportSocket() != nil
}

// WithoutTLS makes the first listener serve without TLS.
func (b *Bootstrap) WithoutTLS() { b.Listener().GetFilterChains()[0].TransportSocket = nil }

// VirtualHost returns the first virtual host of the route_config.
func (b *Bootstrap) VirtualHost() *routev3.VirtualHost {
	return b.HCM().GetRouteConfig().GetVirtualHosts()[0]
}

// ProbeRoute returns the route that enables the gate.
func (b *Bootstrap) ProbeRoute() *routev3.Route {
	return messageNamed(b.VirtualHost().GetRoutes(), "probe")
}

// ServiceRoute returns the route of ordinary traffic.
func (b *Bootstrap) ServiceRoute() *routev3.Route {
	return messageNamed(b.VirtualHost().GetRoutes(), "service")
}

// messageNamed returns the message with a name.
func messageNamed[M interface{ GetName() string }](all []M, name string) M {
	at := slices.IndexFunc(all, func(m M) bool { return m.GetName() == name })
	if at < 0 {
		panic("nothing is named " + name)
	}
	return all[at]
}

// PrependRoute puts a route before the others of a virtual host.
func PrependRoute(host *routev3.VirtualHost, route *routev3.Route) {
	host.Routes = slices.Insert(host.GetRoutes(), 0, route)
}

// GateFilter returns the entry of the gate in http_filters.
func (b *Bootstrap) GateFilter() *hcmv3.HttpFilter {
	return messageNamed(b.HCM().GetHttpFilters(), "healthgate")
}

// Gate returns Healthgate's own configuration in the filter of the first listener, to be changed in place.
func (b *Bootstrap) Gate() *structpb.Struct { return b.GateOf(b.Listener()) }

// GateOf returns Healthgate's own configuration in the filter of a listener.
func (b *Bootstrap) GateOf(listener *listenerv3.Listener) *structpb.Struct {
	return b.gateIn(b.GateFilterOf(listener))
}

// GateNamed returns Healthgate's own configuration in another filter of the first listener.
func (b *Bootstrap) GateNamed(filter string) *structpb.Struct {
	return b.gateIn(b.Unpack(messageNamed(b.HCM().GetHttpFilters(), filter).GetTypedConfig()))
}

// GateFilterOf returns the configuration of the extension in the gate's filter of a listener.
func (b *Bootstrap) GateFilterOf(listener *listenerv3.Listener) proto.Message {
	return b.Unpack(messageNamed(b.HCMOf(listener).GetHttpFilters(), "healthgate").GetTypedConfig())
}

// SetGate replaces Healthgate's own configuration by one in JSON or YAML.
func (b *Bootstrap) SetGate(text string) { SetStruct(b.Gate(), text) }

// SetStruct replaces a Struct by one in JSON or YAML.
func SetStruct(s *structpb.Struct, text string) { s.Fields = Parse[*structpb.Struct](text).Fields }

// SetGateKey sets one key of Healthgate's own configuration.
func (b *Bootstrap) SetGateKey(key string, value any) {
	v, err := structpb.NewValue(value)
	if err != nil {
		panic(err)
	}
	gate := b.Gate()
	if gate.Fields == nil {
		gate.Fields = map[string]*structpb.Value{}
	}
	gate.Fields[key] = v
}

// PrependFilter puts an HTTP filter before all others.
func (b *Bootstrap) PrependFilter(filter *hcmv3.HttpFilter) {
	b.HCM().HttpFilters = slices.Insert(b.HCM().HttpFilters, 0, filter)
}

// AddFilter puts an HTTP filter after all others but the router.
func (b *Bootstrap) AddFilter(filter *hcmv3.HttpFilter) {
	b.HCM().HttpFilters = slices.Insert(b.HCM().HttpFilters, len(b.HCM().HttpFilters)-1, filter)
}

// RemoveGate removes Healthgate's filter, and the probe route's configuration that enables it.
func (b *Bootstrap) RemoveGate() {
	b.HCM().HttpFilters = slices.DeleteFunc(b.HCM().HttpFilters, func(f *hcmv3.HttpFilter) bool { return f.GetName() == "healthgate" })
	b.ProbeRoute().TypedPerFilterConfig = nil
}

// SetEndpoints makes the addresses the hosts of the first cluster; each is host:port or unix:path.
func (b *Bootstrap) SetEndpoints(addresses ...string) { SetEndpoints(b.Cluster(), addresses...) }

// SetEndpoints makes the addresses the hosts of a cluster.
func SetEndpoints(cluster *clusterv3.Cluster, addresses ...string) {
	endpoints := make([]*endpointv3.LbEndpoint, len(addresses))
	for i, address := range addresses {
		endpoints[i] = HostAt(address)
	}
	cluster.LoadAssignment = &endpointv3.ClusterLoadAssignment{
		ClusterName: cluster.GetName(), Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: endpoints}},
	}
}

// HostAt returns an endpoint at host:port or unix:path.
func HostAt(address string) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: AddressOf(address)}}}
}

// AddressOf returns Envoy's message of host:port or unix:path.
func AddressOf(address string) *corev3.Address {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		panic(err)
	}
	return socketAddress(host, int(number))
}

func socketAddress(host string, port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// CheckEvery makes Envoy check the first cluster at the interval, given in Envoy's form ("0.1s").
func (b *Bootstrap) CheckEvery(interval string) { CheckEvery(b.Cluster(), interval) }

// CheckEvery makes Envoy check a cluster at the interval, given in Envoy's form ("0.1s").
func CheckEvery(cluster *clusterv3.Cluster, interval string) {
	for _, check := range cluster.GetHealthChecks() {
		Patch(check,
			fmt.Sprintf(`{interval: %[1]s, no_traffic_interval: %[1]s, no_traffic_healthy_interval: %[1]s, interval_jitter: 0.01s}`, interval))
	}
}

// UseCertificate makes the first listener present the certificate.
func (b *Bootstrap) UseCertificate(certificate *Certificate) {
	b.Patch(b.TLS().GetCommonTlsContext(), fmt.Sprintf(`tls_certificates: [{certificate_chain: {filename: %q}, private_key: {filename: %q}}]`,
		certificate.CertFile, certificate.KeyFile))
}

// Listen makes the first listener and admin listen on loopback at the ports, 0 for a free one, and every other listener at a free one.
func (b *Bootstrap) Listen(ingressPort, adminPort int) {
	for i, listener := range b.GetStaticResources().GetListeners() {
		port := 0
		if i == 0 {
			port = ingressPort
		}
		listener.Address = socketAddress("127.0.0.1", port)
	}
	b.Admin.Address = socketAddress("127.0.0.1", adminPort)
}

// Enabling returns the typed_per_filter_config that enables a filter, with an override or an empty Any.
func Enabling(config *anypb.Any) *routev3.FilterConfig { return &routev3.FilterConfig{Config: config} }

// StatsMatcherMetadata returns metadata with which a listener or a cluster has its own stats matcher.
func StatsMatcherMetadata(matcher *metricsv3.StatsMatcher) *corev3.Metadata {
	return &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{"envoy.stats_matcher": Any(matcher)}}
}

// GolangFilter returns the configuration of the golang extension in the gate's filter.
func (b *Bootstrap) GolangFilter() *golangv3.Config {
	return b.GateFilterOf(b.Listener()).(*golangv3.Config)
}

// ModuleFilter returns the configuration of a dynamic module in the gate's filter, in the form of the module or of the contrib host.
func (b *Bootstrap) ModuleFilter() *modulev3.DynamicModuleFilter {
	return b.GateFilterOf(b.Listener()).(*modulev3.DynamicModuleFilter)
}

// ConnectionLimit returns the configuration of the overload manager's first monitor, which limits downstream connections.
func (b *Bootstrap) ConnectionLimit() *connectionsv3.DownstreamConnectionsConfig {
	return b.Unpack(b.GetOverloadManager().GetResourceMonitors()[0].GetTypedConfig()).(*connectionsv3.DownstreamConnectionsConfig)
}
