package repo

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
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
	podMonitor struct {
		object
		Spec struct {
			Selector            labelSelector `json:"selector"`
			PodMetricsEndpoints []scraped     `json:"podMetricsEndpoints"`
		} `json:"spec"`
	}
	podMonitoring struct {
		object
		Spec struct {
			Selector  labelSelector `json:"selector"`
			Endpoints []scraped     `json:"endpoints"`
		} `json:"spec"`
	}
	labelSelector struct {
		MatchLabels map[string]string `json:"matchLabels"`
	}
	scraped struct {
		Port     string `json:"port"`
		Path     string `json:"path"`
		Interval string `json:"interval"`
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
	"v1/ConfigMap":                               func() any { return &corev1.ConfigMap{} },
	"v1/Service":                                 func() any { return &corev1.Service{} },
	"v1/ServiceAccount":                          func() any { return &corev1.ServiceAccount{} },
	"apps/v1/Deployment":                         func() any { return &appsv1.Deployment{} },
	"policy/v1/PodDisruptionBudget":              func() any { return &policyv1.PodDisruptionBudget{} },
	"networking.k8s.io/v1/NetworkPolicy":         func() any { return &networkingv1.NetworkPolicy{} },
	"networking.k8s.io/v1/Ingress":               func() any { return &networkingv1.Ingress{} },
	"gateway.networking.k8s.io/v1/Gateway":       func() any { return &gatewayv1.Gateway{} },
	"gateway.networking.k8s.io/v1/HTTPRoute":     func() any { return &gatewayv1.HTTPRoute{} },
	"cloud.google.com/v1/BackendConfig":          func() any { return &backendConfig{} },
	"networking.gke.io/v1/ManagedCertificate":    func() any { return &managedCertificate{} },
	"networking.gke.io/v1/HealthCheckPolicy":     func() any { return &healthCheckPolicy{} },
	"networking.gke.io/v1/GCPBackendPolicy":      func() any { return &gcpBackendPolicy{} },
	"monitoring.coreos.com/v1/PodMonitor":        func() any { return &podMonitor{} },
	"monitoring.googleapis.com/v1/PodMonitoring": func() any { return &podMonitoring{} },
}

// rendered are the objects of a folder, by kind and name.
type rendered map[string]any

func render(t *testing.T, folder string, components ...string) rendered {
	t.Helper()
	built, err := kustomize.Build(folder, components...)
	if err != nil {
		t.Fatal(err)
	}
	objects := rendered{}
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		name := resource.GetName()
		if resource.GetKind() == "ConfigMap" { // it has a hash of its content behind its name
			name = name[:strings.LastIndexByte(name, '-')]
		}
		o, err := decode(resource.GetGvk().ApiVersion(), resource.GetKind(), text)
		if err != nil {
			t.Errorf("%s: %s %s: %v", folder, resource.GetKind(), resource.GetName(), err)
		}
		objects[resource.GetKind()+"/"+name] = o
	}
	return objects
}

// decode reads an object by its type, with no unknown field.
func decode(version, kind string, text []byte) (any, error) {
	if version == envoyGatewayVersion {
		return readByCRD(kind, text)
	}
	make := kinds[version+"/"+kind]
	if make == nil {
		return nil, fmt.Errorf("nothing here checks %s/%s", version, kind)
	}
	o := make()
	return o, yaml.UnmarshalStrict(text, o)
}

func get[T any](t *testing.T, objects rendered, name string) T {
	t.Helper()
	o, ok := objects[name].(T)
	if !ok {
		t.Fatalf("there is no %s among %v", name, slices.Sorted(maps.Keys(objects)))
	}
	return o
}

// variants are what is rendered: base and each overlay, with and without components.
func variants(t *testing.T) []kustomize.Variant {
	t.Helper()
	all, err := kustomize.Variants()
	if err != nil || len(all) < 10 {
		t.Fatalf("found %v, %v", all, err)
	}
	return all
}

