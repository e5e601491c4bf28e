package static

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// The types of the clouds' own resources, of what is used here alone: any other field is an error.
type (
	backendConfig struct {
		object
		Spec struct {
			HealthCheck struct {
				Type               string `json:"type"`
				RequestPath        string `json:"requestPath"`
				Port               int    `json:"port"`
				CheckIntervalSec   int    `json:"checkIntervalSec"`
				TimeoutSec         int    `json:"timeoutSec"`
				HealthyThreshold   int    `json:"healthyThreshold"`
				UnhealthyThreshold int    `json:"unhealthyThreshold"`
			} `json:"healthCheck"`
			ConnectionDraining connectionDraining `json:"connectionDraining"`
			TimeoutSec         int                `json:"timeoutSec"`
		} `json:"spec"`
	}
	managedCertificate struct {
		object
		Spec struct {
			Domains []string `json:"domains"`
		} `json:"spec"`
	}
	healthCheckPolicy struct {
		object
		Spec struct {
			TargetRef targetRef `json:"targetRef"`
			Default   struct {
				CheckIntervalSec   int `json:"checkIntervalSec"`
				TimeoutSec         int `json:"timeoutSec"`
				HealthyThreshold   int `json:"healthyThreshold"`
				UnhealthyThreshold int `json:"unhealthyThreshold"`
				Config             struct {
					Type             string `json:"type"`
					HTTP2HealthCheck struct {
						PortSpecification string `json:"portSpecification"`
						Port              int    `json:"port"`
						RequestPath       string `json:"requestPath"`
					} `json:"http2HealthCheck"`
				} `json:"config"`
			} `json:"default"`
		} `json:"spec"`
	}
	gcpBackendPolicy struct {
		object
		Spec struct {
			TargetRef targetRef `json:"targetRef"`
			Default   struct {
				TimeoutSec         int                `json:"timeoutSec"`
				ConnectionDraining connectionDraining `json:"connectionDraining"`
			} `json:"default"`
		} `json:"spec"`
	}
	connectionDraining struct {
		DrainingTimeoutSec int `json:"drainingTimeoutSec"`
	}
	targetRef struct {
		Group string `json:"group"`
		Kind  string `json:"kind"`
		Name  string `json:"name"`
	}
	object struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
)

// kinds are the kinds that may be made, each by its version and type.
var kinds = map[string]func() any{
	"v1/ConfigMap":                            func() any { return &corev1.ConfigMap{} },
	"v1/Service":                              func() any { return &corev1.Service{} },
	"v1/ServiceAccount":                       func() any { return &corev1.ServiceAccount{} },
	"apps/v1/Deployment":                      func() any { return &appsv1.Deployment{} },
	"policy/v1/PodDisruptionBudget":           func() any { return &policyv1.PodDisruptionBudget{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() any { return &networkingv1.NetworkPolicy{} },
	"networking.k8s.io/v1/Ingress":            func() any { return &networkingv1.Ingress{} },
	"gateway.networking.k8s.io/v1/Gateway":    func() any { return &gatewayv1.Gateway{} },
	"gateway.networking.k8s.io/v1/HTTPRoute":  func() any { return &gatewayv1.HTTPRoute{} },
	"cloud.google.com/v1/BackendConfig":       func() any { return &backendConfig{} },
	"networking.gke.io/v1/ManagedCertificate": func() any { return &managedCertificate{} },
	"networking.gke.io/v1/HealthCheckPolicy":  func() any { return &healthCheckPolicy{} },
	"networking.gke.io/v1/GCPBackendPolicy":   func() any { return &gcpBackendPolicy{} },
}

// rendered are the objects of a folder, by kind and name.
type rendered map[string]any

func render(t *testing.T, folder string) rendered {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), inRoot("manifests", folder))
	if err != nil {
		t.Fatalf("%s: %v", folder, err)
	}
	objects := rendered{}
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		kind := resource.GetGvk().ApiVersion() + "/" + resource.GetKind()
		make := kinds[kind]
		if make == nil {
			t.Errorf("%s makes a %s, which nothing here checks", folder, kind)
			continue
		}
		o := make()
		if err := yaml.UnmarshalStrict(text, o); err != nil {
			t.Errorf("%s: %s %s: %v", folder, kind, resource.GetName(), err)
		}
		name := resource.GetName()
		if resource.GetKind() == "ConfigMap" { // it has a hash of its content behind its name
			name = name[:strings.LastIndexByte(name, '-')]
		}
		objects[resource.GetKind()+"/"+name] = o
	}
	return objects
}

