package suite

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"healthgate/e2e/testbed"
)

// answers are the statuses of a path with both hosts healthy, with one, with none, and during a drain with both.
type answers struct{ both, one, none, drain int }

var (
	plain = answers{200, 200, 503, 503}
	two   = answers{200, 503, 503, 503} // a gate that needs two hosts
)

// examples has the answers of each example by path.
var examples = map[string]map[string]answers{
	"admin.yaml":          {"/": plain},
	"any-of-several.yaml": {"/": plain},
	"degraded.yaml":       {"/": plain},
	"details.yaml":        {"/": plain},
	"drain-ignore.yaml":   {"/": {200, 200, 503, 200}},
	"excluded.yaml":       {"/": plain},
	"grpc-services.yaml":  {"/": plain},
	"hold.yaml":           {"/": plain},
	"kubelet.yaml":        {"/": plain, "/readyz": {200, 200, 503, 200}},
	"mark-probes.yaml":    {"/": plain},
	"percent.yaml":        {"/": two},
	"require.yaml":        {"/": plain},
	"response-204.yaml":   {"/": {204, 204, 429, 429}},
	"route-override.yaml": {"/": plain, "/spare": two},
	"several-gates.yaml":  {"/": plain, "/cart": plain, "/checkout": plain},
	"stale-after.yaml":    {"/": plain},
}

// Each example gives the documented answers, started as it is except for addresses and intervals.
func TestExamplesGiveTheirDocumentedAnswers(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it changes the configuration")
	folder := "envoy/examples"
	if variant.Name() == "module" {
		folder += "/module"
	}
	files, err := filepath.Glob(filepath.Join(testbed.Root(), folder, "*.yaml"))
	if err != nil || len(files) < len(examples)-1 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if examples[name] == nil {
				t.Fatal("this test does not know its answers")
			}
			s := startExample(t, folder+"/"+name)
			for _, step := range []struct {
				serving int
				drain   string
				want    func(answers) int
			}{
				{2, "ok", func(a answers) int { return a.both }},
				{1, "ok", func(a answers) int { return a.one }},
				{0, "ok", func(a answers) int { return a.none }},
				{2, "fail", func(a answers) int { return a.drain }},
				{2, "ok", func(a answers) int { return a.both }},
			} {
				for i, backend := range s.backends {
					if err := backend.SetServing(i < step.serving); err != nil {
						t.Fatal(err)
					}
				}
				s.post("/healthcheck/" + step.drain)
				for path, want := range examples[name] {
					s.awaitPath(path, step.want(want))
				}
			}
			checkExample(s, name)
		})
	}
}

// startExample starts an example in front of two hosts, which all of its clusters have.
func startExample(t *testing.T, path string) *site {
	t.Helper()
	config := readConfig(t, path)
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
	t := s.t
	t.Helper()
	switch name {
	case "admin.yaml", "details.yaml":
		var report struct {
			Status string
			Checks map[string]any
		}
		reply := s.mustDo(s.client("http/1.1"), "GET", "/", nil, "accept", "application/json")
		if err := json.Unmarshal([]byte(reply.body), &report); err != nil || report.Status != "pass" || len(report.Checks) == 0 {
			t.Errorf("%v: the report is %s", err, reply.body)
		}
	case "grpc-services.yaml":
		if reply, err := s.dialHealth().Check(t.Context(), asked("router.Router")); err != nil || reply.Status != serving {
			t.Errorf("Check: got %v, %v", reply, err)
		}
	case "route-override.yaml", "several-gates.yaml", "kubelet.yaml": // each gate has its own metrics
		prefixes := map[string][]string{"route-override.yaml": {"default", "spare"}, "several-gates.yaml": {"default", "cart", "checkout"},
			"kubelet.yaml": {"balancer", "kubelet"}}[name]
		s.await(settle, func() error { // a reply may be counted after it is sent
			stats := s.stats("healthgate.")
			for _, prefix := range prefixes {
				if stats["healthgate."+prefix+".ok"] == 0 {
					return fmt.Errorf("healthgate.%s.ok is not among %v", prefix, slices.Sorted(maps.Keys(stats)))
				}
			}
			return nil
		})
	}
}