// What every overlay keeps of the base, whichever components it has.
func TestEveryOverlayIsWhole(t *testing.T) {
	for _, variant := range variants(t) {
		if variant.Folder == kustomize.EnvoyGateway {
			continue // its Envoys are not ours
		}
		t.Run(variant.String(), func(t *testing.T) {
			objects := render(t, variant.Folder, variant.Components...)
			workloads := []string{"envoy", "service"}
			if slices.Contains(variant.Components, "own-service") {
				workloads = workloads[:1]
			}
			for _, name := range workloads {
				checkWorkload(t, name, objects)
			}
			config := get[*corev1.ConfigMap](t, objects, "ConfigMap/envoy")
			envoy := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec
			if !slices.ContainsFunc(envoy.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == config.Name }) {
				t.Errorf("envoy does not mount the ConfigMap %s", config.Name)
			}
			checkConfiguration(t, objects)
		})
	}
}

// checkWorkload holds a Deployment against what selects its pods, and what reaches them.
func checkWorkload(t *testing.T, name string, objects rendered) {
	t.Helper()
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
		if portOf(container, port.TargetPort.StrVal) == 0 {
			t.Errorf("the Service of %s has the port %v, which its container has not", name, port.TargetPort)
		}
	}
	open := map[int32]bool{}
	for _, rule := range network.Spec.Ingress {
		for _, port := range rule.Ports {
			open[port.Port.IntVal] = true
		}
	}
	for _, port := range container.Ports {
		// A kubelet reaches the pods of its node, whatever a NetworkPolicy says.
		if open[port.ContainerPort] == (port.Name == "alive") {
			t.Errorf("the NetworkPolicy of %s opens %v, its container has the ports %v", name, open, container.Ports)
		}
		delete(open, port.ContainerPort)
	}
	if len(open) > 0 {
		t.Errorf("the NetworkPolicy of %s opens %v, where nothing listens", name, open)
	}
	for _, other := range []string{"envoy", "service"} {
		if other != name && contains(podLabels, get[*corev1.Service](t, objects, "Service/"+other).Spec.Selector) {
			t.Errorf("the Service %s selects the pods of %s", other, name)
		}
	}
}