func get[T any](t *testing.T, objects rendered, name string) T {
	t.Helper()
	o, ok := objects[name].(T)
	if !ok {
		t.Fatalf("there is no %s among %v", name, slices.Sorted(maps.Keys(objects)))
	}
	return o
}

// overlays are the folders to render, below manifests.
func overlays(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(inRoot("manifests", "overlays", "*"))
	if err != nil || len(found) < 4 {
		t.Fatalf("found %v, %v", found, err)
	}
	folders := []string{"base"}
	for _, folder := range found {
		folders = append(folders, "overlays/"+filepath.Base(folder))
	}
	return folders
}

// What every overlay keeps of the base.
func TestEveryOverlayIsWhole(t *testing.T) {
	for _, folder := range overlays(t) {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			objects := render(t, folder)
			config := get[*corev1.ConfigMap](t, objects, "ConfigMap/envoy")
			for _, name := range []string{"envoy", "service"} {
				d := get[*appsv1.Deployment](t, objects, "Deployment/"+name)
				checkPods(t, name, d.Spec.Template.Spec)
				podLabels := d.Spec.Template.Labels
				service := get[*corev1.Service](t, objects, "Service/"+name)
				pdb := get[*policyv1.PodDisruptionBudget](t, objects, "PodDisruptionBudget/"+name)
				network := get[*networkingv1.NetworkPolicy](t, objects, "NetworkPolicy/"+name)
				for what, selector := range map[string]map[string]string{
					"Deployment": d.Spec.Selector.MatchLabels, "Service": service.Spec.Selector,
					"PodDisruptionBudget": pdb.Spec.Selector.MatchLabels, "NetworkPolicy": network.Spec.PodSelector.MatchLabels,
				} {
					if len(selector) == 0 || !contains(podLabels, selector) {
						t.Errorf("the %s of %s selects %v, its pods have %v", what, name, selector, podLabels)
					}
				}
				container := d.Spec.Template.Spec.Containers[0]
				for _, port := range service.Spec.Ports {
					if !slices.ContainsFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }) {
						t.Errorf("the Service of %s has the port %v, which its container has not", name, port.TargetPort)
					}
				}
				for _, open := range network.Spec.Ingress {
					for _, port := range open.Ports {
						if port.Port.IntVal != container.Ports[0].ContainerPort {
							t.Errorf("the NetworkPolicy of %s opens %v", name, port.Port)
						}
					}
				}
				for _, other := range []string{"envoy", "service"} {
					if other != name && contains(podLabels, get[*corev1.Service](t, objects, "Service/"+other).Spec.Selector) {
						t.Errorf("the Service %s selects the pods of %s", other, name)
					}
				}
			}
			envoy := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec
			if !slices.ContainsFunc(envoy.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == config.Name }) {
				t.Errorf("envoy does not mount the ConfigMap %s", config.Name)
			}
			checkConfiguration(t, config.Data["envoy.yaml"], objects)
		})
	}
}

