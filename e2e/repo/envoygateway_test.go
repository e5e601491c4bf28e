package repo

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/dynamic_modules/v3"

	"github.com/santhosh-tekuri/jsonschema/v6"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// Envoy Gateway's own kinds are held to its CRDs, which come with its Go module. Its types are in there too, and are not used: the
// module would raise 41 others in e2e/go.mod, gRPC, protobuf and Kubernetes' API among them.
const (
	envoyGatewayVersion = "gateway.envoyproxy.io/v1alpha1"
	envoyGatewayModule  = "github.com/envoyproxy/gateway@v1.9.1"
	envoyGatewaySum     = "h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY="
)

// envoyGateway is the folder of the module.
var envoyGateway = sync.OnceValues(func() (string, error) {
	download := exec.Command("go", "mod", "download", "-json", envoyGatewayModule)
	download.Dir = os.TempDir() // it is no requirement of this module's
	out, err := download.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	var module struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", err
	}
	if module.Sum != envoyGatewaySum {
		return "", fmt.Errorf("%s has the sum %s", envoyGatewayModule, module.Sum)
	}
	return module.Dir, nil
})

// readByCRD reads an object of Envoy Gateway's by the schema of its CRD, with no unknown field. What a CRD says in CEL is not asked.
func readByCRD(kind string, text []byte) (any, error) {
	schema, err := schemaOf(kind)
	if err != nil {
		return nil, err
	}
	var o map[string]any
	if err := yaml.UnmarshalStrict(text, &o); err != nil {
		return nil, err
	}
	return o, schema.Validate(any(o))
}

func schemaOf(kind string) (*jsonschema.Schema, error) {
	module, err := envoyGateway()
	if err != nil {
		return nil, err
	}
	plural := strings.ToLower(kind) + "s"
	if stem, y := strings.CutSuffix(plural, "ys"); y {
		plural = stem + "ies"
	}
	file := filepath.Join(module, "charts/gateway-helm/charts/crds/crds/generated", "gateway.envoyproxy.io_"+plural+".yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, err
	}
	schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	schema["properties"].(map[string]any)["metadata"] = map[string]any{"type": "object"}
	closed(schema)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(kind, any(schema)); err != nil {
		return nil, err
	}
	return compiler.Compile(kind)
}

// closed has a schema refuse what it does not name, as an API server does with strict validation.
func closed(node any) {
	switch n := node.(type) {
	case []any:
		for _, v := range n {
			closed(v)
		}
	case map[string]any:
		_, names := n["properties"].(map[string]any)
		if _, open := n["additionalProperties"]; names && !open && n["x-kubernetes-preserve-unknown-fields"] != true {
			n["additionalProperties"] = false
		}
		for _, v := range n {
			closed(v)
		}
	}
}