// portOf is the number of a container's port, or 0.
func portOf(container corev1.Container, name string) int32 {
	for _, port := range container.Ports {
		if port.Name == name {
			return port.ContainerPort
		}
	}
	return 0
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

// configuration is Envoy's, as its container is started with it: the file that is mounted, and what its arguments add.
func configuration(t *testing.T, objects rendered) *testbed.Bootstrap {
	t.Helper()
	container := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec.Containers[0]
	var file string
	for _, m := range container.VolumeMounts {
		if m.MountPath == "/etc/envoy/envoy.yaml" {
			file = m.SubPath
		}
	}
	config := parseConfig(t, get[*corev1.ConfigMap](t, objects, "ConfigMap/envoy").Data[file])
	flags := []string{"--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--drain-strategy", "immediate"}
	if len(container.Args) == len(flags)+2 && container.Args[len(flags)] == "--config-yaml" {
		added := parseConfig(t, container.Args[len(flags)+1])
		all, more := config.StaticResources, added.StaticResources
		all.Listeners, all.Clusters = append(all.Listeners, more.Listeners...), append(all.Clusters, more.Clusters...)
		flags = container.Args
	}
	if !slices.Equal(container.Args, flags) {
		t.Errorf("envoy is started with %q", container.Args)
	}
	return config
}

func parseConfig(t *testing.T, text string) *testbed.Bootstrap {
	t.Helper()
	config, err := testbed.ParseBootstrap([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// checkConfiguration holds Envoy's configuration against the objects around it.
func checkConfiguration(t *testing.T, objects rendered) {
	t.Helper()
	config := configuration(t, objects)
	if err := validate(config.JSON()); err != nil {
		t.Error(err)
	}
	container := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec.Containers[0]
	names := map[string]string{"ingress": "https", "alive": "alive", "metrics": "metrics"} // of listeners, to those of ports
	listeners := config.StaticResources.Listeners
	for _, l := range listeners {
		if got := fmt.Sprint(l.GetAddress().GetSocketAddress().GetPortValue()); got != fmt.Sprint(portOf(container, names[l.Name])) {
			t.Errorf("envoy's listener %s is at %s, its container has the ports %v", l.Name, got, container.Ports)
		}
	}
	if len(container.Ports) != len(listeners) {
		t.Errorf("envoy has %d listeners, its container the ports %v", len(listeners), container.Ports)
	}
	checkUpstream(t, config, objects)
	mounted := map[string]bool{}
	for _, m := range container.VolumeMounts {
		mounted[m.MountPath] = true
	}
	for _, file := range []string{"/etc/envoy/tls/tls.crt", "/etc/envoy/tls/tls.key"} {
		if !strings.Contains(string(config.JSON()), file) || !mounted[filepath.Dir(file)] {
			t.Errorf("%s is not in the configuration, or not mounted", file)
		}
	}
}

// checkUpstream wants Envoy's cluster to be the headless Service, and to be reached.
func checkUpstream(t *testing.T, config *testbed.Bootstrap, objects rendered) {
	t.Helper()
	host := config.Cluster().GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0]
	upstream := host.GetEndpoint().GetAddress().GetSocketAddress()
	service := get[*corev1.Service](t, objects, "Service/service")
	port := service.Spec.Ports[0]
	if upstream.GetAddress() != service.Name || upstream.GetPortValue() != uint32(port.Port) || service.Spec.ClusterIP != "None" {
		t.Errorf("envoy's cluster is at %s, the service at %s:%d, with the address %q", upstream, service.Name, port.Port, service.Spec.ClusterIP)
	}
	out := get[*networkingv1.NetworkPolicy](t, objects, "NetworkPolicy/envoy").Spec.Egress[0]
	if !maps.Equal(out.To[0].PodSelector.MatchLabels, service.Spec.Selector) || out.Ports[0].Port.IntVal != port.Port {
		t.Errorf("envoy may send to %+v, the service is at %v, port %d", out, service.Spec.Selector, port.Port)
	}
}

// Liveness must not ask the gate, or Kubernetes restarts Envoy when the backends are down.
func TestReadinessAsksTheGateAndLivenessDoesNot(t *testing.T) {
	for _, variant := range variants(t) {
		if variant.Folder != "base" {
			continue
		}
		t.Run(variant.String(), func(t *testing.T) {
			c := get[*appsv1.Deployment](t, render(t, variant.Folder, variant.Components...), "Deployment/envoy").Spec.Template.Spec.Containers[0]
			ready := c.ReadinessProbe.HTTPGet
			if ready == nil || ready.Path != "/" || ready.Scheme != corev1.URISchemeHTTPS || ready.Port.StrVal != "https" {
				t.Errorf("readiness is %+v", c.ReadinessProbe)
			}
			for _, probe := range []*corev1.Probe{c.LivenessProbe, c.StartupProbe} {
				byCommand := probe.Exec != nil && slices.Equal(probe.Exec.Command, []string{"/usr/local/bin/healthgate", "alive"})
				byRequest := probe.HTTPGet != nil && probe.HTTPGet.Path == "/" && probe.HTTPGet.Port.StrVal == "alive" && probe.HTTPGet.Scheme != corev1.URISchemeHTTPS
				if stock := slices.Contains(variant.Components, "module"); byRequest != stock || byCommand == stock {
					t.Errorf("liveness or start is %+v", probe)
				}
			}
			if stop := c.Lifecycle.PreStop.Exec; !slices.Equal(stop.Command, []string{"/usr/local/bin/healthgate", "drain"}) {
				t.Errorf("preStop is %+v", stop)
			}
		})
	}
}

// check is a balancer's health check, and how long it lets connections to a pod that is out go on; in seconds and checks.
type check struct{ interval, timeout, unhealthy, healthy, draining int }

// sum is how long the balancer may take to notice and to act, as the table has it.
func (c check) sum() string {
	const act = 10
	return fmt.Sprintf("%d × %d + %d + %d = %d", c.interval, c.unhealthy, c.timeout, act, c.interval*c.unhealthy+c.timeout+act)
}

// balancers are the health checks of the overlays, each by its name in the table.
func balancers(t *testing.T) map[string]check {
	t.Helper()
	gke := render(t, "overlays/gke-ingress")
	config := get[*backendConfig](t, gke, "BackendConfig/envoy").Spec
	gateway := render(t, "overlays/gke-gateway")
	policy := get[*healthCheckPolicy](t, gateway, "HealthCheckPolicy/envoy").Spec.Default
	annotations := get[*networkingv1.Ingress](t, render(t, "overlays/aws-alb"), "Ingress/envoy").Annotations
	seconds := func(key string) (n int) {
		if _, err := fmt.Sscan(annotations["alb.ingress.kubernetes.io/"+key], &n); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		return n
	}
	var draining int
	if _, err := fmt.Sscanf(annotations["alb.ingress.kubernetes.io/target-group-attributes"], "deregistration_delay.timeout_seconds=%d", &draining); err != nil {
		t.Error(err)
	}
	return map[string]check{
		"GKE Ingress": {config.HealthCheck.CheckIntervalSec, config.HealthCheck.TimeoutSec, config.HealthCheck.UnhealthyThreshold,
			config.HealthCheck.HealthyThreshold, config.ConnectionDraining.DrainingTimeoutSec},
		"GKE Gateway": {policy.CheckIntervalSec, policy.TimeoutSec, policy.UnhealthyThreshold, policy.HealthyThreshold,
			get[*gcpBackendPolicy](t, gateway, "GCPBackendPolicy/envoy").Spec.Default.ConnectionDraining.DrainingTimeoutSec},
		"AWS ALB": {seconds("healthcheck-interval-seconds"), seconds("healthcheck-timeout-seconds"), seconds("unhealthy-threshold-count"),
			seconds("healthy-threshold-count"), draining},
	}
}

// table are the last columns of manifests/README.md's tables, by the first; value tells which.
func table(t *testing.T, value int) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for line := range strings.Lines(readFile(t, inRoot("manifests", "README.md"))) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) > value {
			rows[strings.TrimSpace(cells[0])] = strings.TrimSpace(cells[value])
		}
	}
	return rows
}

