package repo

import (
	"encoding/json"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// cloudSpecs has the fields that the manifests use of kinds that have neither a Go type nor a CRD here. Others are errors.
const cloudSpecs = `
cloud.google.com/v1/BackendConfig:
  healthCheck:
    {type: string, requestPath: string, port: integer, checkIntervalSec: integer, timeoutSec: integer,
     healthyThreshold: integer, unhealthyThreshold: integer}
  connectionDraining: {drainingTimeoutSec: integer}
  timeoutSec: integer
networking.gke.io/v1/ManagedCertificate:
  domains: [string]
networking.gke.io/v1/HealthCheckPolicy:
  targetRef: {group: string, kind: string, name: string}
  default:
    {checkIntervalSec: integer, timeoutSec: integer, healthyThreshold: integer, unhealthyThreshold: integer,
     config: {type: string, http2HealthCheck: {portSpecification: string, port: integer, requestPath: string}}}
networking.gke.io/v1/GCPBackendPolicy:
  targetRef: {group: string, kind: string, name: string}
  default: {timeoutSec: integer, connectionDraining: {drainingTimeoutSec: integer}}
monitoring.coreos.com/v1/PodMonitor:
  selector: {matchLabels: {app.kubernetes.io/name: string}}
  podMetricsEndpoints: [{port: string, path: string, interval: string}]
monitoring.googleapis.com/v1/PodMonitoring:
  selector: {matchLabels: {app.kubernetes.io/name: string}}
  endpoints: [{port: string, path: string, interval: string}]
`

// readCloudObject reads an object whose kind cloudSpecs has.
func readCloudObject(kind string, text []byte) (any, error) {
	var specs, o map[string]any
	if err := yaml.Unmarshal([]byte(cloudSpecs), &specs); err != nil {
		return nil, err
	}
	if specs[kind] == nil {
		return nil, fmt.Errorf("nothing here has the fields of %s", kind)
	}
	if err := yaml.UnmarshalStrict(text, &o); err != nil {
		return nil, err
	}
	return o, fits("spec", o["spec"], specs[kind])
}

// fits reports where a value differs from its spec.
func fits(path string, value, spec any) error {
	switch spec := spec.(type) {
	case map[string]any:
		fields, _ := value.(map[string]any)
		if fields == nil {
			return fmt.Errorf("%s is %v, want an object", path, value)
		}
		for name, field := range fields {
			if spec[name] == nil {
				return fmt.Errorf("%s has no field %s", path, name)
			}
			if err := fits(path+"."+name, field, spec[name]); err != nil {
				return err
			}
		}
	case []any:
		entries, _ := value.([]any)
		if entries == nil {
			return fmt.Errorf("%s is %v, want a list", path, value)
		}
		for _, entry := range entries {
			if err := fits(path+"[]", entry, spec[0]); err != nil {
				return err
			}
		}
	default:
		_, isString := value.(string)
		number, isNumber := value.(float64)
		if isString != (spec == "string") || isNumber != (spec == "integer") || number != float64(int(number)) {
			return fmt.Errorf("%s is %v, want: %v", path, value, spec)
		}
	}
	return nil
}

// spec returns the spec of an object that has no Go type.
func spec(t *testing.T, objects rendered, name string) tree {
	t.Helper()
	return treeOf(get[map[string]any](t, objects, name)).Part("spec")
}

// check is a balancer's health check and its connection draining, in seconds and checks.
type check struct{ interval, timeout, unhealthy, healthy, draining float64 }

// sum returns how long the balancer may take to notice and act, as in the table.
func (c check) sum() string {
	const act = 10
	return fmt.Sprintf("%v × %v + %v + %d = %v", c.interval, c.unhealthy, c.timeout, act, c.interval*c.unhealthy+c.timeout+act)
}

// balancers returns the health checks of the overlays, by their names in the table.
func balancers(t *testing.T) map[string]check {
	t.Helper()
	ingress, gateway := render(t, "overlays/gke-ingress"), render(t, "overlays/gke-gateway")
	backend, policy := spec(t, ingress, "BackendConfig/envoy"), spec(t, gateway, "HealthCheckPolicy/envoy")
	alb := get[*networkingv1.Ingress](t, render(t, "overlays/aws-alb"), "Ingress/envoy").Annotations
	scan := func(annotation, format string) (n float64) {
		if _, err := fmt.Sscanf(alb["alb.ingress.kubernetes.io/"+annotation], format, &n); err != nil {
			t.Errorf("%s: %v", annotation, err)
		}
		return n
	}
	return map[string]check{
		"GKE Ingress": gkeCheck(backend.Part("healthCheck"), backend),
		"GKE Gateway": gkeCheck(policy.Part("default"), spec(t, gateway, "GCPBackendPolicy/envoy").Part("default")),
		"AWS ALB": {
			scan("healthcheck-interval-seconds", "%f"), scan("healthcheck-timeout-seconds", "%f"),
			scan("unhealthy-threshold-count", "%f"), scan("healthy-threshold-count", "%f"),
			scan("target-group-attributes", "deregistration_delay.timeout_seconds=%f"),
		},
	}
}

func gkeCheck(c, backend tree) check {
	number := func(c tree, path string) float64 { n, _ := c.Get(path).(float64); return n }
	return check{
		number(c, "checkIntervalSec"), number(c, "timeoutSec"), number(c, "unhealthyThreshold"), number(c, "healthyThreshold"),
		number(backend, "connectionDraining.drainingTimeoutSec"),
	}
}

func TestGKEIngressChecksTheGate(t *testing.T) {
	objects := render(t, "overlays/gke-ingress")
	service := get[*corev1.Service](t, objects, "Service/envoy")
	ingress := get[*networkingv1.Ingress](t, objects, "Ingress/envoy")
	annotation := func(name, key string) any {
		var value map[string]any
		if err := json.Unmarshal([]byte(service.Annotations["cloud.google.com/"+name]), &value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return value[key]
	}
	port := service.Spec.Ports[0].Name
	if annotation("neg", "ingress") != true || annotation("app-protocols", port) != "HTTP2" ||
		annotation("backend-config", "default") != "envoy" {
		t.Errorf("the Service has %v", service.Annotations)
	}
	if to := ingress.Spec.DefaultBackend.Service; to.Name != service.Name || to.Port.Name != port {
		t.Errorf("the Ingress sends to %+v", to)
	}
	of := ingress.Annotations
	if of["kubernetes.io/ingress.allow-http"] != "false" || of["kubernetes.io/ingress.global-static-ip-name"] == "" ||
		of["networking.gke.io/managed-certificates"] != "envoy" || spec(t, objects, "ManagedCertificate/envoy").Get("domains.0") == nil {
		t.Errorf("the Ingress has %v", of)
	}
	check := spec(t, objects, "BackendConfig/envoy").Part("healthCheck")
	if check.Get("type") != "HTTP2" || check.Get("requestPath") != "/" || check.Get("port") != 8443.0 {
		t.Errorf("the health check is %v", check)
	}
}

func TestGKEGatewayChecksTheGate(t *testing.T) {
	objects := render(t, "overlays/gke-gateway")
	service := get[*corev1.Service](t, objects, "Service/envoy")
	gateway := get[*gatewayv1.Gateway](t, objects, "Gateway/envoy")
	route := get[*gatewayv1.HTTPRoute](t, objects, "HTTPRoute/envoy")
	if port := service.Spec.Ports[0]; port.AppProtocol == nil || *port.AppProtocol != "HTTP2" || len(service.Spec.Ports) != 1 {
		t.Errorf("the Service has the ports %+v", service.Spec.Ports)
	}
	parent, to := route.Spec.ParentRefs[0], route.Spec.Rules[0].BackendRefs[0]
	if string(parent.Name) != gateway.Name || *parent.SectionName != gateway.Spec.Listeners[0].Name {
		t.Errorf("the route is attached to %+v", parent)
	}
	if string(to.Name) != service.Name || int32(*to.Port) != service.Spec.Ports[0].Port {
		t.Errorf("the route sends to %+v", to)
	}
	for _, policy := range []string{"HealthCheckPolicy/envoy", "GCPBackendPolicy/envoy"} {
		if ref := spec(t, objects, policy).Part("targetRef"); ref.Get("kind") != "Service" || ref.Get("name") != service.Name {
			t.Errorf("%s is for %v", policy, ref)
		}
	}
	check := spec(t, objects, "HealthCheckPolicy/envoy").Part("default.config")
	if check.Get("type") != "HTTP2" || check.Get("http2HealthCheck.requestPath") != "/" || check.Get("http2HealthCheck.port") != 8443.0 {
		t.Errorf("the health check is %v", check)
	}
}

func TestALBChecksTheGate(t *testing.T) {
	objects := render(t, "overlays/aws-alb")
	ingress := get[*networkingv1.Ingress](t, objects, "Ingress/envoy")
	service := get[*corev1.Service](t, objects, "Service/envoy")
	to := ingress.Spec.Rules[0].HTTP.Paths[0].Backend.Service
	if to.Name != service.Name || to.Port.Name != service.Spec.Ports[0].Name || *ingress.Spec.IngressClassName != "alb" {
		t.Errorf("the Ingress sends to %+v", to)
	}
	for name, want := range map[string]string{
		"backend-protocol": "HTTPS", "backend-protocol-version": "HTTP2", "healthcheck-protocol": "HTTPS",
		"healthcheck-path": "/", "success-codes": "200", "target-type": "ip", "healthcheck-port": "traffic-port",
	} {
		if got := ingress.Annotations["alb.ingress.kubernetes.io/"+name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestMetricsAreScrapedAtTheirPortAndPath(t *testing.T) {
	for component, test := range map[string]struct{ object, endpoint string }{
		"metrics/pod-monitor":    {"PodMonitor/envoy", "podMetricsEndpoints.0"},
		"metrics/pod-monitoring": {"PodMonitoring/envoy", "endpoints.0"},
	} {
		objects := render(t, "base", component)
		envoy := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template
		monitor := spec(t, objects, test.object)
		for label, value := range monitor.Get("selector.matchLabels").(map[string]any) {
			if envoy.Labels[label] != value {
				t.Errorf("%s selects %s=%v, the pods have %v", component, label, value, envoy.Labels)
			}
		}
		config := configuration(t, objects)
		metrics := config.HCMOf(config.StaticResources.Listeners[1])
		path := metrics.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetMatch().GetPath()
		endpoint := monitor.Part(test.endpoint)
		if portOf(envoy.Spec.Containers[0], fmt.Sprint(endpoint.Get("port"))) == 0 || endpoint.Get("path") != path {
			t.Errorf("%s scrapes %v, the listener has %v", component, endpoint, path)
		}
	}
}
