package suite

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// What Envoy Gateway makes of the overlay: the bootstrap's part is merged into its own; the policy is a filter, with a name and a form
// of its configuration that are Envoy Gateway's, disabled but on the policy's route; the cluster has the route's name.
func TestEnvoyGatewaysConfigurationAnswers(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	if version, err := testbed.EnvoyVersion(); err != nil || strings.HasPrefix(version, "1.38.") {
		t.Skip("Envoy 1.38 finds no module by its path: ", err)
	}
	proxy, policy := gatewaysObject(t, "EnvoyProxy"), gatewaysObject(t, "EnvoyExtensionPolicy")
	module := proxy.Get("spec.dynamicModules.0.source.local.path").(string)
	local := strings.NewReplacer(module, filepath.Join(testbed.Root(), "build", filepath.Base(module)))
	filter := policy.Part("spec.dynamicModule.0")
	cluster := filter.Get("config.clusters.0").(string)
	s := newSite(t, func(p *plan) { p.gated = false }, withConfig(func(c *testbed.Config) {
		var own map[string]any
		if err := yaml.Unmarshal([]byte(local.Replace(proxy.Get("spec.bootstrap.value").(string))), &own); err != nil {
			t.Fatal(err)
		}
		c.Set("bootstrap_extensions", own["bootstrap_extensions"])
		name := "envoy.filters.http.dynamic_modules/envoyextensionpolicy/default/probe/dynamic-module/0"
		c.Set(testbed.Healthgate, gatewaysFilter(t, name, local.Replace(module), filter))
		enabled := map[string]any{name: map[string]any{"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": map[string]any{}}}
		c.Set(testbed.Routes+".0.typed_per_filter_config", enabled)
		health := c.Part(testbed.Routes + ".0")
		health.Set("match", map[string]any{"path_separated_prefix": "/grpc.health.v1.Health"})
		c.Set(testbed.Routes, append(c.Get(testbed.Routes).([]any), health.Get("")))
		c.Set(testbed.Routes+".1.route.cluster", cluster)
		c.Set(testbed.Cluster+".name", cluster)
		c.Set(testbed.Cluster+".load_assignment.cluster_name", cluster)
	}))
	client := s.client("h2")
	for _, up := range []bool{true, false, true} {
		if err := s.backends[0].SetServing(up); err != nil {
			t.Fatal(err)
		}
		status, checked := 503, notServing
		if up {
			status, checked = 200, serving
		}
		s.awaitProbe(client, status, settle)
		if reply, err := s.health().Check(t.Context(), asked("router.Router")); err != nil || reply.Status != checked {
			t.Errorf("Check: got %v, %v, want %v", reply, err, checked)
		}
	}
	s.awaitStat("healthgate.default.healthy", 1)
}

// gatewaysFilter is a DynamicModule of a policy, as a filter.
func gatewaysFilter(t *testing.T, name, file string, module *testbed.Config) map[string]any {
	t.Helper()
	config, err := json.Marshal(module.Get("config"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"name":     name,
		"disabled": true,
		"typed_config": map[string]any{
			"@type":                 "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
			"dynamic_module_config": map[string]any{"module": map[string]any{"local": map[string]any{"filename": file}}},
			"filter_name":           module.Get("filterName"),
			"filter_config":         map[string]any{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": string(config)},
		},
	}
}

// gatewaysObject is the overlay's object of a kind of Envoy Gateway's.
func gatewaysObject(t *testing.T, kind string) *testbed.Config {
	t.Helper()
	built, err := kustomize.Build(kustomize.EnvoyGateway)
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range built.Resources() {
		if resource.GetKind() != kind {
			continue
		}
		object, err := resource.Map()
		if err != nil {
			t.Fatal(err)
		}
		return testbed.Tree(object).Clone()
	}
	t.Fatal("the overlay has no " + kind)
	return nil
}