// manifests/README.md has all timers, and `healthgate lint` holds most of them against each other.
func TestTimersAreThoseOfTheTable(t *testing.T) {
	objects := render(t, "base")
	envoy := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec
	container := envoy.Template.Spec.Containers[0]
	env := map[string]string{}
	for _, e := range container.Env {
		env[e.Name] = e.Value
	}
	ready := container.ReadinessProbe
	starting := get[*appsv1.Deployment](t, render(t, "base", "module"), "Deployment/envoy").Spec.Template.Spec.Containers[0].StartupProbe
	proxy := treeOf(get[map[string]any](t, render(t, kustomize.EnvoyGateway), "EnvoyProxy/envoy"))
	want := map[string]string{
		"delay":                     env["DRAIN_DELAY"],
		"timeout":                   env["DRAIN_TIMEOUT"],
		"grace":                     fmt.Sprint(*envoy.Template.Spec.TerminationGracePeriodSeconds),
		"readiness":                 fmt.Sprintf("%d × %d + %d", ready.PeriodSeconds, ready.FailureThreshold, ready.TimeoutSeconds),
		"new Envoys":                fmt.Sprint(envoy.MinReadySeconds),
		"new hosts":                 fmt.Sprint(get[*appsv1.Deployment](t, objects, "Deployment/service").Spec.MinReadySeconds),
		"hanging":                   fmt.Sprint(*container.LivenessProbe.TerminationGracePeriodSeconds),
		"starting, module":          fmt.Sprintf("%d × %d", starting.PeriodSeconds, starting.FailureThreshold),
		"delay, Envoy Gateway":      strings.TrimSuffix(fmt.Sprint(proxy.Get("spec.shutdown.minDrainDuration")), "s"),
		"timeout, Envoy Gateway":    strings.TrimSuffix(fmt.Sprint(proxy.Get("spec.shutdown.drainTimeout")), "s"),
		"new Envoys, Envoy Gateway": fmt.Sprint(proxy.Get("spec.provider.kubernetes.envoyDeployment.patch.value.spec.minReadySeconds")),
	}
	sums := table(t, 1)
	for name, b := range balancers(t) {
		if b.timeout <= 0 || b.timeout >= b.interval {
			t.Errorf("%s: the timeout is %d s, the interval %d s", name, b.timeout, b.interval)
		}
		if sums[name] != b.sum() {
			t.Errorf("the table has %q for %s, the overlay %q", sums[name], name, b.sum())
		}
		want["draining, "+name] = fmt.Sprint(b.draining)
	}
	rows := table(t, 2)
	for name, value := range want {
		if rows[name] != value {
			t.Errorf("the table has %q for %s, the manifests %q", rows[name], name, value)
		}
	}
}

