package repo

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	kustomized "sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/yaml"
)

// kinds are the kinds that the manifests may have, except Envoy Gateway's. Those whose API has no Go module here have the fields that the
// manifests use; others are errors.
var kinds = map[string]func() any{
	"v1/ConfigMap":                           func() any { return &corev1.ConfigMap{} },
	"v1/Service":                             func() any { return &corev1.Service{} },
	"v1/ServiceAccount":                      func() any { return &corev1.ServiceAccount{} },
	"apps/v1/Deployment":                     func() any { return &appsv1.Deployment{} },
	"policy/v1/PodDisruptionBudget":          func() any { return &policyv1.PodDisruptionBudget{} },
	"networking.k8s.io/v1/NetworkPolicy":     func() any { return &networkingv1.NetworkPolicy{} },
	"networking.k8s.io/v1/Ingress":           func() any { return &networkingv1.Ingress{} },
	"gateway.networking.k8s.io/v1/Gateway":   func() any { return &gatewayv1.Gateway{} },
	"gateway.networking.k8s.io/v1/HTTPRoute": func() any { return &gatewayv1.HTTPRoute{} },
	"gateway.networking.k8s.io/v1/GRPCRoute": func() any { return &gatewayv1.GRPCRoute{} },
	"cloud.google.com/v1/BackendConfig": func() any {
		return &withSpec[struct {
			HealthCheck struct {
				checkTimes
				Type, RequestPath string
				Port              int
			}
			ConnectionDraining drainingTime
			TimeoutSec         int
		}]{}
	},
	"networking.gke.io/v1/ManagedCertificate": func() any { return &withSpec[struct{ Domains []string }]{} },
	"networking.gke.io/v1/HealthCheckPolicy": func() any {
		return &withSpec[struct {
			TargetRef target
			Default   struct {
				checkTimes
				Config struct {
					Type             string
					HTTP2HealthCheck struct {
						PortSpecification, RequestPath string
						Port                           int
					}
				}
			}
		}]{}
	},
	"networking.gke.io/v1/GCPBackendPolicy": func() any {
		return &withSpec[struct {
			TargetRef target
			Default   struct {
				TimeoutSec         int
				ConnectionDraining drainingTime
			}
		}]{}
	},
	"monitoring.coreos.com/v1/PodMonitor":        func() any { return &withSpec[monitor]{} },
	"monitoring.googleapis.com/v1/PodMonitoring": func() any { return &withSpec[monitor]{} },
}

type (
	withSpec[T any] struct {
		APIVersion, Kind string
		Metadata         any
		Spec             T
	}
	target       struct{ Group, Kind, Name string }
	drainingTime struct{ DrainingTimeoutSec int }
	checkTimes   struct{ CheckIntervalSec, TimeoutSec, HealthyThreshold, UnhealthyThreshold int }
	monitor      struct {
		Selector                       struct{ MatchLabels map[string]string }
		PodMetricsEndpoints, Endpoints []struct{ Port, Path, Interval string }
	}
)

// checkSchema reads an object strictly by the type or CRD of its kind.
func checkSchema(o *kustomized.Resource) error {
	version := o.GetGvk().ApiVersion()
	if version == envoyGatewayVersion {
		schema, err := schemaOf(o.GetKind())
		if err != nil {
			return err
		}
		var fields any
		if err := decode(o, &fields); err != nil {
			return err
		}
		return schema.Validate(fields)
	}
	typed := kinds[version+"/"+o.GetKind()]
	if typed == nil {
		return fmt.Errorf("nothing here has the fields of %s %s", version, o.GetKind())
	}
	return decode(o, typed())
}

func decode(o *kustomized.Resource, into any) error {
	text, err := o.AsYAML()
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(text, into)
}

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

// schemaOf returns the schema of a CRD of Envoy Gateway without its rules in CEL. It refuses fields that it does not name.
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
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, err
	}
	schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	schema["properties"].(map[string]any)["metadata"] = map[string]any{"type": "object"}
	refuseUnknownFields(schema)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(kind, any(schema)); err != nil {
		return nil, err
	}
	return compiler.Compile(kind)
}

// refuseUnknownFields changes a schema in place, to refuse unknown fields as an API server with strict validation does.
func refuseUnknownFields(node any) {
	switch n := node.(type) {
	case []any:
		for _, v := range n {
			refuseUnknownFields(v)
		}
	case map[string]any:
		_, names := n["properties"].(map[string]any)
		if _, open := n["additionalProperties"]; names && !open && n["x-kubernetes-preserve-unknown-fields"] != true {
			n["additionalProperties"] = false
		}
		for _, v := range n {
			refuseUnknownFields(v)
		}
	}
}
