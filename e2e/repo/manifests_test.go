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
	"k8s.io/apimachinery/pkg/labels"
	kustomized "sigs.k8s.io/kustomize/api/resource"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// objects are the objects of a folder, by kind and name.
type objects map[string]*kustomized.Resource

// render returns the objects of a folder with components. Each must fit the schema of its kind.
func render(t *testing.T, folder string, components ...string) objects {
	t.Helper()
	built, err := kustomize.Build(folder, components...)
	if err != nil {
		t.Fatal(err)
	}
	all := objects{}
	for _, o := range built.Resources() {
		name := o.GetName()
		if o.GetKind() == "ConfigMap" { // its name ends with a hash of its content
			name = name[:strings.LastIndexByte(name, '-')]
		}
		if err := checkSchema(o); err != nil {
			t.Errorf("%s: %s %s: %v", folder, o.GetKind(), name, err)
		}
		all[o.GetKind()+"/"+name] = o
	}
	return all
}

// get returns an object as its type.
func get[T any](t *testing.T, from objects, name string) *T {
	t.Helper()
	if from[name] == nil {
		t.Fatalf("there is no %s among %v", name, slices.Sorted(maps.Keys(from)))
	}
	o := new(T)
	if err := decode(from[name], o); err != nil {
		t.Fatal(err)
	}
	return o
}

// The objects of each overlay, with and without components, fit together.
func TestObjectsOfEachOverlayFitTogether(t *testing.T) {
	variants, err := kustomize.Variants()
	if err != nil || len(variants) < 10 {
		t.Fatalf("found %v, %v", variants, err)
	}
	for _, variant := range variants {
		t.Run(variant.String(), func(t *testing.T) {
			all := render(t, variant.Folder, variant.Components...)
			if variant.Folder == kustomize.EnvoyGateway {
				return // Envoy Gateway makes the Envoys
			}
			checkWorkload(t, "envoy", all)
			if !slices.Contains(variant.Components, "own-service") {
				checkWorkload(t, "service", all)
			}
			checkConfiguration(t, all)
		})
	}
}

