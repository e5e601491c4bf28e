// Package suite tests Healthgate in a real Envoy, once for each variant: go test ./suite -args -variant=plugin.
package suite

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"healthgate/e2e/testbed"
)

var variantName = flag.String("variant", "plugin", "the `variant` of Healthgate to test: plugin or module")

// variant is the variant under test.
var variant testbed.Variant

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if variant, err = testbed.Named(*variantName); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// settle bounds every wait for Envoy to notice something. Three health checks are enough; Envoy makes one every 0.1s here, and
// every 5s if the suite runs against an Envoy that it did not start.
var settle = 20 * time.Second

// site is an Envoy with the reference configuration in front of backends, as a user runs it.
type site struct {
	t        *testing.T
	dir      string
	envoy    *testbed.Envoy
	cert     *testbed.Certificate
	backends []*testbed.Backend
	config   *testbed.Bootstrap          // in the Go plugin's form
	routes   *routev3.RouteConfiguration // with withRDS, as they were at the start
}

// option changes a plan before the site is started.
type option func(*plan)

// plan is the parts of a site.
type plan struct {
	addresses []string // of the backends to start
	flags     []string // of each backend
	config    *testbed.Bootstrap
	alone     string // why the test cannot share its site with others
	options   testbed.Options
	second    string                  // the gate's configuration in a second listener; "" for no such listener
	matcher   *metricsv3.StatsMatcher // of the second listener
	// Resources that Envoy reads from a file.
	lds, rds, cds, eds bool
	changes            []func(*testbed.Bootstrap) // made last, after the backends are its hosts
}

// backends starts n backends.
func backends(n int) option {
	return func(p *plan) { p.addresses = slices.Repeat([]string{"127.0.0.1:0"}, n) }
}

// backendsAt starts a backend at each address.
func backendsAt(addresses ...string) option { return func(p *plan) { p.addresses = addresses } }

// withConfig changes the configuration.
func withConfig(change func(*testbed.Bootstrap)) option {
	return func(p *plan) { p.changes = append(p.changes, change) }
}

// withGate replaces the gate's configuration.
func withGate(text string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.SetGate(text) })
}

// withHCM patches the first listener's HTTP connection manager.
func withHCM(patch string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.Patch(c.HCM(), patch) })
}

// withCluster patches the first cluster.
func withCluster(patch string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.Patch(c.Cluster(), patch) })
}

// withBootstrap patches the bootstrap itself.
func withBootstrap(patch string) option {
	return withConfig(func(c *testbed.Bootstrap) { c.Patch(c.Bootstrap, patch) })
}

// onEveryRoute enables the filter for all traffic, unlike the reference configuration.
func onEveryRoute() option {
	return withConfig(func(c *testbed.Bootstrap) { c.GateFilter().Disabled = false })
}

func withEnv(variables ...string) option { return func(p *plan) { p.options.Env = variables } }

// alone marks a site that the test changes so that no other test could use it.
func alone(why string) option { return func(p *plan) { p.alone = why } }

// withLDS, withRDS and withCDS make Envoy read its listener, its routes or its clusters from a file that a test can
// change.
func withLDS() option { return func(p *plan) { p.lds = true } }
func withRDS() option { return func(p *plan) { p.rds = true } }
func withCDS() option { return func(p *plan) { p.cds = true } }

// newSite starts a site; everything in it ends with the test.
func newSite(t *testing.T, options ...option) *site {
	t.Helper()
	if at := runningEnvoy(t); at != nil {
		return at.site(t, options...)
	}
	s, p := prepare(t, options...)
	s.start(p)
	return s
}

// start starts Envoy with a plan's configuration.
func (s *site) start(p *plan) {
	s.t.Helper()
	envoy, err := testbed.StartEnvoy(s.t.Context(), s.dir, p.config, variant.Options(p.options))
	if err != nil {
		s.t.Fatal(err)
	}
	s.use(envoy)
}

// use makes an Envoy the site's. It ends with the test.
func (s *site) use(envoy *testbed.Envoy) {
	s.envoy = envoy
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("envoy's log ends:\n%s", testbed.Tail(envoy.Log(), 60))
		}
		envoy.Kill()
	})
}

