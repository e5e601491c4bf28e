package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// skipUnlessStock skips what only the stock door can show.
func skipUnlessStock(t *testing.T) {
	t.Helper()
	if theDoor.Name() != "stock" {
		t.Skip("it is about the stock door")
	}
	skipWherePointed(t, "it needs an Envoy of its own")
}

// refused starts an Envoy that can't start, and returns its log.
func refused(t *testing.T, change func(*bed.Config), options ...option) string {
	t.Helper()
	s, p := prepare(t, options...)
	change(p.config)
	envoy, err := bed.LaunchEnvoy(s.dir, p.config, theDoor.Options(p.options))
	if err != nil {
		t.Fatal(err)
	}
	defer envoy.Kill()
	if err := envoy.Wait(settle); err == nil {
		t.Error("Envoy takes it")
	}
	return envoy.Log()
}

func TestModuleNeedsItsBootstrapExtensionOnce(t *testing.T) {
	t.Parallel()
	skipUnlessStock(t)
	for name, test := range map[string]struct {
		change func(*bed.Config)
		want   string
	}{
		"none": {func(c *bed.Config) { c.Delete("bootstrap_extensions") },
			"healthgate: the bootstrap extension is missing, without which the module can't see the clusters; add to the bootstrap: bootstrap_extensions: [{name: healthgate"},
		"two": {func(c *bed.Config) {
			one := c.Get("bootstrap_extensions").([]any)
			c.Set("bootstrap_extensions", append(one, one...))
		}, "healthgate: bootstrap_extensions has this module twice; leave one of them out"},
		"one with a configuration": {func(c *bed.Config) {
			c.Set("bootstrap_extensions.0.typed_config.extension_config", map[string]any{
				"@type": "type.googleapis.com/google.protobuf.Struct", "value": map[string]any{"clusters": []any{"service"}}})
		}, "healthgate: bootstrap_extensions: extension_config is given, but there is nothing to configure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if log := refused(t, test.change); !strings.Contains(log, test.want) {
				t.Errorf("the log is without %q:\n%s", test.want, bed.Tail(log, 20))
			}
		})
	}
}

// The main thread hangs: nobody knows any more how the clusters are, and that is what a probe is told.
func TestMainThreadThatHangsIsNoticed(t *testing.T) {
	t.Parallel()
	needs(t, door.Hanging, door.Liveness)
	s := newSite(t, withRoute("/live", `{"path": "/live", "clusters": [], "drain": "ignore"}`))
	client := s.client("h2")
	s.setServing(1)
	time.Sleep(200 * time.Millisecond)
	for _, path := range []string{"/", "/live"} {
		expect(t, path, s.mustDo(client, "GET", path, nil), 200, "ok\n", nil)
	}
	s.post("/healthcheck/fail")
	expect(t, "a drain", s.mustDo(client, "GET", "/live", nil), 200, "ok\n", nil)
	s.post("/healthcheck/ok")
	began := time.Now()
	hung := s.hang(8)
	for _, path := range []string{"/", "/live"} {
		s.await(7*time.Second, func() error {
			if reply := s.mustDo(client, "GET", path, nil); reply.status != 503 {
				return fmt.Errorf("%s is answered with %d", path, reply.status)
			}
			return nil
		})
	}
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("it was noticed after %v: a busy main thread is no hanging one", took)
	}
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/live"} {
		s.await(2*time.Second, func() error {
			if reply := s.mustDo(client, "GET", path, nil); reply.status != 200 {
				return fmt.Errorf("%s is answered with %d", path, reply.status)
			}
			return nil
		})
	}
	s.awaitLines("healthgate: Envoy's main thread has not looked at the clusters for too long", 1, settle)
}

