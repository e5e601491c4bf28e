package repo

import (
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

// kinds are the kinds that the manifests may have.
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
}

// rendered has the objects of a folder, by kind and name.
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
		if resource.GetKind() == "ConfigMap" { // its name ends with a hash of its content
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

// decode reads an object strictly by its type or CRD.
func decode(version, kind string, text []byte) (any, error) {
	if version == envoyGatewayVersion {
		return readByCRD(kind, text)
	}
	make := kinds[version+"/"+kind]
	if make == nil {
		return readCloudObject(version+"/"+kind, text)
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

// variants returns base and each overlay, with and without components.
func variants(t *testing.T) []kustomize.Variant {
	t.Helper()
	all, err := kustomize.Variants()
	if err != nil || len(all) < 10 {
		t.Fatalf("found %v, %v", all, err)
	}
	return all
}

func TestObjectsOfEachOverlayFitTogether(t *testing.T) {
	for _, variant := range variants(t) {
		if variant.Folder == kustomize.EnvoyGateway {
			continue // Envoy Gateway makes the Envoys
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

// checkWorkload compares a Deployment with the objects that select its pods, and with the ports that reach them.
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
			t.Errorf("the Service of %s has the port %v, which its container lacks", name, port.TargetPort)
		}
	}
	open := map[int32]bool{}
	for _, rule := range network.Spec.Ingress {
		for _, port := range rule.Ports {
			open[port.Port.IntVal] = true
		}
	}
	for _, port := range container.Ports {
		// A NetworkPolicy does not block the kubelet of the pod's node.
		if open[port.ContainerPort] == (port.Name == "alive") {
			t.Errorf("the NetworkPolicy of %s opens %v, its container has the ports %v", name, open, container.Ports)
		}
		delete(open, port.ContainerPort)
	}
	if len(open) > 0 {
		t.Errorf("the NetworkPolicy of %s opens %v, on which nothing listens", name, open)
	}
	for _, other := range []string{"envoy", "service"} {
		if other != name && contains(podLabels, get[*corev1.Service](t, objects, "Service/"+other).Spec.Selector) {
			t.Errorf("the Service %s selects the pods of %s", other, name)
		}
	}
}

// portOf returns the number of a container's port, or 0.
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

// checkPods checks the rules of Pod Security restricted, and more.
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
		drops := slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) && len(s.Capabilities.Add) == 0
		if !no(s.AllowPrivilegeEscalation) || !yes(s.ReadOnlyRootFilesystem) || !drops {
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

// configuration returns Envoy's configuration: the mounted file, merged with its arguments.
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

// checkConfiguration compares Envoy's configuration with the objects around it.
func checkConfiguration(t *testing.T, objects rendered) {
	t.Helper()
	config := configuration(t, objects)
	if err := validate(config.JSON()); err != nil {
		t.Error(err)
	}
	container := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec.Containers[0]
	names := map[string]string{"ingress": "https", "alive": "alive", "metrics": "metrics"} // from listeners to ports
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

// checkUpstream checks that Envoy's cluster is the headless Service, and that the NetworkPolicy lets Envoy reach it.
func checkUpstream(t *testing.T, config *testbed.Bootstrap, objects rendered) {
	t.Helper()
	host := config.Cluster().GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0]
	upstream := host.GetEndpoint().GetAddress().GetSocketAddress()
	service := get[*corev1.Service](t, objects, "Service/service")
	port := service.Spec.Ports[0]
	at := fmt.Sprintf("%v:%v", upstream.GetAddress(), upstream.GetPortValue())
	if want := fmt.Sprintf("%s:%d", service.Name, port.Port); at != want || service.Spec.ClusterIP != "None" {
		t.Errorf("envoy's cluster is at %s, the service at %s, with the address %q", at, want, service.Spec.ClusterIP)
	}
	out := get[*networkingv1.NetworkPolicy](t, objects, "NetworkPolicy/envoy").Spec.Egress[0]
	if !maps.Equal(out.To[0].PodSelector.MatchLabels, service.Spec.Selector) || out.Ports[0].Port.IntVal != port.Port {
		t.Errorf("envoy may send to %+v, the service is at %v, port %d", out, service.Spec.Selector, port.Port)
	}
}

// If liveness depended on the gate, Kubernetes would restart Envoy while the backends are down.
func TestReadinessDependsOnTheGateAndLivenessDoesNot(t *testing.T) {
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
				get := probe.HTTPGet
				byRequest := get != nil && get.Path == "/" && get.Port.StrVal == "alive" && get.Scheme != corev1.URISchemeHTTPS
				if module := slices.Contains(variant.Components, "module"); byRequest != module || byCommand == module {
					t.Errorf("liveness or start is %+v", probe)
				}
			}
			if stop := c.Lifecycle.PreStop.Exec; !slices.Equal(stop.Command, []string{"/usr/local/bin/healthgate", "drain"}) {
				t.Errorf("preStop is %+v", stop)
			}
		})
	}
}

// table returns the column value of manifests/README.md's tables, by the first column.
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

// `healthgate lint` checks the timers against each other; this checks that manifests/README.md has them.
func TestTimersAgreeWithTheTable(t *testing.T) {
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
			t.Errorf("%s: the timeout is %v s, the interval %v s", name, b.timeout, b.interval)
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

func TestMaximumOfConnectionsFitsIntoMemory(t *testing.T) {
	const connection, rest = 23 << 10, 128 << 20 // an idle connection with TLS and HTTP/2; Envoy without connections
	for _, components := range [][]string{nil, {"module"}} {
		objects := render(t, "base", components...)
		most := configuration(t, objects).ConnectionLimit().GetMaxActiveDownstreamConnections()
		container := get[*appsv1.Deployment](t, objects, "Deployment/envoy").Spec.Template.Spec.Containers[0]
		limit := container.Resources.Limits.Memory().Value()
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