func contains(labels, selector map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// checkPods wants what a restricted namespace wants, and more.
func checkPods(t *testing.T, name string, pod corev1.PodSpec) {
	t.Helper()
	yes := func(b *bool) bool { return b != nil && *b }
	no := func(b *bool) bool { return b != nil && !*b }
	if !no(pod.AutomountServiceAccountToken) || pod.ServiceAccountName != name {
		t.Errorf("%s mounts a token, or another's account", name)
	}
	s := pod.SecurityContext
	if !yes(s.RunAsNonRoot) || s.RunAsUser == nil || *s.RunAsUser == 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s runs as %+v", name, s)
	}
	if len(pod.TopologySpreadConstraints) == 0 || pod.HostNetwork || pod.HostPID {
		t.Errorf("%s is not spread, or is on the host's network", name)
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if !no(s.AllowPrivilegeEscalation) || !yes(s.ReadOnlyRootFilesystem) || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: the container has %+v", name, s)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: the container has resources %+v", name, c.Resources)
		}
		if c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil {
			t.Errorf("%s lacks a probe", name)
		}
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			t.Errorf("%s mounts the host's %s", name, v.HostPath.Path)
		}
	}
}

// checkConfiguration holds Envoy's configuration against the objects around it.
func checkConfiguration(t *testing.T, text string, objects rendered) {
	t.Helper()
	var config struct {
		Admin struct {
			Address struct {
				SocketAddress struct{ Address string } `json:"socket_address"`
			}
		}
		StaticResources struct {
			Listeners []struct {
				Address struct {
					SocketAddress struct {
						PortValue int32 `json:"port_value"`
					} `json:"socket_address"`
				}
			}
			Clusters []struct {
				LoadAssignment struct {
					Endpoints []struct {
						LbEndpoints []struct {
							Endpoint struct {
								Address struct {
									SocketAddress struct {
										Address   string
										PortValue int32 `json:"port_value"`
									} `json:"socket_address"`
								}
							}
						} `json:"lb_endpoints"`
					}
				} `json:"load_assignment"`
			}
		} `json:"static_resources"`
	}
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	if got := config.Admin.Address.SocketAddress.Address; got != "127.0.0.1" {
		t.Errorf("admin is on %s", got)
	}
	container := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec.Containers[0]
	if got, want := config.StaticResources.Listeners[0].Address.SocketAddress.PortValue, container.Ports[0].ContainerPort; got != want || len(container.Ports) != 1 {
		t.Errorf("envoy listens on %d, its container has the ports %v", got, container.Ports)
	}
	upstream := config.StaticResources.Clusters[0].LoadAssignment.Endpoints[0].LbEndpoints[0].Endpoint.Address.SocketAddress
	service := get[*corev1.Service](t, objects, "Service/service")
	if upstream.Address != service.Name || upstream.PortValue != service.Spec.Ports[0].Port || service.Spec.ClusterIP != "None" {
		t.Errorf("envoy's cluster is at %s:%d, the service at %s:%d, with the address %q",
			upstream.Address, upstream.PortValue, service.Name, service.Spec.Ports[0].Port, service.Spec.ClusterIP)
	}
	mounted := map[string]bool{}
	for _, m := range container.VolumeMounts {
		mounted[m.MountPath] = true
	}
	for _, file := range []string{"/etc/envoy/tls/tls.crt", "/etc/envoy/tls/tls.key"} {
		if !strings.Contains(text, file) || !mounted[filepath.Dir(file)] {
			t.Errorf("%s is not in the configuration, or not mounted", file)
		}
	}
}

// Liveness must not ask the gate, or Kubernetes restarts Envoy when the backends are down.
func TestReadinessAsksTheGateAndLivenessDoesNot(t *testing.T) {
	c := get[*appsv1.Deployment](t, render(t, "base"), "Deployment/envoy").Spec.Template.Spec.Containers[0]
	ready := c.ReadinessProbe.HTTPGet
	if ready == nil || ready.Path != "/" || ready.Scheme != corev1.URISchemeHTTPS || ready.Port.StrVal != "https" {
		t.Errorf("readiness is %+v", c.ReadinessProbe)
	}
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.StartupProbe} {
		if probe.Exec == nil || !slices.Equal(probe.Exec.Command, []string{"/usr/local/bin/healthgate", "alive"}) {
			t.Errorf("liveness or start is %+v", probe)
		}
	}
	if stop := c.Lifecycle.PreStop.Exec; !slices.Equal(stop.Command, []string{"/usr/local/bin/healthgate", "drain"}) {
		t.Errorf("preStop is %+v", stop)
	}
}