// A removed cluster's gauges stay for as long as one of its streams lasts; its removal is told.
func TestClusterThatIsRemovedUnderALiveStreamIsUnknown(t *testing.T) {
	t.Parallel()
	skipUnlessStock(t)
	var clusters []any
	s := newSite(t, withCDS(), withConfig(func(c *bed.Config) {
		c.Set(door.PluginConfig+".clusters.0.min_healthy", 0)
		clusters = c.Part("static_resources.clusters").Get("").([]any)
		c.Set(routeConfiguration+".validate_clusters", false)
	}))
	client := s.client("h2")
	s.setServing(1)
	s.awaitProbe(client, 200, settle)
	s.writeClusters()
	s.awaitProbe(client, 503, settle)
	if got := s.stats("healthgate.default.")["healthgate.default.failed_cluster_unknown"]; got == 0 {
		t.Error("the cluster is not known to be gone")
	}
	s.writeClusters(clusters...)
	s.awaitProbe(client, 200, settle)
}

// From the first connection that is taken on, a start never answers what is not so.
func TestStartHasNoGap(t *testing.T) {
	t.Parallel()
	skipUnlessStock(t)
	s, p := prepare(t)
	if err := s.backends[0].SetServing(true); err != nil {
		t.Fatal(err)
	}
	envoy, err := bed.StartEnvoy(t.Context(), s.dir, p.config, theDoor.Options(p.options))
	if err != nil {
		t.Fatal(err)
	}
	s.use(envoy)
	if reply := s.probe(s.client("http/1.1")); reply.status != 200 {
		t.Errorf("the first probe is answered with %d", reply.status)
	}
}

// Old filter chains drain, watchers are there, probes come, and Envoy is told to end: it ends in order, each time.
func TestEnvoyEndsInOrderWhileOldChainsDrainUnderLoad(t *testing.T) {
	t.Parallel()
	skipUnlessStock(t)
	for turn := range 5 {
		s := newSite(t, withLDS(), withHealthService(), withConfig(func(c *bed.Config) { c.Set(bed.Listener+".drain_type", "DEFAULT") }))
		s.setServing(1)
		s.awaitProbe(s.client("h2"), 200, settle)
		health := s.health()
		for range 20 {
			if stream, err := health.Watch(t.Context(), asked("")); err != nil {
				t.Fatal(err)
			} else if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		load := s.probeUntilStopped(4)
		for i := range 3 {
			s.reload(fmt.Sprintf(`{"clusters": ["service"], "stat_prefix": "turn%d"}`, i))
		}
		if err := s.envoy.Stop(); err != nil {
			t.Fatalf("turn %d: %v", turn, err)
		}
		load.end()
		if log := s.envoy.Log(); strings.Contains(log, "Caught Segmentation fault") || strings.Contains(log, "Caught Aborted") {
			t.Fatalf("turn %d: %s", turn, bed.Tail(log, 40))
		}
	}
}

// envoy/stock.yaml does what it says: the probe and grpc.health.v1.Health are answered, traffic passes, and the checks that pass are
// not logged.
func TestStockReferenceConfiguration(t *testing.T) {
	t.Parallel()
	skipUnlessStock(t)
	s := newSite(t, func(p *plan) {
		config, err := bed.LoadConfig("envoy/stock.yaml")
		if err != nil {
			t.Fatal(err)
		}
		p.config, p.gated = config, false
	})
	s.setServing(1)
	client := s.client("h2")
	expect(t, "the probe", s.probe(client), 200, "ok\n", nil)
	if reply, err := s.health().Check(t.Context(), asked("router.Router")); err != nil || reply.Status != serving {
		t.Errorf("Check: got %v, %v", reply, err)
	}
	s.setServing(0)
	expect(t, "the probe", s.probe(client), 503, "unavailable\n", nil)
	if reply, err := s.health().Check(t.Context(), asked("")); err != nil || reply.Status != notServing {
		t.Errorf("Check: got %v, %v", reply, err)
	}
	if _, err := s.health().Check(t.Context(), asked("nobody")); status.Code(err) != codes.NotFound {
		t.Errorf("Check of nobody: got %v", err)
	}
	s.awaitLog(`"details":"healthgate_grpc_not_found"`, settle)
	s.awaitLog(`"details":"healthgate_cluster_unhealthy"`, settle)
	if log := s.envoy.Log(); strings.Contains(log, `"details":"healthgate_ok"`) || strings.Count(log, `"path":"/grpc.health.v1.Health/Check"`) != 1 {
		t.Errorf("checks that pass are logged:\n%s", bed.Tail(log, 10))
	}
}
