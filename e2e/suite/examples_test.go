package suite

import (
	"cmp"
	"fmt"
	"testing"

	"healthgate/e2e/testbed"
)

// answers are the statuses of a path: with two, one and no healthy host in each cluster, and while Envoy drains with two.
type answers struct{ both, one, none, drain int }

var (
	oneHost  = answers{200, 200, 503, 503}
	twoHosts = answers{200, 503, 503, 503}
)

// exampleAnswers are the answers of each path, by example. "" is the reference configuration itself.
var exampleAnswers = map[string]map[string]answers{
	"":               {"/": oneHost},
	"admin":          {"/": oneHost},
	"any-of-several": {"/": oneHost},
	"degraded":       {"/": oneHost},
	"details":        {"/": oneHost},
	"drain-ignore":   {"/": {200, 200, 503, 200}},
	"excluded":       {"/": oneHost},
	"hold":           {"/": oneHost},
	"kubelet":        {"/": oneHost, "/readyz": {200, 200, 503, 200}},
	"mark-probes":    {"/": oneHost},
	"percent":        {"/": twoHosts},
	"require":        {"/": oneHost},
	"response":       {"/": {204, 204, 429, 429}},
	"route-override": {"/": oneHost, "/spare": twoHosts},
	"several-gates":  {"/": oneHost, "/cart": oneHost, "/checkout": oneHost},
	"stale-after":    {"/": oneHost},
}

// Each example gives the documented answers, started as it is except for addresses and intervals.
func TestExamplesGiveTheirDocumentedAnswers(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	names, err := testbed.Examples()
	if err != nil || len(names) != len(exampleAnswers)-1 {
		t.Fatalf("found %v, %v; want %d examples", names, err, len(exampleAnswers)-1)
	}
	for _, name := range append(names, "") {
		t.Run(cmp.Or(name, "reference"), func(t *testing.T) {
			t.Parallel()
			if exampleAnswers[name] == nil {
				t.Fatal("exampleAnswers does not have this example")
			}
			s := startExample(t, name)
			for _, step := range []struct {
				serving int
				drain   string
				status  func(answers) int
			}{
				{2, "ok", func(a answers) int { return a.both }},
				{1, "ok", func(a answers) int { return a.one }},
				{0, "ok", func(a answers) int { return a.none }},
				{2, "fail", func(a answers) int { return a.drain }},
				{2, "ok", func(a answers) int { return a.both }},
			} {
				s.serve(step.serving)
				s.post("/healthcheck/" + step.drain)
				for path, want := range exampleAnswers[name] {
					s.awaitPath(path, step.status(want))
				}
			}
			checkExample(s, name)
		})
	}
}

// readExample returns an example in the variant's form; "" is the reference configuration.
func readExample(t *testing.T, name string) *testbed.Bootstrap {
	t.Helper()
	config, err := testbed.ReadExample(name, variant.Name())
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// startExample starts an example without TLS in front of two hosts, which all of its clusters have.
func startExample(t *testing.T, name string) *site {
	t.Helper()
	config := readExample(t, name)
	for _, listener := range config.StaticResources.Listeners {
		listener.FilterChains[0].TransportSocket = nil
	}
	options := []option{backends(2), func(p *plan) { p.config = config }}
	if config.Admin.Address.GetPipe() != nil {
		options = append(options, adminOnASocket(t), withConfig(func(c *testbed.Bootstrap) {
			c.SetGateKey("admin", map[string]any{"address": "unix://" + c.Admin.Address.GetPipe().Path})
		}))
	}
	return newSite(t, append(options, withConfig(func(c *testbed.Bootstrap) {
		if c.Gate().Fields["hold"] != nil {
			c.SetGateKey("hold", map[string]any{"healthy_after": "0.5s", "unhealthy_after": "0.5s"})
		}
		hosts := c.Cluster().LoadAssignment.Endpoints
		for _, cluster := range c.StaticResources.Clusters {
			cluster.LoadAssignment.Endpoints = hosts
			testbed.CheckEvery(cluster, "0.1s")
		}
	}))...)
}

// checkExample tests more than the statuses of some examples, with both hosts healthy.
func checkExample(s *site, name string) {
	s.t.Helper()
	if name == "admin" || name == "details" {
		if reply, got := s.report("/"); got.Status != "pass" || len(got.Checks) == 0 {
			s.t.Errorf("the report is %s", reply.body)
		}
	}
	prefixes := map[string][]string{"route-override": {"default", "spare"}, "several-gates": {"default", "cart", "checkout"},
		"kubelet": {"balancer", "kubelet"}}
	for _, prefix := range prefixes[name] { // each gate has its own metrics; a reply may be counted after it is sent
		s.await(settle, func() error {
			if s.stat("healthgate."+prefix+".ok") == 0 {
				return fmt.Errorf("healthgate.%s.ok is not there", prefix)
			}
			return nil
		})
	}
}
