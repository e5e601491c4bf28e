package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// reload gives Envoy its listener anew, with another configuration of the plugin, and waits until it has taken or
// refused it. Changes are made of the listener besides.
func (s *site) reload(plugin string, changes ...func(*testbed.Config)) (taken bool) {
	s.t.Helper()
	config := referenceConfig(s.t)
	config.UseCertificate(s.cert)
	config.Listen(0, 0)
	config.Set(testbed.PluginConfig, parse(plugin))
	for _, change := range changes {
		change(config)
	}
	return s.reloadListener(config)
}

// reloadListener gives Envoy the listener of a configuration.
func (s *site) reloadListener(config *testbed.Config) (taken bool) {
	s.t.Helper()
	const lds = "listener_manager.lds."
	before := s.stats(lds)
	variant.Prepare(config)
	s.writeListener(config.Get(testbed.Listener))
	s.await(settle, func() error {
		after := s.stats(lds)
		taken = after[lds+"update_success"] > before[lds+"update_success"]
		if !taken && after[lds+"update_rejected"] == before[lds+"update_rejected"] {
			return fmt.Errorf("envoy has not taken the listener yet")
		}
		return nil
	})
	return taken
}

func (s *site) awaitStat(name string, value uint64) {
	s.t.Helper()
	s.await(settle, func() error {
		if got := s.stats(name)[name]; got != value {
			return fmt.Errorf("%s is %d, want %d", name, got, value)
		}
		return nil
	})
}

func TestBadConfigurationKeepsEnvoyFromStarting(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs an Envoy of its own")
	for name, test := range badConfigurations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := prepare(t, backends(0), withPlugin(test.plugin))
			envoy, err := testbed.LaunchEnvoy(s.dir, p.config, variant.Options(p.options))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(envoy.Kill)
			if err := envoy.Wait(settle); err == nil || strings.Contains(err.Error(), "still running") {
				t.Fatalf("envoy ended with %v, want a failure", err)
			}
			for _, want := range test.errors {
				if !strings.Contains(envoy.Log(), want) {
					t.Errorf("envoy's log lacks %q; it ends:\n%s", want, testbed.Tail(envoy.Log(), 5))
				}
			}
		})
	}
}

// badConfigurations are a few of what filter's own tests refuse, to see that Envoy does.
var badConfigurations = map[string]struct {
	plugin string
	errors []string
}{
	"nothing": {`{}`, []string{"clusters: is required"}},
	"several at once": {
		`{"clusters": [{"name": "service", "min_healty": 1}, "service"], "path": "x", "drain": "maybe", "stat_prefix": "a b"}`,
		[]string{
			"clusters[0].min_healty: unknown key, did you mean min_healthy?",
			"clusters[1].name: \"service\" is repeated; clusters[0] has it already",
			"path: \"x\" does not start with /",
			"drain: \"maybe\" is not fail or ignore",
			"stat_prefix: \"a b\" has a character other than",
		},
	},
	"every key": {
		`{"path": 1, "clusters": [{"name": 1, "stat_name": 1, "min_healthy": "1", "min_healthy_percent": 101, "degraded": 1}], "require": 2,
			"drain": 1, "hold": {"unhealthy_after": "1", "healthy_after": 1}, "stat_prefix": 1, "stale_after": 1, "source": 1, "admin": {"address": 1, "interval": 1},
			"response": {"healthy": {"status": 503, "body": 1}, "unhealthy": {"status": 200, "body": 1}, "details": 1}}`,
		[]string{
			"path: 1 is", "clusters[0].name: 1 is", "clusters[0].stat_name: 1 is", `clusters[0].min_healthy: "1" is`,
			"clusters[0].min_healthy_percent: 101 is", "clusters[0].degraded: 1 is", "require: 2 is", "drain: 1 is",
			`hold.unhealthy_after: "1" is`, "hold.healthy_after: 1 is", "stat_prefix: 1 is", "stale_after: 1 is", "source: 1 is",
			"admin.address: 1 is", "admin.interval: 1 is", "response.healthy.status: 503 is", "response.healthy.body: 1 is",
			"response.unhealthy.status: 200 is", "response.unhealthy.body: 1 is", "response.details: 1 is",
		},
	},
	"admin that others could reach": {
		`{"clusters": ["service"], "source": "admin", "admin": {"address": "10.0.0.1:9901"}}`, []string{`admin.address: "10.0.0.1:9901" is not on loopback`},
	},
	"out of range": {
		`{"clusters": [{"name": "service", "min_healthy": -1, "min_healthy_percent": 120}]}`,
		[]string{"clusters[0].min_healthy: -1 is not between 0 and 1000000", "clusters[0].min_healthy_percent: 120 is not between 0 and 100"},
	},
}

func TestConfigurationOfAnotherTypeIsRefused(t *testing.T) {
	t.Parallel()
	s, p := prepare(t, backends(0), withConfig(func(c *testbed.Config) {
		c.Set(testbed.Healthgate+".typed_config.plugin_config", map[string]any{
			"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s",
		})
	}))
	envoy, err := testbed.LaunchEnvoy(s.dir, p.config, variant.Options(p.options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(envoy.Kill)
	if err := envoy.Wait(settle); err == nil {
		t.Fatal("envoy ended well, want a failure")
	}
	want := "healthgate: plugin_config: google.protobuf.Duration is another type; write it as xds.type.v3.TypedStruct or google.protobuf.Struct"
	if variant.Name() == "module" { // which is not told of the type
		want = "write it as google.protobuf.Struct"
	}
	if !strings.Contains(envoy.Log(), want) {
		t.Errorf("envoy's log lacks %q", want)
	}
}

func TestConfigurationCanBeAStructOfEachKind(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	value := map[string]any{"clusters": []any{"service"}}
	for _, kind := range []string{"google.protobuf.Struct", "xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"} {
		t.Run(kind, func(t *testing.T) {
			s := newSite(t, withConfig(func(c *testbed.Config) {
				c.Set(testbed.Healthgate+".typed_config.plugin_config", map[string]any{"@type": "type.googleapis.com/" + kind, "value": value})
			}))
			s.setServing(1)
			s.awaitProbe(s.client("h2"), 200, time.Second)
		})
	}
}

func TestBadUpdateIsRefusedAndTheOldOneGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS())
	client := s.client("h2")
	s.setServing(1)
	expect(t, "before", s.probe(client), 200, "ok\n", nil)
	if s.reload(`{"clusters": ["service"], "paht": "/"}`) {
		t.Fatal("envoy took a configuration with an unknown key")
	}
	s.awaitLog("paht: unknown key, did you mean path?", settle)
	expect(t, "after", s.probe(client), 200, "ok\n", nil)
	// And a good one is taken still.
	if !s.reload(`{"clusters": ["service", "other"]}`) {
		t.Fatal("envoy refused a good configuration")
	}
	s.awaitProbe(client, 503, settle)
}

// awaitFreed waits until no more than so many of something are held. Go frees what Envoy has dropped some collections
// later, and probes bring collections about.
func (s *site) awaitFreed(what string, atMost int, count func(testbed.Held) int) {
	s.t.Helper()
	if err := variant.Can(testbed.Counting); err != nil {
		s.t.Logf("how many %s are alive is not known: %v", what, err)
		return
	}
	client := s.client("h2")
	s.await(60*time.Second, func() error {
		for range 500 {
			s.probe(client)
		}
		held, err := variant.Held(s.envoy)
		if err != nil {
			return err
		}
		if n := count(held); n > atMost {
			return fmt.Errorf("%d %s are alive", n, what)
		}
		return nil
	})
}
