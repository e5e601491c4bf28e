package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"healthgate/e2e/testbed"
)

// skipUnlessModule skips what only the dynamic module can show.
func skipUnlessModule(t *testing.T) {
	t.Helper()
	if variant.Name() != "module" {
		t.Skip("it is about the dynamic module")
	}
	skipWherePointed(t, "it needs an Envoy of its own")
}

// refused starts an Envoy that can't start, and returns its log.
func refused(t *testing.T, change func(*testbed.Config), options ...option) string {
	t.Helper()
	s, p := prepare(t, options...)
	change(p.config)
	envoy, err := testbed.LaunchEnvoy(s.dir, p.config, variant.Options(p.options))
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
	skipUnlessModule(t)
	for name, test := range map[string]struct {
		change func(*testbed.Config)
		want   string
	}{
		"none": {func(c *testbed.Config) { c.Delete("bootstrap_extensions") },
			"healthgate: the bootstrap extension is missing, without which the module can't see the clusters; add to the bootstrap: bootstrap_extensions: [{name: healthgate"},
		"two": {func(c *testbed.Config) {
			one := c.Get("bootstrap_extensions").([]any)
			c.Set("bootstrap_extensions", append(one, one...))
		}, "healthgate: bootstrap_extensions has this module twice; leave one of them out"},
		"one with a configuration": {func(c *testbed.Config) {
			c.Set("bootstrap_extensions.0.typed_config.extension_config", map[string]any{
				"@type": "type.googleapis.com/google.protobuf.Struct", "value": map[string]any{"clusters": []any{"service"}}})
		}, "healthgate: bootstrap_extensions: extension_config is given, but there is nothing to configure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if log := refused(t, test.change); !strings.Contains(log, test.want) {
				t.Errorf("the log is without %q:\n%s", test.want, testbed.Tail(log, 20))
			}
		})
	}
}

// The main thread hangs: nobody knows any more how the clusters are, and that is what a probe is told.
func TestMainThreadThatHangsIsNoticed(t *testing.T) {
	t.Parallel()
	needs(t, testbed.Hanging, testbed.Liveness)
	s := newSite(t, withRoute("/live", `{"path": "/live", "clusters": [], "drain": "ignore"}`))
	client := s.client("h2")
	s.setServing(1)
	s.stats("healthgate.") // after a look
	for _, path := range []string{"/", "/live"} {
		expect(t, path, s.mustDo(client, "GET", path, nil), 200, "ok\n", nil)
	}
	s.post("/healthcheck/fail")
	expect(t, "a drain", s.mustDo(client, "GET", "/live", nil), 200, "ok\n", nil)
	s.post("/healthcheck/ok")
	began := time.Now()
	hung := s.hang(12)
	for _, path := range []string{"/", "/live"} {
		s.await(settle, func() error {
			if reply := s.mustDo(client, "GET", path, nil); reply.status != 503 {
				return fmt.Errorf("%s is answered with %d", path, reply.status)
			}
			return nil
		})
	}
	took := time.Since(began)
	t.Logf("it was noticed after %v", took)
	if took < 4*time.Second {
		t.Errorf("it was noticed after %v: a busy main thread is no hanging one", took)
	}
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/live"} {
		s.await(settle, func() error {
			if reply := s.mustDo(client, "GET", path, nil); reply.status != 200 {
				return fmt.Errorf("%s is answered with %d", path, reply.status)
			}
			return nil
		})
	}
	s.awaitLines("healthgate: Envoy's main thread hangs", 1, settle)
}

// From the first connection that is taken on, a start never answers what is not so.
func TestStartHasNoGap(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s, p := prepare(t)
	if err := s.backends[0].SetServing(true); err != nil {
		t.Fatal(err)
	}
	envoy, err := testbed.StartEnvoy(t.Context(), s.dir, p.config, variant.Options(p.options))
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
	skipUnlessModule(t)
	for turn := range times(3, 50) {
		t.Run(fmt.Sprint("turn ", turn), endWhileOldChainsDrain)
	}
}

func endWhileOldChainsDrain(t *testing.T) {
	s := newSite(t, withLDS(), withHealthService(), withConfig(func(c *testbed.Config) { c.Set(testbed.Listener+".drain_type", "DEFAULT") }))
	s.setServing(1)
	s.awaitProbe(s.client("h2"), 200, settle)
	crowd := s.newCrowd(20, s.dialGRPC())
	crowd.await(serving, 1)
	load := s.probeUntilStopped(4)
	for i := range 3 {
		if !s.reload(fmt.Sprintf(`{"clusters": ["service"], "stat_prefix": "turn%d"}`, i)) {
			t.Fatal("envoy refused a good configuration")
		}
	}
	if err := s.envoy.Stop(); err != nil {
		t.Error(err)
	}
	load.end()
	crowd.mustEnd()
	if log := s.envoy.Log(); strings.Contains(log, "Caught ") {
		t.Errorf("envoy has crashed:\n%s", testbed.Tail(log, 40))
	}
}

// envoy/module.yaml does what it says: the probe and grpc.health.v1.Health are answered, traffic passes, and the checks that pass are
// not logged.
func TestStockReferenceConfiguration(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newSite(t, func(p *plan) {
		config, err := testbed.LoadConfig("envoy/module.yaml")
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
	// The answers that have no details are told by their paths and gRPC's status: a Watch that Envoy ends has another than 0.
	watch, err := s.health().Watch(t.Context(), asked("router.Router"))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := watch.Recv(); err != nil || reply.Status != notServing {
		t.Errorf("Watch: got %v, %v", reply, err)
	}
	if stats := s.stats("healthgate.default.grpc_"); stats["healthgate.default.grpc_check"] != 3 || stats["healthgate.default.grpc_watch"] != 1 {
		t.Errorf("the calls are counted as %v", stats)
	}
	if err := s.envoy.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the Watch ends with %v", err)
	}
	if log := s.envoy.Log(); !strings.Contains(log, `"path":"/grpc.health.v1.Health/Watch"`) || !strings.Contains(log, `"grpc_status":"Unavailable"`) {
		t.Errorf("the end of the Watch is not logged:\n%s", testbed.Tail(log, 10))
	}
	if log := s.envoy.Log(); strings.Contains(log, `"details":"healthgate_ok"`) || strings.Count(log, `"path":"/grpc.health.v1.Health/Check"`) != 1 {
		t.Errorf("checks that pass are logged:\n%s", testbed.Tail(log, 10))
	}
}
