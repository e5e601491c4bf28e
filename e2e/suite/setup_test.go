// Package suite is the tests in a real Envoy, run once for each way into it: go test ./suite -variant=plugin.
package suite

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"healthgate/e2e/testbed"
)

var variantName = flag.String("variant", "plugin", "the `way` into Envoy that the suite takes")

// variant is the way into Envoy that all tests take.
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

// settle bounds every wait for Envoy to notice something. Health checks need at most three; they come every 0.1s here, and
// every 5s where the suite is pointed at an Envoy.
var settle = 20 * time.Second

// site is an Envoy with the reference configuration in front of backends, as a user has it.
type site struct {
	t        *testing.T
	dir      string
	envoy    *testbed.Envoy
	cert     *testbed.Certificate
	backends []*testbed.Backend
	config   *testbed.Config // what Envoy was started with, as it is written for the variant
	routes   *testbed.Config // with withRDS, as they were at the start
}

// option changes what a site is made of, before it is started.
type option func(*plan)

type plan struct {
	addresses []string // of the backends to start
	flags     []string // of each backend
	config    *testbed.Config
	gated     bool   // the configuration has filters of Healthgate's
	alone     string // why the site must be the test's own
	options   testbed.Options
	second    any            // the configuration of the plugin in a second listener, where there is one
	hidden    map[string]any // the stats matcher of that listener's own
	// What Envoy takes from a file.
	lds, rds, cds, eds bool
	configured         []func(*plan, []string) // run last, with the addresses of the backends
}

// backends starts so many backends.
func backends(n int) option {
	return func(p *plan) { p.addresses = slices.Repeat([]string{"127.0.0.1:0"}, n) }
}

// backendsAt starts a backend at each address.
func backendsAt(addresses ...string) option { return func(p *plan) { p.addresses = addresses } }

// withConfig changes the configuration as it is written.
func withConfig(change func(*testbed.Config)) option {
	return func(p *plan) { p.configured = append(p.configured, func(p *plan, _ []string) { change(p.config) }) }
}

// withPlugin replaces the plugin's configuration.
func withPlugin(text string) option {
	return withConfig(func(c *testbed.Config) { c.Set(testbed.PluginConfig, parse(text)) })
}

// onEveryRoute enables the filter for all traffic, which the reference configuration does not.
func onEveryRoute() option {
	return withConfig(func(c *testbed.Config) { c.Delete(testbed.Healthgate + ".disabled") })
}

func withEnv(variables ...string) option { return func(p *plan) { p.options.Env = variables } }

// alone says that the test does something to its site that others could not go on with.
func alone(why string) option { return func(p *plan) { p.alone = why } }

// withLDS, withRDS and withCDS have Envoy take its listener, its routes or its clusters from a file that a test can
// change.
func withLDS() option { return func(p *plan) { p.lds = true } }
func withRDS() option { return func(p *plan) { p.rds = true } }
func withCDS() option { return func(p *plan) { p.cds = true } }

func parse(text string) any {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		panic(err)
	}
	return value
}

// newSite starts a site; everything in it ends with the test.
func newSite(t *testing.T, options ...option) *site {
	t.Helper()
	if at := pointed(t); at != nil {
		return at.site(t, options...)
	}
	s, p := prepare(t, options...)
	envoy, err := testbed.StartEnvoy(t.Context(), s.dir, p.config, variant.Options(p.options))
	if err != nil {
		t.Fatal(err)
	}
	s.use(envoy)
	return s
}

// use has the site be that of an Envoy, which ends with the test.
func (s *site) use(envoy *testbed.Envoy) {
	s.envoy = envoy
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("envoy's log ends:\n%s", testbed.Tail(envoy.Log(), 60))
		}
		envoy.Kill()
	})
}

// in is the site for a subtest: what fails or is skipped there is the subtest's.
func (s *site) in(t *testing.T) *site {
	part := *s
	part.t = t
	return &part
}