// checkWorkload compares a Deployment with the objects that select its pods, and with the ports that reach them.
func checkWorkload(t *testing.T, name string, all objects) {
	t.Helper()
	d := get[appsv1.Deployment](t, all, "Deployment/"+name)
	service := get[corev1.Service](t, all, "Service/"+name)
	network := get[networkingv1.NetworkPolicy](t, all, "NetworkPolicy/"+name)
	for what, selector := range map[string]map[string]string{
		"Deployment": d.Spec.Selector.MatchLabels, "Service": service.Spec.Selector,
		"PodDisruptionBudget": get[policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget/"+name).Spec.Selector.MatchLabels,
		"NetworkPolicy":       network.Spec.PodSelector.MatchLabels,
	} {
		if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(d.Spec.Template.Labels)) {
			t.Errorf("the %s of %s selects %v, its pods have %v", what, name, selector, d.Spec.Template.Labels)
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
	want := map[int32]bool{}
	for _, port := range container.Ports {
		if port.Name != "alive" { // a NetworkPolicy does not block the kubelet of the pod's node
			want[port.ContainerPort] = true
		}
	}
	if !maps.Equal(open, want) {
		t.Errorf("the NetworkPolicy of %s opens %v, its container has the ports %v", name, open, want)
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

// configuration returns Envoy's container, and its configuration: the mounted file, merged with the container's arguments.
func configuration(t *testing.T, all objects) (corev1.Container, *testbed.Bootstrap) {
	t.Helper()
	pod := get[appsv1.Deployment](t, all, "Deployment/envoy").Spec.Template.Spec
	container, file := pod.Containers[0], ""
	for _, m := range container.VolumeMounts {
		if m.MountPath == "/etc/envoy/envoy.yaml" {
			file = m.SubPath
		}
	}
	files := get[corev1.ConfigMap](t, all, "ConfigMap/envoy")
	if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == files.Name }) {
		t.Errorf("envoy does not mount the ConfigMap %s", files.Name)
	}
	config := parseConfig(t, files.Data[file])
	flags := []string{"--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--drain-strategy", "immediate"}
	if len(container.Args) == len(flags)+2 && container.Args[len(flags)] == "--config-yaml" {
		flags = container.Args
		added := parseConfig(t, container.Args[len(container.Args)-1]).StaticResources
		config.StaticResources.Listeners = append(config.StaticResources.Listeners, added.Listeners...)
	}
	if !slices.Equal(container.Args, flags) {
		t.Errorf("envoy is started with %q", container.Args)
	}
	return container, config
}

func parseConfig(t *testing.T, text string) *testbed.Bootstrap {
	t.Helper()
	config, err := testbed.ParseBootstrap([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// checkConfiguration compares Envoy's configuration with the objects around it. `make lint` checks the configuration itself.
func checkConfiguration(t *testing.T, all objects) {
	t.Helper()
	container, config := configuration(t, all)
	ports := map[string]string{"ingress": "https", "alive": "alive", "metrics": "metrics"} // by the name of the listener
	listeners := config.StaticResources.Listeners
	for _, l := range listeners {
		if got, want := l.GetAddress().GetSocketAddress().GetPortValue(), portOf(container, ports[l.Name]); got != uint32(want) {
			t.Errorf("envoy's listener %s is at %d, the container's port at %d", l.Name, got, want)
		}
	}
	if len(container.Ports) != len(listeners) {
		t.Errorf("envoy has %d listeners, its container the ports %v", len(listeners), container.Ports)
	}
	for _, file := range []string{"/etc/envoy/tls/tls.crt", "/etc/envoy/tls/tls.key"} {
		mounted := func(m corev1.VolumeMount) bool { return m.MountPath == filepath.Dir(file) }
		if !strings.Contains(string(config.JSON()), file) || !slices.ContainsFunc(container.VolumeMounts, mounted) {
			t.Errorf("%s is not in the configuration, or not mounted", file)
		}
	}
	// The cluster is the headless Service, and the NetworkPolicy lets Envoy reach it.
	upstream := config.Cluster().GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
	service := get[corev1.Service](t, all, "Service/service")
	port := service.Spec.Ports[0].Port
	if upstream.GetAddress() != service.Name || upstream.GetPortValue() != uint32(port) || service.Spec.ClusterIP != "None" {
		t.Errorf("envoy's cluster is at %v, the Service is %+v", upstream, service.Spec)
	}
	out := get[networkingv1.NetworkPolicy](t, all, "NetworkPolicy/envoy").Spec.Egress[0]
	if !maps.Equal(out.To[0].PodSelector.MatchLabels, service.Spec.Selector) || out.Ports[0].Port.IntVal != port {
		t.Errorf("envoy may send to %+v, the service is at %v, port %d", out, service.Spec.Selector, port)
	}
}

func TestMaximumOfConnectionsFitsIntoMemory(t *testing.T) {
	fits := func(connections int64, memory resource.Quantity) {
		const connection, rest = 23 << 10, 128 << 20 // an idle connection with TLS and HTTP/2; Envoy without connections
		if connections == 0 || rest+connections*connection > memory.Value() {
			t.Errorf("%d connections do not fit into %s", connections, memory.String())
		}
	}
	for _, components := range [][]string{nil, {"module"}} {
		container, config := configuration(t, render(t, "base", components...))
		fits(config.ConnectionLimit().GetMaxActiveDownstreamConnections(), *container.Resources.Limits.Memory())
	}
	gateways := render(t, kustomize.EnvoyGateway)
	var connections int64
	if _, err := fmt.Sscan(gateways.fill("{ClientTrafficPolicy/envoy spec.connection.connectionLimit.value}"), &connections); err != nil {
		t.Fatal(err)
	}
	fits(connections, resource.MustParse(
		gateways.fill("{EnvoyProxy/envoy spec.provider.kubernetes.envoyDeployment.container.resources.limits.memory}")))
}