// The names by which the overlay's objects know each other, and by which Envoy Gateway calls what it makes of them.
func TestEnvoyGatewayReachesTheGate(t *testing.T) {
	objects := render(t, kustomize.EnvoyGateway)
	gateway := get[*gatewayv1.Gateway](t, objects, "Gateway/envoy")
	if ref := gateway.Spec.Infrastructure.ParametersRef; ref.Kind != "EnvoyProxy" || ref.Name != "envoy" {
		t.Errorf("the Gateway's parameters are %+v", ref)
	}
	service := get[*corev1.Service](t, objects, "Service/service")
	route := get[*gatewayv1.HTTPRoute](t, objects, "HTTPRoute/service")
	probe := get[*gatewayv1.HTTPRoute](t, objects, "HTTPRoute/probe")
	for _, r := range []*gatewayv1.HTTPRoute{route, probe} {
		if parent := r.Spec.ParentRefs[0]; string(parent.Name) != gateway.Name || *parent.SectionName != gateway.Spec.Listeners[0].Name {
			t.Errorf("the route %s is attached to %+v", r.Name, parent)
		}
	}
	if to := route.Spec.Rules[0].BackendRefs[0]; string(to.Name) != service.Name || *to.Port != service.Spec.Ports[0].Port {
		t.Errorf("the route sends to %+v", to)
	}
	if match := probe.Spec.Rules[0].Matches[0].Path; *match.Type != gatewayv1.PathMatchExact || *match.Value != "/" {
		t.Errorf("the probe's route matches %+v", match)
	}
	filter := treeOf(get[map[string]any](t, objects, "HTTPRouteFilter/"+string(probe.Spec.Rules[0].Filters[0].ExtensionRef.Name)))
	traffic := treeOf(get[map[string]any](t, objects, "BackendTrafficPolicy/service"))
	policy := treeOf(get[map[string]any](t, objects, "EnvoyExtensionPolicy/probe"))
	module := treeOf(get[map[string]any](t, objects, "EnvoyProxy/envoy")).Part("spec.dynamicModules.0")
	cluster := "httproute/default/" + route.Name + "/rule/0"
	for what, pair := range map[string][2]any{
		"what answers without the filter":    {filter.Get("spec.directResponse.statusCode"), 503.0},
		"the health checks' route":           {traffic.Get("spec.targetRefs.0.name"), route.Name},
		"the policy's route":                 {policy.Get("spec.targetRefs.0.name"), probe.Name},
		"the policy's module":                {policy.Get("spec.dynamicModule.0.name"), module.Get("name")},
		"the gate's cluster":                 {policy.Get("spec.dynamicModule.0.config.clusters.0"), cluster},
		"the service that is asked for":      {policy.Get("spec.dynamicModule.0.config.grpc_services.0"), traffic.Get("spec.healthCheck.active.grpc.service")},
		"the module of the bootstrap's part": {gatewaysModuleFile(t, objects), module.Get("source.local.path")},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
	from := get[*networkingv1.NetworkPolicy](t, objects, "NetworkPolicy/service").Spec.Ingress
	if len(from) != 1 || from[0].From[0].PodSelector.MatchLabels["gateway.envoyproxy.io/owning-gateway-name"] != gateway.Name {
		t.Errorf("the service is reached from %+v", from)
	}
	checkPatches(t, cluster)
}

// gatewaysBootstrap is what is merged into Envoy Gateway's own, as Envoy's API has it.
func gatewaysBootstrap(t *testing.T, objects rendered) *testbed.Bootstrap {
	t.Helper()
	proxy := treeOf(get[map[string]any](t, objects, "EnvoyProxy/envoy"))
	config := parseConfig(t, proxy.Get("spec.bootstrap.value").(string))
	if err := validate(config.JSON()); err != nil {
		t.Error(err)
	}
	return config
}

// gatewaysModuleFile returns the file of the dynamic module in the bootstrap extension.
func gatewaysModuleFile(t *testing.T, objects rendered) string {
	t.Helper()
	config := gatewaysBootstrap(t, objects)
	extension := config.Unpack(config.BootstrapExtensions[0].GetTypedConfig()).(*modulev3.DynamicModuleBootstrapExtension)
	return extension.GetDynamicModuleConfig().GetModule().GetLocal().GetFilename()
}

// checkPatches holds patches.yaml, which is applied where Envoy Gateway is told to take patches, to the overlay's names.
func checkPatches(t *testing.T, cluster string) {
	t.Helper()
	read, err := readByCRD("EnvoyPatchPolicy", []byte(readFile(t, inRoot("manifests", kustomize.EnvoyGateway, "patches.yaml"))))
	if err != nil {
		t.Fatal(err)
	}
	for _, patch := range treeOf(read).Get("spec.jsonPatches").([]any) {
		if name := treeOf(patch).Get("name"); name != cluster {
			t.Errorf("a patch is for the cluster %v, want %s", name, cluster)
		}
	}
}

// What the tests above rely on: a schema sees a slip.
func TestEnvoyGatewaysSchemasSeeWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct{ kind, text string }{
		"a field that is not there": {"EnvoyExtensionPolicy", `{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: EnvoyExtensionPolicy, metadata: {name: x},
			spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: x}], dynamicModule: [{name: x, metricsNamespace: x}]}}`},
		"a value that is none": {"EnvoyProxy", `{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: EnvoyProxy, metadata: {name: x}, spec: {bootstrap: {type: Add}}}`},
		"a name that is none":  {"EnvoyProxy", `{spec: {dynamicModules: [{name: Health_Gate, source: {local: {path: /x}}}]}}`},
		"a field that is due":  {"EnvoyPatchPolicy", `{spec: {type: JSONPatch}}`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readByCRD(test.kind, []byte(test.text)); err == nil {
				t.Error("it is found valid")
			}
		})
	}
}
