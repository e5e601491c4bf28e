package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	bootstrapmodulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/dynamic_modules/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/e2e/testbed"
)

// skipUnlessModule skips what only the dynamic module can show.
func skipUnlessModule(t *testing.T) {
	t.Helper()
	if variant.Name() != "module" {
		t.Skip("it is about the dynamic module")
	}
	skipWithRunningEnvoy(t, "it starts an Envoy")
}

// refused starts Envoy with a change that it refuses, made in the variant's form, and returns its log.
func refused(t *testing.T, change func(*testbed.Bootstrap), options ...option) string {
	t.Helper()
	s, p := prepare(t, options...)
	change(p.config)
	return refuses(t, s.dir, p.config, p.options)
}

// refuses starts Envoy with a configuration that it refuses, and returns its log.
func refuses(t *testing.T, dir string, config testbed.Configuration, options testbed.Options) string {
	t.Helper()
	envoy, err := testbed.LaunchEnvoy(dir, config, variant.Options(options))
	if err != nil {
		t.Fatal(err)
	}
	defer envoy.Kill()
	if err := envoy.Wait(settle); err == nil || strings.Contains(err.Error(), "still running") {
		t.Fatalf("Envoy ended with %v, want a failure", err)
	}
	return envoy.Log()
}

func TestModuleNeedsOneBootstrapExtension(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	for name, test := range map[string]struct {
		change func(*testbed.Bootstrap)
		want   string
	}{
		"none": {func(c *testbed.Bootstrap) { c.BootstrapExtensions = nil },
			"healthgate: the bootstrap extension is missing, without which the module can't see the clusters; " +
				"add to the bootstrap: bootstrap_extensions: [{name: healthgate"},
		"two": {func(c *testbed.Bootstrap) {
			c.BootstrapExtensions = append(c.BootstrapExtensions, c.BootstrapExtensions...)
		}, "healthgate: bootstrap_extensions has this module twice; leave one of them out"},
		"one with a configuration": {func(c *testbed.Bootstrap) {
			extension := c.Unpack(c.BootstrapExtensions[0].TypedConfig).(*bootstrapmodulev3.DynamicModuleBootstrapExtension)
			extension.ExtensionConfig = testbed.Any(testbed.Parse[*structpb.Struct](`clusters: [service]`))
		}, "healthgate: bootstrap_extensions: extension_config is given, but there is nothing to configure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if log := refused(t, test.change); !strings.Contains(log, test.want) {
				t.Errorf("the log lacks %q:\n%s", test.want, testbed.Tail(log, 20))
			}
		})
	}
}

// While the main thread hangs the clusters' health is not known, so a probe fails.
func TestHangingMainThreadFailsTheProbe(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	needs(t, testbed.HangMainThread)
	s := newServingSite(t)
	client := s.client("h2")
	s.stats("healthgate.") // after a sample
	expect(t, "before", s.probe(client), 200, "ok\n", nil)
	began := time.Now()
	hung := s.hang(12)
	s.awaitProbe(client, 503, settle)
	took := time.Since(began)
	t.Logf("the probe failed after %v", took)
	if took < 4*time.Second {
		t.Errorf("the probe failed after %v: a busy main thread does not hang", took)
	}
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	s.awaitProbe(client, 200, settle)
	s.awaitLines("healthgate: Envoy's main thread hangs", 1, settle)
}

// The first probe that Envoy accepts gets the right answer.
func TestFirstProbeAfterTheStartPasses(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s, p := prepare(t)
	if err := s.backends[0].SetServing(true); err != nil {
		t.Fatal(err)
	}
	s.start(p)
	if reply := s.probe(s.client("http/1.1")); reply.status != 200 {
		t.Errorf("the first probe is answered with %d", reply.status)
	}
}

// Envoy ends in order on SIGTERM while old filter chains drain, with watchers and probes.
func TestEnvoyEndsInOrderWhileOldFilterChainsDrain(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	for turn := range times(3, 50) {
		t.Run(fmt.Sprint("turn ", turn), endWhileOldChainsDrain)
	}
}

func endWhileOldChainsDrain(t *testing.T) {
	s := newServingSite(t, withLDS(), withHealthService(),
		withConfig(func(c *testbed.Bootstrap) { c.Listener().DrainType = listenerv3.Listener_DEFAULT }))
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

// With envoy/module.yaml the gate answers probes and grpc.health.v1.Health, traffic passes, and passing checks are not logged.
func TestModuleReferenceConfiguration(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	s := newServingSite(t, func(p *plan) { p.config = readConfig(t, "envoy/module.yaml") })
	client := s.client("h2")
	expect(t, "the probe", s.probe(client), 200, "ok\n", nil)
	mustCheck(t, "a healthy service", s.health(), serving)
	s.setServing(0)
	expect(t, "the probe", s.probe(client), 503, "unavailable\n", nil)
	mustCheck(t, "a service that is down", s.health(), notServing)
	if _, err := s.health().Check(t.Context(), asked("unknown")); status.Code(err) != codes.NotFound {
		t.Errorf("Check of an unknown service: got %v", err)
	}
	s.awaitLog(`"details":"healthgate_grpc_not_found"`, settle)
	s.awaitLog(`"details":"healthgate_cluster_unhealthy"`, settle)
	// Answers without details appear in the log by path and gRPC status: a Watch that Envoy ends has another status than 0.
	watch, err := s.health().Watch(t.Context(), asked("router.Router"))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := watch.Recv(); err != nil || reply.Status != notServing {
		t.Errorf("Watch: got %v, %v", reply, err)
	}
	if stats := s.stats("healthgate.default.grpc_"); stats["healthgate.default.grpc_check"] != 3 ||
		stats["healthgate.default.grpc_watch"] != 1 {
		t.Errorf("the calls are counted as %v", stats)
	}
	if err := s.envoy.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the Watch ends with %v", err)
	}
	log := s.envoy.Log()
	if !strings.Contains(log, `"path":"/grpc.health.v1.Health/Watch"`) || !strings.Contains(log, `"grpc_status":"Unavailable"`) {
		t.Errorf("the end of the Watch is not logged:\n%s", testbed.Tail(log, 10))
	}
	if strings.Contains(log, `"details":"healthgate_ok"`) || strings.Count(log, `"path":"/grpc.health.v1.Health/Check"`) != 1 {
		t.Errorf("passing checks are logged:\n%s", testbed.Tail(log, 10))
	}
}