// in returns the site for a subtest, so that the subtest fails or is skipped, and not its parent.
func (s *site) in(t *testing.T) *site {
	part := *s
	part.t = t
	return &part
}

// restart starts another Envoy with the site's configuration.
func (s *site) restart(options testbed.Options) {
	s.t.Helper()
	envoy, err := testbed.Start(s.t.Context(), variant, s.t.TempDir(), s.config, options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.use(envoy)
}

func newPlan(t *testing.T, options ...option) *plan {
	t.Helper()
	p := &plan{addresses: []string{"127.0.0.1:0"}, config: readConfig(t, "envoy/envoy.yaml")}
	for _, option := range options {
		option(p)
	}
	return p
}

// prepare starts the backends and makes the configuration, and does not start Envoy. The plan's configuration is the one for Envoy.
func prepare(t *testing.T, options ...option) (*site, *plan) {
	t.Helper()
	skipWithRunningEnvoy(t, "it starts an Envoy")
	p := newPlan(t, options...)
	bed, err := testbed.Prepare(t.Context(), t.TempDir(), testbed.Setup{
		Variant: variant, Config: p.config, Backends: p.addresses, BackendFlags: p.flags, CheckEvery: "0.1s",
	})
	for _, backend := range bed.Backends {
		t.Cleanup(backend.Kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: bed.Dir, cert: bed.Certificate, backends: bed.Backends, config: p.config}
	for _, cluster := range s.config.StaticResources.Clusters {
		for _, check := range cluster.HealthChecks { // a host that a busy machine makes slow is not unhealthy
			check.Timeout = durationpb.New(settle)
		}
	}
	if p.eds {
		s.takeHosts()
	}
	for _, change := range p.changes {
		change(s.config)
	}
	if p.rds {
		s.takeRoutes()
	}
	if p.second != "" {
		second := s.config.CopyListener("second")
		testbed.SetStruct(s.config.GateOf(second), p.second)
		if p.matcher != nil {
			second.Metadata = testbed.StatsMatcherMetadata(p.matcher)
		}
		s.config.AddListener(second)
	}
	p.config = s.config.For(variant)
	if p.lds {
		s.writeListener(p.config.Listener())
		s.takeFromFile(p.config, "lds")
	}
	if p.cds {
		s.writeClusters(p.config.StaticResources.Clusters...)
		s.takeFromFile(p.config, "cds")
	}
	return s, p
}

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

// at returns the site seen through another listener.
func (s *site) at(listener string) *site {
	s.t.Helper()
	addresses, err := s.envoy.Listeners()
	if err != nil || addresses[listener] == "" {
		s.t.Fatalf("no listener %s: %v, %v", listener, addresses, err)
	}
	other, envoy := *s, *s.envoy
	envoy.Ingress = addresses[listener]
	other.envoy = &envoy
	return &other
}

// answer is a reply to a probe.
type answer struct {
	status   int
	protocol string
	header   http.Header
	trailer  http.Header
	body     string
}

// client makes an HTTP client of one protocol, "http/1.1" or "h2".
func (s *site) client(protocol string) *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.cert.Pool, NextProtos: []string{protocol}},
		// Many balancers make a connection per probe; here probes share connections, so that there can be many of them.
		MaxIdleConnsPerHost: 100,
		Protocols:           &http.Protocols{},
	}
	transport.Protocols.SetHTTP1(protocol == "http/1.1")
	transport.Protocols.SetHTTP2(protocol == "h2")
	transport.Protocols.SetUnencryptedHTTP2(protocol == "h2" && s.isPlain())
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

var protocols = []string{"http/1.1", "h2"}

// url returns the URL of a path at the listener.
func (s *site) url(path string) string {
	if s.isPlain() {
		return "http://" + s.envoy.Ingress + path
	}
	return "https://" + s.envoy.Ingress + path
}

// do sends a request to the listener.
func (s *site) do(client *http.Client, method, path string, body io.Reader, headers ...string) (*answer, error) {
	request, err := http.NewRequest(method, s.url(path), body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	reply, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, err
	}
	return &answer{reply.StatusCode, reply.Proto, reply.Header, reply.Trailer, string(text)}, nil
}