// timers are what a balancer does with a gate that fails.
type timers struct {
	interval, timeout, threshold int // of its health check, in seconds and checks
	healthy                      int // checks that must pass before a new target is sent to
	draining                     int // how long it lets connections to a target that is out go on, in seconds
}

const (
	// act is what a balancer is given, after it has noticed, to stop sending, in seconds.
	act = 10
	// What Envoy needs to know a new pod of the service, in seconds: a DNS cache's time, Envoy's between two looks, its health
	// check's interval with the jitter.
	nameCache, resolve, check = 30, 5, 6
	// spare is what the kubelet is given between the end of preStop and the end of the grace, in seconds.
	spare = 10
)

// The relations of manifests/README.md, in every overlay.
func TestTimersOfAShutdownFitTogether(t *testing.T) {
	for folder, read := range map[string]func(rendered) timers{
		"overlays/gke-ingress": func(o rendered) timers {
			s := get[*backendConfig](t, o, "BackendConfig/envoy").Spec
			return timers{s.HealthCheck.CheckIntervalSec, s.HealthCheck.TimeoutSec, s.HealthCheck.UnhealthyThreshold, s.HealthCheck.HealthyThreshold, s.ConnectionDraining.DrainingTimeoutSec}
		},
		"overlays/gke-gateway": func(o rendered) timers {
			s := get[*healthCheckPolicy](t, o, "HealthCheckPolicy/envoy").Spec.Default
			draining := get[*gcpBackendPolicy](t, o, "GCPBackendPolicy/envoy").Spec.Default.ConnectionDraining.DrainingTimeoutSec
			return timers{s.CheckIntervalSec, s.TimeoutSec, s.UnhealthyThreshold, s.HealthyThreshold, draining}
		},
		"overlays/aws-alb": func(o rendered) timers {
			a := get[*networkingv1.Ingress](t, o, "Ingress/envoy").Annotations
			seconds := func(key string) int {
				n, err := strconv.Atoi(a["alb.ingress.kubernetes.io/"+key])
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
				return n
			}
			var draining int
			if _, err := fmt.Sscanf(a["alb.ingress.kubernetes.io/target-group-attributes"], "deregistration_delay.timeout_seconds=%d", &draining); err != nil {
				t.Error(err)
			}
			return timers{
				seconds("healthcheck-interval-seconds"), seconds("healthcheck-timeout-seconds"),
				seconds("unhealthy-threshold-count"), seconds("healthy-threshold-count"), draining,
			}
		},
		"overlays/local": func(o rendered) timers { return kubelet(t, o) },
	} {
		t.Run(folder, func(t *testing.T) { checkTimers(t, folder, read) })
	}
}