// restart starts another Envoy with the site's configuration.
func (s *site) restart(options testbed.Options) {
	s.t.Helper()
	envoy, err := testbed.Start(s.t.Context(), variant, s.t.TempDir(), s.config.Clone(), options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.use(envoy)
}

func newPlan(t *testing.T, options ...option) *plan {
	t.Helper()
	p := &plan{addresses: []string{"127.0.0.1:0"}, config: referenceConfig(t), gated: true}
	for _, option := range options {
		option(p)
	}
	return p
}

// prepare starts the backends and makes the configuration, without an Envoy.
func prepare(t *testing.T, options ...option) (*site, *plan) {
	t.Helper()
	skipWherePointed(t, "it needs an Envoy of its own")
	p := newPlan(t, options...)
	config := p.config
	s := &site{t: t, dir: t.TempDir()}
	var err error
	if s.cert, err = testbed.NewCertificate(s.dir); err != nil {
		t.Fatal(err)
	}
	addresses := s.startBackends(p)
	config.UseCertificate(s.cert)
	config.Listen(0, 0)
	if p.eds {
		s.takeHosts(config)
	} else {
		config.CheckEvery("0.1s")
		config.SetEndpoints(addresses...)
	}
	for _, change := range p.configured {
		change(p, addresses)
	}
	if p.rds {
		s.takeRoutes(config)
	}
	if p.second != nil {
		second := config.Part(testbed.Listener)
		second.Set("name", "second")
		second.Set("filter_chains.0.filters.0.typed_config.http_filters.0."+testbed.FilterConfig, p.second)
		if p.hidden != nil {
			second.Set("metadata", map[string]any{"typed_filter_metadata": map[string]any{"envoy.stats_matcher": p.hidden}})
		}
		config.Set("static_resources.listeners.1", second.Get(""))
	}
	s.config = config.Clone()
	if p.gated {
		variant.Prepare(config)
	}
	if p.lds {
		s.writeListener(config.Get(testbed.Listener))
		s.takeFromFile(config, "lds", "listeners")
	}
	if p.cds {
		s.writeClusters(config.Get("static_resources.clusters").([]any)...)
		s.takeFromFile(config, "cds", "clusters")
	}
	return s, p
}

// startBackends starts the backends of a plan, and returns where they are.
func (s *site) startBackends(p *plan) (addresses []string) {
	s.t.Helper()
	for _, address := range p.addresses {
		backend, err := testbed.StartBackend(s.t.Context(), address, p.flags...)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(backend.Kill)
		s.backends = append(s.backends, backend)
		addresses = append(addresses, backend.Address)
	}
	return addresses
}

// takeHosts has the first cluster take its hosts from a file, and check none.
func (s *site) takeHosts(config *testbed.Config) {
	s.t.Helper()
	s.writeHosts()
	config.Set(testbed.Cluster+".type", "EDS")
	for _, key := range []string{"load_assignment", "health_checks", "dns_lookup_family"} {
		config.Delete(testbed.Cluster + "." + key)
	}
	config.Set(testbed.Cluster+".eds_cluster_config", map[string]any{"eds_config": s.fromFile("eds")})
	config.Set("node", node)
}

// takeRoutes has the listener take its routes from a file.
func (s *site) takeRoutes(config *testbed.Config) {
	s.t.Helper()
	s.routes = config.Part(testbed.HCM + ".route_config")
	s.routes.Set("name", "routes")
	s.writeRoutes(s.routes.Clone())
	config.Delete(testbed.HCM + ".route_config")
	config.Set(testbed.HCM+".rds", map[string]any{"route_config_name": "routes", "config_source": s.fromFile("rds")})
	config.Set("node", node)
}

// node is Envoy's own name, which it must have where anything is not static.
var node = map[string]any{"id": "e2e", "cluster": "e2e"}

// takeFromFile has Envoy take what was static from the file in the site's folder.
func (s *site) takeFromFile(config *testbed.Config, kind, static string) {
	config.Delete("static_resources." + static)
	config.Set("node", node)
	if config.Get("dynamic_resources") == nil {
		config.Set("dynamic_resources", map[string]any{})
	}
	config.Set("dynamic_resources."+kind+"_config", s.fromFile(kind))
}

// fromFile is the configuration source of a kind of resource.
func (s *site) fromFile(kind string) map[string]any {
	return map[string]any{
		"resource_api_version": "V3",
		"path_config_source":   map[string]any{"path": s.resourceFile(kind)},
	}
}

func (s *site) resourceFile(kind string) string { return filepath.Join(s.dir, kind+".json") }

// writeListener and writeClusters make the resources those that Envoy is to have.
func (s *site) writeListener(listener any) {
	s.t.Helper()
	s.write("lds", "envoy.config.listener.v3.Listener", listener)
}

func (s *site) writeClusters(clusters ...any) {
	s.t.Helper()
	s.write("cds", "envoy.config.cluster.v3.Cluster", clusters...)
}

func (s *site) writeRoutes(routes *testbed.Config) {
	s.t.Helper()
	variant.Rewrite(routes)
	s.write("rds", "envoy.config.route.v3.RouteConfiguration", routes.Get(""))
}

// write replaces a file of resources as a file watcher sees it: by a move.
func (s *site) write(kind, message string, resources ...any) {
	s.t.Helper()
	for _, resource := range resources {
		resource.(map[string]any)["@type"] = "type.googleapis.com/" + message
	}
	text, err := json.Marshal(map[string]any{"resources": resources})
	if err != nil {
		s.t.Fatal(err)
	}
	next := s.resourceFile(kind) + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(next, s.resourceFile(kind)); err != nil {
		s.t.Fatal(err)
	}
}

// at is the site as those see it who come by another listener.
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
		// Each probe of a balancer's is a connection of its own as often as not; here they are shared, to be many.
		MaxIdleConnsPerHost: 100,
		Protocols:           &http.Protocols{},
	}
	transport.Protocols.SetHTTP1(protocol == "http/1.1")
	transport.Protocols.SetHTTP2(protocol == "h2")
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

