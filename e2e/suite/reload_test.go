package suite

import (
	"strings"
	"testing"
	"time"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/e2e/testbed"
)

func TestBadConfigurationKeepsEnvoyFromStarting(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it starts an Envoy")
	for name, test := range badConfigurations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := prepare(t, backends(0), withGate(test.gate))
			log := refuses(t, s.dir, p.config, p.options)
			for _, want := range test.errors {
				if !strings.Contains(log, want) {
					t.Errorf("Envoy's log lacks %q; it ends:\n%s", want, testbed.Tail(log, 5))
				}
			}
		})
	}
}

// badConfigurations are a few of those in the tests of filter/config, to see that Envoy refuses them too.
var badConfigurations = map[string]struct {
	gate   string
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
			"drain": 1, "hold": {"unhealthy_after": "1", "healthy_after": 1}, "stat_prefix": 1, "stale_after": 1, "source": 1,
			"admin": {"address": 1, "interval": 1},
			"response": {"healthy": {"status": 503, "body": 1}, "unhealthy": {"status": 200, "body": 1}, "details": 1}}`,
		[]string{
			"path: 1 is", "clusters[0].name: 1 is", "clusters[0].stat_name: 1 is", `clusters[0].min_healthy: "1" is`,
			"clusters[0].min_healthy_percent: 101 is", "clusters[0].degraded: 1 is", "require: 2 is", "drain: 1 is",
			`hold.unhealthy_after: "1" is`, "hold.healthy_after: 1 is", "stat_prefix: 1 is", "stale_after: 1 is", "source: 1 is",
			"admin.address: 1 is", "admin.interval: 1 is", "response.healthy.status: 503 is", "response.healthy.body: 1 is",
			"response.unhealthy.status: 200 is", "response.unhealthy.body: 1 is", "response.details: 1 is",
		},
	},
	"admin off loopback": {
		`{"clusters": ["service"], "source": "admin", "admin": {"address": "10.0.0.1:9901"}}`,
		[]string{`admin.address: "10.0.0.1:9901" is not on loopback`},
	},
	"out of range": {
		`{"clusters": [{"name": "service", "min_healthy": -1, "min_healthy_percent": 120}]}`,
		[]string{"clusters[0].min_healthy: -1 is not between 0 and 1000000", "clusters[0].min_healthy_percent: 120 is not between 0 and 100"},
	},
}

func TestConfigurationOfAnotherTypeIsRefused(t *testing.T) {
	t.Parallel()
	s, p := prepare(t, backends(0), withConfig(func(c *testbed.Bootstrap) {
		c.GolangFilter().PluginConfig = testbed.Any(durationpb.New(time.Second))
	}))
	log := refuses(t, s.dir, p.config, p.options)
	want := "healthgate: plugin_config: google.protobuf.Duration is another type; " +
		"write it as xds.type.v3.TypedStruct or google.protobuf.Struct"
	if variant.Name() == "module" { // Envoy does not give it the type
		want = "write it as google.protobuf.Struct"
	}
	if !strings.Contains(log, want) {
		t.Errorf("Envoy's log lacks %q", want)
	}
}

func TestConfigurationCanBeAStructOfEachKind(t *testing.T) {
	t.Parallel()
	skipWithRunningEnvoy(t, "it changes the configuration")
	value := testbed.Parse[*structpb.Struct](`{clusters: [service]}`)
	for _, config := range []proto.Message{value, &xdsv3.TypedStruct{Value: value}, &udpav1.TypedStruct{Value: value}} {
		t.Run(string(config.ProtoReflect().Descriptor().FullName()), func(t *testing.T) {
			s := newSite(t, withConfig(func(c *testbed.Bootstrap) { c.GolangFilter().PluginConfig = testbed.Any(config) }))
			s.setServing(1)
			s.awaitProbe(s.client("h2"), 200, time.Second)
		})
	}
}

func TestBadUpdateIsRefusedAndTheOldConfigurationStays(t *testing.T) {
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
	// A good update is still taken.
	if !s.reload(`{"clusters": ["service", "other"]}`) {
		t.Fatal("envoy refused a good configuration")
	}
	s.awaitProbe(client, 503, settle)
}
