package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// What Envoy Gateway generates from the overlay: it merges the EnvoyProxy's bootstrap into its own; the policy becomes a filter with a name
// and a form of configuration that are Envoy Gateway's, disabled except on the policy's route; the cluster has the route's name.
func TestEnvoyGatewaysConfigurationAnswers(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	if version, err := testbed.EnvoyVersion(); err != nil || strings.HasPrefix(version, "1.38.") {
		t.Skip("Envoy 1.38 finds no module by its path: ", err)
	}
	var proxy struct {
		Spec struct {
			Bootstrap      struct{ Value string }
			DynamicModules []struct {
				Source struct{ Local struct{ Path string } }
			}
		}
	}
	var policy struct {
		Spec struct{ DynamicModule []gatewaysModule }
	}
	gatewaysObject(t, "EnvoyProxy", &proxy)
	gatewaysObject(t, "EnvoyExtensionPolicy", &policy)
	path, module := proxy.Spec.DynamicModules[0].Source.Local.Path, policy.Spec.DynamicModule[0]
	local := strings.NewReplacer(path, filepath.Join(testbed.Root(), "build", filepath.Base(path)))
	cluster := module.Config.Clusters[0]
	s := newSite(t, withConfig(func(c *testbed.Bootstrap) {
		own, err := testbed.ParseBootstrap([]byte(local.Replace(proxy.Spec.Bootstrap.Value)))
		if err != nil {
			t.Fatal(err)
		}
		c.BootstrapExtensions = own.BootstrapExtensions
		name := "envoy.filters.http.dynamic_modules/envoyextensionpolicy/default/probe/dynamic-module/0"
		c.HCM().HttpFilters[0] = module.filter(t, name, local.Replace(path))
		probe := c.ProbeRoute()
		probe.TypedPerFilterConfig = map[string]*anypb.Any{name: testbed.Any(testbed.Enabling(&anypb.Any{}))}
		health := proto.CloneOf(probe)
		testbed.Patch(health, `match: {path: null, path_separated_prefix: /grpc.health.v1.Health}`)
		c.Patch(c.ServiceRoute(), "route: {cluster: "+cluster+"}")
		c.VirtualHost().Routes = append(c.VirtualHost().Routes, health)
		testbed.RenameCluster(c.Cluster(), cluster)
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

// gatewaysModule is a dynamic module of an EnvoyExtensionPolicy.
type gatewaysModule struct {
	FilterName string
	Config     struct{ Clusters []string }
	raw        json.RawMessage // of Config
}

// UnmarshalJSON also keeps the whole of Config.
func (m *gatewaysModule) UnmarshalJSON(text []byte) error {
	type plain gatewaysModule
	var raw struct{ Config json.RawMessage }
	if err := errors.Join(json.Unmarshal(text, (*plain)(m)), json.Unmarshal(text, &raw)); err != nil {
		return err
	}
	m.raw = raw.Config
	return nil
}

// filter returns the filter that Envoy Gateway generates from the module, whose file is given by its path.
func (m gatewaysModule) filter(t *testing.T, name, file string) *hcmv3.HttpFilter {
	t.Helper()
	filter := testbed.Parse[*modulev3.DynamicModuleFilter](
		fmt.Sprintf(`{dynamic_module_config: {module: {local: {filename: %q}}}, filter_name: %q}`, file, m.FilterName))
	filter.FilterConfig = testbed.Any(wrapperspb.String(string(m.raw)))
	return &hcmv3.HttpFilter{Name: name, Disabled: true, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: testbed.Any(filter)}}
}

// gatewaysObject reads the overlay's object of a kind of Envoy Gateway.
func gatewaysObject(t *testing.T, kind string, object any) {
	t.Helper()
	built, err := kustomize.Build(kustomize.EnvoyGateway)
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range built.Resources() {
		if resource.GetKind() != kind {
			continue
		}
		text, err := resource.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(text, object)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("the overlay has no " + kind)
}