func (s *site) mustDo(client *http.Client, method, path string, body io.Reader, headers ...string) *answer {
	s.t.Helper()
	reply, err := s.do(client, method, path, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

// probe sends a probe as a load balancer does.
func (s *site) probe(client *http.Client) *answer {
	s.t.Helper()
	return s.mustDo(client, http.MethodGet, "/", nil)
}

// load is probes that several clients send while a test does something else.
type load struct {
	s *site
	*testbed.Load
}

// probeUntilStopped starts a load of so many clients, half of them over HTTP/2.
func (s *site) probeUntilStopped(clients int) *load {
	all := make([]*http.Client, clients)
	for i := range all {
		all[i] = s.client(protocols[i%2])
		all[i].Timeout = time.Minute // a probe of a load may be slow, but must be answered
	}
	l := &load{s, testbed.StartLoad(testbed.Pace{Clients: clients}, func(client int) string {
		reply, err := s.do(all[client], http.MethodGet, "/", nil)
		if err != nil {
			return err.Error()
		}
		return strconv.Itoa(reply.status)
	})}
	s.t.Cleanup(func() { _, _ = l.Stop() })
	return l
}

// answered returns how many probes were answered with a status so far.
func (l *load) answered(status int) int { return int(l.Answers()[strconv.Itoa(status)]) }

// awaitAnswers waits until the load has got n more answers with a status.
func (l *load) awaitAnswers(status, n int, atMost time.Duration) {
	l.s.t.Helper()
	before := l.answered(status)
	l.s.await(atMost, func() error {
		if got := l.answered(status) - before; got < n {
			return fmt.Errorf("%d probes were answered with %d, want %d", got, status, n)
		}
		return nil
	})
}

// end stops the load, and returns the answers by their status, and the errors of probes that were not answered.
func (l *load) end() (answers map[int]int, errs []string) {
	outcome, _ := l.Stop() // a load of our own requests has no error
	answers = map[int]int{}
	for answer, n := range outcome.Answers {
		if status, err := strconv.Atoi(answer); err == nil {
			answers[status] = int(n)
		} else {
			errs = append(errs, fmt.Sprintf("%d times: %s", n, answer))
		}
	}
	return answers, errs
}

// mustAllBe stops the load. Every answer must have the status, and there must be at least so many.
func (l *load) mustAllBe(status, atLeast int) {
	l.s.t.Helper()
	answers, errs := l.end()
	if len(errs) > 0 {
		l.s.t.Errorf("probes were not answered: %q", errs)
	}
	if len(answers) != 1 || answers[status] < atLeast {
		l.s.t.Errorf("the answers were %v, want only %d, at least %d times", answers, status, atLeast)
	}
}

// awaitProbe waits until the probe is answered with a status.
func (s *site) awaitProbe(client *http.Client, status int, atMost time.Duration) *answer {
	s.t.Helper()
	var last *answer
	s.await(atMost, func() error {
		last = s.probe(client)
		if last.status != status {
			return fmt.Errorf("the probe is answered with %d, want %d", last.status, status)
		}
		return nil
	})
	return last
}

func (s *site) await(atMost time.Duration, ready func() error) {
	s.t.Helper()
	if err := testbed.WaitFor(s.t.Context(), atMost, ready); err != nil {
		s.t.Fatal(err)
	}
}

// awaitHealthy waits until Envoy's own gauges of the cluster show these hosts. It awaits each host's own state first, because equal
// counts can hide hosts that have swapped places.
func (s *site) awaitHealthy(serving map[*testbed.Backend]bool) {
	s.t.Helper()
	healthy := uint64(0)
	want := map[string]string{}
	for backend, up := range serving {
		want[backend.Address] = "failed"
		if up {
			want[backend.Address] = "healthy"
			healthy++
		}
	}
	s.await(settle, func() error {
		hosts, err := s.envoy.Hosts("service")
		if err == nil && !maps.Equal(hosts, want) {
			err = fmt.Errorf("envoy has %v, want %v", hosts, want)
		}
		return err
	})
	s.awaitGauges("service", healthy, uint64(len(serving)))
}

func (s *site) awaitGauges(cluster string, healthy, total uint64) {
	s.t.Helper()
	s.await(settle, func() error {
		stats, err := s.envoy.Stats("cluster." + cluster + ".membership_")
		if err != nil {
			return err
		}
		h, n := stats["cluster."+cluster+".membership_healthy"], stats["cluster."+cluster+".membership_total"]
		if h != healthy || n != total {
			return fmt.Errorf("envoy counts %d healthy of %d, want %d of %d", h, n, healthy, total)
		}
		return nil
	})
}

// setServing makes the first n backends SERVING and the others not, and waits until Envoy has noticed.
func (s *site) setServing(n int) {
	s.t.Helper()
	serving := map[*testbed.Backend]bool{}
	for i, backend := range s.backends {
		if err := backend.SetServing(i < n); err != nil {
			s.t.Fatal(err)
		}
		serving[backend] = i < n
	}
	s.awaitHealthy(serving)
}

func (s *site) post(path string) string {
	s.t.Helper()
	reply, err := s.envoy.Post(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

func (s *site) residentMiB() float64 {
	s.t.Helper()
	held, err := s.envoy.ResidentMiB()
	if err != nil {
		s.t.Fatal(err)
	}
	return held
}

// needs skips a test if the variant lacks an ability. A part of a test that needs one is a subtest.
func needs(t *testing.T, abilities ...testbed.Ability) {
	t.Helper()
	for _, ability := range abilities {
		if err := variant.Can(ability); err != nil {
			t.Skip(err)
		}
	}
}

// hang makes Envoy's main thread hang for some seconds, and returns a channel that gets the result at the end.
func (s *site) hang(seconds int) <-chan error {
	s.t.Helper()
	needs(s.t, testbed.HangMainThread)
	return variant.Hang(s.envoy, seconds)
}

func (s *site) loseMetrics(lost bool) {
	s.t.Helper()
	if err := variant.LoseMetrics(s.envoy, lost); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) stats(prefix string) map[string]uint64 {
	s.t.Helper()
	stats, err := s.envoy.Stats(prefix)
	if err != nil {
		s.t.Fatal(err)
	}
	return stats
}

// stat returns the value of one stat, 0 if Envoy does not have it.
func (s *site) stat(name string) uint64 {
	s.t.Helper()
	return s.stats(name)[name]
}

// awaitLog waits until Envoy has written a text.
func (s *site) awaitLog(text string, atMost time.Duration) {
	s.t.Helper()
	s.await(atMost, func() error {
		if !strings.Contains(s.envoy.Log(), text) {
			return fmt.Errorf("envoy has not logged %q", text)
		}
		return nil
	})
}

// awaitLines waits until Envoy's log has a text so many times, because a line may follow the answer that it reports. More are an error.
func (s *site) awaitLines(text string, lines int, atMost time.Duration) {
	s.t.Helper()
	s.await(atMost, func() error {
		if n := strings.Count(s.envoy.Log(), text); n < lines {
			return fmt.Errorf("%d lines of envoy's log have %q, want %d", n, text, lines)
		}
		return nil
	})
	s.stats("server.live") // when the main thread answers, it has written all that it had begun to write
	if n := strings.Count(s.envoy.Log(), text); n > lines {
		s.t.Errorf("%d lines of envoy's log have %q, want %d", n, text, lines)
	}
}

// dialGRPC connects to the listener as a gRPC client does.
func (s *site) dialGRPC(options ...grpc.DialOption) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.envoy.Ingress, append(options,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.cert.Pool, ServerName: "localhost"})))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// dialTLS opens a connection for bytes that an HTTP client does not send.
func (s *site) dialTLS(ctx context.Context, protocol string) net.Conn {
	s.t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: s.cert.Pool, ServerName: "localhost", NextProtos: []string{protocol}}}
	conn, err := dialer.DialContext(ctx, "tcp", s.envoy.Ingress)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// unusedAddress returns an address on which nothing listens.
func unusedAddress(t *testing.T) *net.TCPAddr {
	t.Helper()
	address, err := testbed.UnusedAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// readConfig reads a configuration of the checkout.
func readConfig(t *testing.T, path string) *testbed.Bootstrap {
	t.Helper()
	config, err := testbed.ReadBootstrap(path)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
