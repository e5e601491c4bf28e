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
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
)

// Envoy Gateway's kinds are checked by its CRDs, which its Go module has. That module's types are not used: it would raise 41 other modules
// in e2e/go.mod, gRPC, protobuf and Kubernetes' API among them.
const (
	envoyGatewayVersion = "gateway.envoyproxy.io/v1alpha1"
	envoyGatewayModule  = "github.com/envoyproxy/gateway@v1.9.1"
	envoyGatewaySum     = "h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY="
)

// envoyGateway returns the folder of the module.
var envoyGateway = sync.OnceValues(func() (string, error) {
	download := exec.Command("go", "mod", "download", "-json", envoyGatewayModule)
	download.Dir = os.TempDir() // e2e/go.mod does not require it
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

// readByCRD reads an object by the schema of its CRD, and refuses unknown fields. It leaves out the CRD's rules in CEL.
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

// closed makes a schema refuse fields that it does not name, as an API server does with strict validation.
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

// The overlay's objects refer to each other by names, and the gate and the patches to a cluster by the name that Envoy Gateway gives it.
// What Envoy Gateway makes of them is tested by e2e/envoygateway.
func TestEnvoyGatewaysObjectsFindEachOther(t *testing.T) {
	objects := render(t, kustomize.EnvoyGateway)
	gateway := get[*gatewayv1.Gateway](t, objects, "Gateway/envoy")
	route := get[*gatewayv1.GRPCRoute](t, objects, "GRPCRoute/service")
	probe := get[*gatewayv1.HTTPRoute](t, objects, "HTTPRoute/probe")
	// A rule before another changes the name of its cluster; policies for the service's listener do not reach the probe's.
	if len(route.Spec.Rules) != 1 || *route.Spec.ParentRefs[0].SectionName == *probe.Spec.ParentRefs[0].SectionName {
		t.Errorf("the service's route has %d rules, at the listener %s", len(route.Spec.Rules), *route.Spec.ParentRefs[0].SectionName)
	}
	traffic := treeOf(get[map[string]any](t, objects, "BackendTrafficPolicy/service"))
	policy := treeOf(get[map[string]any](t, objects, "EnvoyExtensionPolicy/probe"))
	proxy := treeOf(get[map[string]any](t, objects, "EnvoyProxy/envoy"))
	cluster := "grpcroute/default/" + route.Name + "/rule/0"
	deployment := proxy.Part("spec.provider.kubernetes.envoyDeployment")
	folder := deployment.Get("container.env.0.value")
	extension := gatewaysExtension(t, objects)
	for what, pair := range map[string][2]any{
		"the gate's cluster": {policy.Get("spec.dynamicModule.0.config.clusters.0"), cluster},
		"the checked gRPC service": {policy.Get("spec.dynamicModule.0.config.grpc_services.0"),
			traffic.Get("spec.healthCheck.active.grpc.service")},
		"the policy's module":       {policy.Get("spec.dynamicModule.0.name"), proxy.Get("spec.dynamicModules.0.name")},
		"the folder of the module":  {filepath.Dir(proxy.Get("spec.dynamicModules.0.source.local.path").(string)), folder},
		"the volume's place":        {deployment.Get("container.volumeMounts.0.mountPath"), folder},
		"the volume":                {deployment.Get("container.volumeMounts.0.name"), deployment.Get("pod.volumes.0.name")},
		"where admin listens":       {deployment.Get("container.env.1.value"), "127.0.0.1:19000"},
		"the bootstrap's extension": {extension.GetDynamicModuleConfig().GetName(), "healthgate"},
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

// With the component init-container the module is copied into the folder where the image volume has it, and the image is the user's.
func TestEnvoyGatewaysInitContainerCopiesTheModule(t *testing.T) {
	objects := render(t, kustomize.EnvoyGateway, "../overlays/envoy-gateway/init-container")
	deployment := treeOf(get[map[string]any](t, objects, "EnvoyProxy/envoy")).Part("spec.provider.kubernetes.envoyDeployment")
	folder := deployment.Get("container.volumeMounts.0.mountPath").(string)
	copies := deployment.Part("initContainers.0")
	dockerfile := readFile(t, inRoot("Dockerfile"))
	if copied := " /src/build/libhealthgate.so " + copies.Get("command.1").(string) + "\n"; !strings.Contains(dockerfile, copied) {
		t.Errorf("the image has no %v", copies.Get("command.1"))
	}
	for what, pair := range map[string][2]any{
		"the target of the copy": {copies.Get("command.2"), folder + "/"},
		"the folder's place":     {copies.Get("volumeMounts.0.mountPath"), folder},
		"the volume":             {copies.Get("volumeMounts.0.name"), deployment.Get("pod.volumes.0.name")},
		"the volume's kind":      {len(deployment.Get("pod.volumes.0.emptyDir").(map[string]any)), 0},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
}

// gatewaysExtension returns the bootstrap extension that the overlay adds to Envoy Gateway's bootstrap, and checks it by Envoy's API.
func gatewaysExtension(t *testing.T, objects rendered) *modulev3.DynamicModuleBootstrapExtension {
	t.Helper()
	config := parseConfig(t, treeOf(get[map[string]any](t, objects, "EnvoyProxy/envoy")).Get("spec.bootstrap.value").(string))
	if err := validate(config.JSON()); err != nil {
		t.Error(err)
	}
	return config.Unpack(config.BootstrapExtensions[0].GetTypedConfig()).(*modulev3.DynamicModuleBootstrapExtension)
}

// checkPatches checks that patches.yaml patches a cluster.
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

// The tests above rely on the schemas.
func TestEnvoyGatewaysSchemasFindErrors(t *testing.T) {
	for name, test := range map[string]struct{ kind, text string }{
		"an unknown field": {"EnvoyExtensionPolicy", `{metadata: {name: x},
			spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: x}], dynamicModule: [{name: x, metricsNamespace: x}]}}`},
		"an unknown value":          {"EnvoyProxy", `{metadata: {name: x}, spec: {bootstrap: {type: Add}}}`},
		"a name out of its pattern": {"EnvoyProxy", `{spec: {dynamicModules: [{name: Health_Gate, source: {local: {path: /x}}}]}}`},
		"a missing field":           {"EnvoyPatchPolicy", `{spec: {type: JSONPatch}}`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readByCRD(test.kind, []byte(test.text)); err == nil {
				t.Error("the schema takes it")
			}
		})
	}
}