// As many connections as Envoy takes fit into the memory that it may have, by either variant.
func TestEnvoysConnectionsFitIntoItsMemory(t *testing.T) {
	const connection, rest = 23 << 10, 128 << 20 // an idle one with TLS and HTTP/2, and what Envoy holds without any
	for _, components := range [][]string{nil, {"module"}} {
		objects := render(t, "base", components...)
		most := configuration(t, objects).ConnectionLimit().GetMaxActiveDownstreamConnections()
		limit := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec.Containers[0].Resources.Limits.Memory().Value()
		if need := rest + most*connection; most == 0 || need > limit {
			t.Errorf("%v: %v connections need %d bytes, the limit is %d", components, most, need, limit)
		}
	}
	proxy := treeOf(get[map[string]any](t, render(t, kustomize.EnvoyGateway), "EnvoyProxy/envoy"))
	policy := treeOf(get[map[string]any](t, render(t, kustomize.EnvoyGateway), "ClientTrafficPolicy/envoy"))
	limit := resource.MustParse(fmt.Sprint(proxy.Get("spec.provider.kubernetes.envoyDeployment.container.resources.limits.memory")))
	if most, _ := policy.Get("spec.connection.connectionLimit.value").(float64); most == 0 || rest+int64(most)*connection > limit.Value() {
		t.Errorf("Envoy Gateway: %v connections, and %v", most, limit.String())
	}
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

// Whoever scrapes asks the pods, the port and the path that are there.
func TestMetricsAreScrapedWhereTheyAre(t *testing.T) {
	for component, read := range map[string]func(rendered) (labelSelector, []scraped){
		"metrics/pod-monitor": func(o rendered) (labelSelector, []scraped) {
			m := get[*podMonitor](t, o, "PodMonitor/envoy").Spec
			return m.Selector, m.PodMetricsEndpoints
		},
		"metrics/pod-monitoring": func(o rendered) (labelSelector, []scraped) {
			m := get[*podMonitoring](t, o, "PodMonitoring/envoy").Spec
			return m.Selector, m.Endpoints
		},
	} {
		t.Run(component, func(t *testing.T) {
			objects := render(t, "base", component)
			envoy := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template
			selector, endpoints := read(objects)
			if len(selector.MatchLabels) == 0 || !contains(envoy.Labels, selector.MatchLabels) {
				t.Errorf("it selects %v, the pods have %v", selector, envoy.Labels)
			}
			config := configuration(t, objects)
			metrics := config.HCMOf(config.StaticResources.Listeners[1])
			path := metrics.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetMatch().GetPath()
			if len(endpoints) != 1 || portOf(envoy.Spec.Containers[0], endpoints[0].Port) == 0 || endpoints[0].Path != path {
				t.Errorf("it scrapes %+v, the listener has %v", endpoints, path)
			}
		})
	}
}