var protocols = []string{"http/1.1", "h2"}

// do sends a request to the listener.
func (s *site) do(client *http.Client, method, path string, body io.Reader, headers ...string) (*answer, error) {
	request, err := http.NewRequest(method, "https://"+s.envoy.Ingress+path, body)
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

// probe asks as a balancer does.
func (s *site) probe(client *http.Client) *answer {
	s.t.Helper()
	return s.mustDo(client, http.MethodGet, "/", nil)
}

// load is probes that go on, one after the other from each of some clients, while a test does something else.
type load struct {
	s       *site
	stop    context.CancelFunc
	clients sync.WaitGroup
	mutex   sync.Mutex
	answers map[int]int // by status
	errors  []error     // what was no answer
}

// probeUntilStopped starts a load of so many clients, half of them over HTTP/2.
func (s *site) probeUntilStopped(clients int) *load {
	ctx, stop := context.WithCancel(s.t.Context())
	l := &load{s: s, stop: stop, answers: map[int]int{}}
	for i := range clients {
		client := s.client(protocols[i%2])
		client.Timeout = time.Minute // a probe of a load may be slow, but not without an answer
		l.clients.Go(func() {
			for ctx.Err() == nil {
				reply, err := s.do(client, http.MethodGet, "/", nil)
				l.mutex.Lock()
				if err == nil {
					l.answers[reply.status]++
				} else {
					l.errors = append(l.errors, err)
				}
				l.mutex.Unlock()
			}
		})
	}
	s.t.Cleanup(stop)
	return l
}

// sofar is how many probes were answered with a status by now.
func (l *load) sofar(status int) int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.answers[status]
}

// end stops the load, and returns the answers by their status and what was no answer.
func (l *load) end() (map[int]int, []error) {
	l.stop()
	l.clients.Wait()
	return l.answers, l.errors
}

// mustAllBe stops the load, which must have got no other answer than one status, and at least so many.
func (l *load) mustAllBe(status, atLeast int) {
	l.s.t.Helper()
	answers, errs := l.end()
	if len(errs) > 0 {
		l.s.t.Errorf("%d probes were not answered; the first: %v", len(errs), errs[0])
	}
	if len(answers) != 1 || answers[status] < atLeast {
		l.s.t.Errorf("the answers were %v, want %d alone and %d at least", answers, status, atLeast)
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

// awaitHealthy waits until Envoy's own gauge of the cluster says so many healthy hosts of so many. Each host's own state
// is awaited first, since equal counts can hide hosts that have swapped places.
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

// needs skips a test that asks of the variant what that can't do. What a test can do without stands in a subtest of its own.
func needs(t *testing.T, abilities ...testbed.Ability) {
	t.Helper()
	for _, ability := range abilities {
		if err := variant.Can(ability); err != nil {
			t.Skip(err)
		}
	}
}

// hang has Envoy's main thread hang for some seconds, and returns what tells its end.
func (s *site) hang(seconds int) <-chan error {
	s.t.Helper()
	needs(s.t, testbed.Hanging)
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

// awaitLines waits until as many lines of Envoy's log hold a text, since a line may come after the answer that it tells of.
// More than that are an error.
func (s *site) awaitLines(text string, lines int, atMost time.Duration) {
	s.t.Helper()
	s.await(atMost, func() error {
		if n := strings.Count(s.envoy.Log(), text); n < lines {
			return fmt.Errorf("%d lines of envoy's log have %q, want %d", n, text, lines)
		}
		return nil
	})
	s.stats("server.live") // what the main thread has begun to write is written when it answers
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

// dialTLS opens a connection for what an HTTP client won't send.
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

// unusedAddress is one on which nothing listens.
func unusedAddress(t *testing.T) *net.TCPAddr {
	t.Helper()
	address, err := testbed.UnusedAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// referenceConfig is the reference configuration.
func referenceConfig(t *testing.T) *testbed.Config {
	t.Helper()
	config, err := testbed.LoadConfig("envoy/envoy.yaml")
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