// checkTimers holds the timers of a pod to those of the balancer in front of it, and of the kubelet.
func checkTimers(t *testing.T, folder string, read func(rendered) timers) {
	t.Helper()
	objects := render(t, folder)
	envoy := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec
	pod, ready := envoy.Template.Spec, int(envoy.MinReadySeconds)
	env := map[string]int{}
	for _, e := range pod.Containers[0].Env {
		n, err := strconv.Atoi(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		env[e.Name] = n
	}
	notice, finish := env["DRAIN_NOTICE_SECONDS"], env["DRAIN_FINISH_SECONDS"]
	for _, b := range []timers{read(objects), kubelet(t, objects)} {
		if b.interval <= 0 || b.timeout <= 0 || b.threshold <= 0 || b.timeout >= b.interval {
			t.Errorf("the health check is %+v", b)
		}
		if need := b.interval*b.threshold + b.timeout + act; notice < need-boolToInt(b.draining == 0)*act {
			t.Errorf("the balancer needs up to %d s to notice and act, the drain gives it %d s", need, notice)
		}
		if need := b.interval*b.healthy + b.timeout + act; ready < need && b.draining != 0 {
			t.Errorf("the balancer needs up to %d s to take a new pod in, the old ones go after %d s", need, ready)
		}
		if b.draining != 0 && b.draining < finish {
			t.Errorf("the balancer cuts connections off after %d s, the drain lets them go on for %d s", b.draining, finish)
		}
	}
	if need := notice + finish + spare; int(*pod.TerminationGracePeriodSeconds) < need {
		t.Errorf("the grace is %d s, the drain needs %d s", *pod.TerminationGracePeriodSeconds, need)
	}
	if ready := int(get[*appsv1.Deployment](t, objects, "Deployment/service").Spec.MinReadySeconds); ready < nameCache+resolve+check {
		t.Errorf("the service's old pods go after %d s, Envoy knows the new ones after %d s", ready, nameCache+resolve+check)
	}
	if grace := pod.Containers[0].LivenessProbe.TerminationGracePeriodSeconds; grace == nil || *grace > spare {
		t.Errorf("an Envoy that hangs has a grace of %v", grace)
	}
}

// A node can be drained while the backends are down, and no Envoy is Ready for that.
func TestEnvoysThatAreNotReadyMayBeEvicted(t *testing.T) {
	policy := get[*policyv1.PodDisruptionBudget](t, render(t, "base"), "PodDisruptionBudget/envoy").Spec.UnhealthyPodEvictionPolicy
	if policy == nil || *policy != policyv1.AlwaysAllow {
		t.Errorf("the PodDisruptionBudget has the policy %v", policy)
	}
}

// As many connections as Envoy takes fit into the memory that it may have.
func TestEnvoysConnectionsFitIntoItsMemory(t *testing.T) {
	const connection, rest = 23 << 10, 128 << 20 // an idle one with TLS and HTTP/2, and what Envoy holds without any
	objects := render(t, "base")
	var config struct {
		OverloadManager struct {
			ResourceMonitors []struct {
				TypedConfig struct {
					Most int64 `json:"max_active_downstream_connections"`
				} `json:"typed_config"`
			} `json:"resource_monitors"`
		} `json:"overload_manager"`
	}
	if err := yaml.Unmarshal([]byte(get[*corev1.ConfigMap](t, objects, "ConfigMap/envoy").Data["envoy.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	limit := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec.Containers[0].Resources.Limits.Memory().Value()
	if most := config.OverloadManager.ResourceMonitors[0].TypedConfig.Most; most == 0 || rest+most*connection > limit {
		t.Errorf("%d connections need %d bytes, the limit is %d", most, rest+most*connection, limit)
	}
}

// kubelet is the readiness probe: who only follows endpoints, as a NodePort does, acts at once.
func kubelet(t *testing.T, o rendered) timers {
	t.Helper()
	p := get[*appsv1.Deployment](t, o, "Deployment/envoy").Spec.Template.Spec.Containers[0].ReadinessProbe
	return timers{int(p.PeriodSeconds), int(p.TimeoutSeconds), int(p.FailureThreshold), 1, 0}
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestGKEIngressReachesTheGate(t *testing.T) {
	objects := render(t, "overlays/gke-ingress")
	service := get[*corev1.Service](t, objects, "Service/envoy")
	ingress := get[*networkingv1.Ingress](t, objects, "Ingress/envoy")
	backend := get[*backendConfig](t, objects, "BackendConfig/envoy")
	certificate := get[*managedCertificate](t, objects, "ManagedCertificate/envoy")
	annotation := func(name string) map[string]any {
		var value map[string]any
		if err := json.Unmarshal([]byte(service.Annotations[name]), &value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return value
	}
	if annotation("cloud.google.com/neg")["ingress"] != true ||
		annotation("cloud.google.com/app-protocols")[service.Spec.Ports[0].Name] != "HTTP2" ||
		annotation("cloud.google.com/backend-config")["default"] != backend.Metadata.Name {
		t.Errorf("the Service has %v", service.Annotations)
	}
	to := ingress.Spec.DefaultBackend.Service
	if to.Name != service.Name || to.Port.Name != service.Spec.Ports[0].Name {
		t.Errorf("the Ingress sends to %+v", to)
	}
	if ingress.Annotations["kubernetes.io/ingress.allow-http"] != "false" || ingress.Annotations["kubernetes.io/ingress.global-static-ip-name"] == "" ||
		ingress.Annotations["networking.gke.io/managed-certificates"] != certificate.Metadata.Name || len(certificate.Spec.Domains) == 0 {
		t.Errorf("the Ingress has %v", ingress.Annotations)
	}
	if check := backend.Spec.HealthCheck; check.Type != "HTTP2" || check.RequestPath != "/" || check.Port != 8443 {
		t.Errorf("the health check is %+v", check)
	}
}

func TestGKEGatewayReachesTheGate(t *testing.T) {
	objects := render(t, "overlays/gke-gateway")
	service := get[*corev1.Service](t, objects, "Service/envoy")
	gateway := get[*gatewayv1.Gateway](t, objects, "Gateway/envoy")
	route := get[*gatewayv1.HTTPRoute](t, objects, "HTTPRoute/envoy")
	check := get[*healthCheckPolicy](t, objects, "HealthCheckPolicy/envoy")
	policy := get[*gcpBackendPolicy](t, objects, "GCPBackendPolicy/envoy")
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
	for _, ref := range []targetRef{check.Spec.TargetRef, policy.Spec.TargetRef} {
		if ref != (targetRef{Kind: "Service", Name: service.Name}) {
			t.Errorf("a policy is for %+v", ref)
		}
	}
	if c := check.Spec.Default.Config; c.Type != "HTTP2" || c.HTTP2HealthCheck.RequestPath != "/" || c.HTTP2HealthCheck.Port != 8443 {
		t.Errorf("the health check is %+v", c)
	}
}

func TestALBReachesTheGate(t *testing.T) {
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

// The lines for version GRPC stand in place of lines that are there, and ask for the gate's path and gRPC's OK.
func TestALBOfVersionGRPCReachesTheGate(t *testing.T) {
	text, err := os.ReadFile(inRoot("manifests", "overlays", "aws-alb", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	snippet, _, _ := strings.Cut(rest, "```")
	var lines map[string]string
	if err := yaml.UnmarshalStrict([]byte(snippet), &lines); err != nil {
		t.Fatal(err)
	}
	const prefix = "alb.ingress.kubernetes.io/"
	want := map[string]string{prefix + "backend-protocol-version": "GRPC", prefix + "healthcheck-path": "/", prefix + "success-codes": "0"}
	if !maps.Equal(lines, want) {
		t.Errorf("README.md has %v, want %v", lines, want)
	}
	ingress := get[*networkingv1.Ingress](t, render(t, "overlays/aws-alb"), "Ingress/envoy")
	for name := range lines {
		if ingress.Annotations[name] == "" {
			t.Errorf("%s stands in place of nothing", name)
		}
	}
}

// No secret is made from what is in the repository.
func TestTheKeyComesFromASecretThatIsNotHere(t *testing.T) {
	for _, folder := range overlays(t) {
		pod := get[*appsv1.Deployment](t, render(t, folder), "Deployment/envoy").Spec.Template.Spec
		if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == "envoy-tls" }) {
			t.Errorf("%s: envoy mounts no Secret envoy-tls", folder)
		}
	}
}
