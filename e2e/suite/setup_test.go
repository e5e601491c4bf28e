// Package suite tests Healthgate in a real Envoy, once for each variant: go test ./suite -args -variant=plugin.
package suite

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"healthgate/e2e/testbed"
)

var variantName = flag.String("variant", "plugin", "the `variant` of Healthgate to test: plugin or module")

// variant is the variant under test.
var variant testbed.Variant

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if variant, err = testbed.VariantNamed(*variantName); err != nil {
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

// newServingSite starts a site whose backends all serve.
func newServingSite(t *testing.T, options ...option) *site {
	t.Helper()
	s := newSite(t, options...)
	s.setServing(len(s.backends))
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
	envoy, err := testbed.StartVariant(s.t.Context(), variant, s.t.TempDir(), s.config, options)
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

// needs skips a test if the variant lacks an ability. A part of a test that needs one is a subtest.
func needs(t *testing.T, abilities ...testbed.Ability) {
	t.Helper()
	for _, ability := range abilities {
		if err := variant.Can(ability); err != nil {
			t.Skip(err)
		}
	}
}

// subtests makes the test parallel, and runs a parallel subtest with a separate Envoy for each row of a table.
func subtests[Row any](t *testing.T, rows map[string]Row, test func(t *testing.T, row Row)) {
	t.Helper()
	t.Parallel()
	skipWithRunningEnvoy(t, "it starts an Envoy for each row")
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, row)
		})
	}
}

func mustSucceed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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
