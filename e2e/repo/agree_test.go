package repo

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
)

// place is "{Kind/name path}" in a text.
var place = regexp.MustCompile(`\{(\w+/\w+) ([^}]+)\}`)

// fill replaces each place in a text by its value, or by "nothing".
func (o objects) fill(text string) string {
	return place.ReplaceAllStringFunc(text, func(text string) string {
		at := place.FindStringSubmatch(text)
		if o[at[1]] == nil {
			return "no object " + at[1]
		}
		value, err := o[at[1]].GetFieldValue(at[2])
		if err != nil {
			return "nothing"
		}
		return fmt.Sprint(value)
	})
}

const (
	envoysContainer  = "spec.template.spec.containers[0]"
	gatewaysEnvoy    = "{EnvoyProxy/envoy spec.provider.kubernetes.envoyDeployment."
	gatewaysCluster  = "grpcroute/default/service/rule/0" // as Envoy Gateway names it
	toEnvoysService  = "Service {Service/envoy metadata.name}"
	envoysPort       = "{Service/envoy spec.ports[0].name}"
	annotatedIngress = "{Ingress/envoy metadata.annotations.[alb.ingress.kubernetes.io/"
	annotatedService = "{Service/envoy metadata.annotations.[cloud.google.com/"
)

// In each folder with its components, one text comes to the same as the other. If liveness depended on the gate, Kubernetes would restart
// Envoy while the backends are down.
func TestObjectsAgree(t *testing.T) {
	for _, test := range []struct {
		folder     string
		components []string
		texts      [][2]string
	}{
		{"base", nil, [][2]string{
			{"{Deployment/envoy " + envoysContainer + ".readinessProbe.httpGet}", "map[path:/ port:https scheme:HTTPS]"},
			{"{Deployment/envoy " + envoysContainer + ".livenessProbe.exec.command}", "[/usr/local/bin/healthgate alive]"},
			{"{Deployment/envoy " + envoysContainer + ".startupProbe.exec.command}", "[/usr/local/bin/healthgate alive]"},
			{"{Deployment/envoy " + envoysContainer + ".lifecycle.preStop.exec.command}", "[/usr/local/bin/healthgate drain]"},
		}},
		{"base", []string{"module"}, [][2]string{
			{"{Deployment/envoy " + envoysContainer + ".readinessProbe.httpGet}", "map[path:/ port:https scheme:HTTPS]"},
			{"{Deployment/envoy " + envoysContainer + ".livenessProbe.httpGet}", "map[path:/ port:alive]"},
			{"{Deployment/envoy " + envoysContainer + ".startupProbe.httpGet}", "map[path:/ port:alive]"},
			{"{Deployment/envoy " + envoysContainer + ".lifecycle.preStop.exec.command}", "[/usr/local/bin/healthgate drain]"},
		}},
		{"base", []string{"metrics/pod-monitor"}, [][2]string{
			{"{PodMonitor/envoy spec.selector.matchLabels}", "map[app.kubernetes.io/name:envoy]"},
			{"{PodMonitor/envoy spec.podMetricsEndpoints[0].port}", "{Deployment/envoy " + envoysContainer + ".ports[1].name}"},
			{"{PodMonitor/envoy spec.podMetricsEndpoints[0].path}", "/stats/prometheus"},
		}},
		{"base", []string{"metrics/pod-monitoring"}, [][2]string{
			{"{PodMonitoring/envoy spec.selector.matchLabels}", "map[app.kubernetes.io/name:envoy]"},
			{"{PodMonitoring/envoy spec.endpoints[0].port}", "{Deployment/envoy " + envoysContainer + ".ports[1].name}"},
			{"{PodMonitoring/envoy spec.endpoints[0].path}", "/stats/prometheus"},
		}},
		{"overlays/gke-ingress", nil, [][2]string{
			{annotatedService + "neg]}", `{"ingress": true}`},
			{annotatedService + "app-protocols]}", `{"` + envoysPort + `":"HTTP2"}`},
			{annotatedService + "backend-config]}", `{"default": "{BackendConfig/envoy metadata.name}"}`},
			{"{Ingress/envoy spec.defaultBackend.service.name}", "{Service/envoy metadata.name}"},
			{"{Ingress/envoy spec.defaultBackend.service.port.name}", envoysPort},
			{"{Ingress/envoy metadata.annotations.[kubernetes.io/ingress.allow-http]}", "false"},
			{"{Ingress/envoy metadata.annotations.[networking.gke.io/managed-certificates]}", "{ManagedCertificate/envoy metadata.name}"},
			{"{BackendConfig/envoy spec.healthCheck.type}", "HTTP2"},
			{"{BackendConfig/envoy spec.healthCheck.requestPath}", "/"},
			{"{BackendConfig/envoy spec.healthCheck.port}", "8443"},
		}},
		{"overlays/gke-gateway", nil, [][2]string{
			{"{Service/envoy spec.ports[0].appProtocol}", "HTTP2"},
			{"{Service/envoy spec.ports[1]}", "nothing"},
			{"{HTTPRoute/envoy spec.parentRefs[0].name}", "{Gateway/envoy metadata.name}"},
			{"{HTTPRoute/envoy spec.parentRefs[0].sectionName}", "{Gateway/envoy spec.listeners[0].name}"},
			{"{HTTPRoute/envoy spec.rules[0].backendRefs[0].name}", "{Service/envoy metadata.name}"},
			{"{HTTPRoute/envoy spec.rules[0].backendRefs[0].port}", "{Service/envoy spec.ports[0].port}"},
			{"{HealthCheckPolicy/envoy spec.targetRef.kind} {HealthCheckPolicy/envoy spec.targetRef.name}", toEnvoysService},
			{"{GCPBackendPolicy/envoy spec.targetRef.kind} {GCPBackendPolicy/envoy spec.targetRef.name}", toEnvoysService},
			{"{HealthCheckPolicy/envoy spec.default.config.type}", "HTTP2"},
			{"{HealthCheckPolicy/envoy spec.default.config.http2HealthCheck.requestPath}", "/"},
			{"{HealthCheckPolicy/envoy spec.default.config.http2HealthCheck.port}", "8443"},
		}},
		{"overlays/aws-alb", nil, [][2]string{
			{"{Ingress/envoy spec.ingressClassName}", "alb"},
			{"{Ingress/envoy spec.rules[0].http.paths[0].backend.service.name}", "{Service/envoy metadata.name}"},
			{"{Ingress/envoy spec.rules[0].http.paths[0].backend.service.port.name}", envoysPort},
			{annotatedIngress + "target-type]}", "ip"},
			{annotatedIngress + "backend-protocol]}", "HTTPS"},
			{annotatedIngress + "backend-protocol-version]}", "HTTP2"},
			{annotatedIngress + "healthcheck-protocol]}", "HTTPS"},
			{annotatedIngress + "healthcheck-port]}", "traffic-port"},
			{annotatedIngress + "healthcheck-path]}", "/"},
			{annotatedIngress + "success-codes]}", "200"},
		}},
		{kustomize.EnvoyGateway, nil, [][2]string{
			{"{GRPCRoute/service spec.rules[1]}", "nothing"}, // a rule before another changes the name of its cluster
			{"{GRPCRoute/service spec.parentRefs[0].sectionName}", "https"},
			{"{HTTPRoute/probe spec.parentRefs[0].sectionName}", "probe"}, // which the policies for the service's listener do not reach
			{"{EnvoyExtensionPolicy/probe spec.dynamicModule[0].config.clusters[0]}", gatewaysCluster},
			{"{EnvoyExtensionPolicy/probe spec.dynamicModule[0].config.grpc_services[0]}",
				"{BackendTrafficPolicy/service spec.healthCheck.active.grpc.service}"},
			{"{EnvoyExtensionPolicy/probe spec.dynamicModule[0].name}", "{EnvoyProxy/envoy spec.dynamicModules[0].name}"},
			{"{EnvoyProxy/envoy spec.dynamicModules[0].source.local.path}", gatewaysEnvoy + "container.env[0].value}/libhealthgate.so"},
			{gatewaysEnvoy + "container.volumeMounts[0].mountPath}", gatewaysEnvoy + "container.env[0].value}"},
			{gatewaysEnvoy + "container.volumeMounts[0].name}", gatewaysEnvoy + "pod.volumes[0].name}"},
			{gatewaysEnvoy + "container.env[1].value}", "127.0.0.1:19000"}, // where admin listens
			{"{NetworkPolicy/service spec.ingress[0].from[0].podSelector.matchLabels.[gateway.envoyproxy.io/owning-gateway-name]}",
				"{Gateway/envoy metadata.name}"},
			{"{NetworkPolicy/service spec.ingress[1]}", "nothing"},
		}},
		// The module is copied into the folder where the image volume has it.
		{kustomize.EnvoyGateway, []string{"../overlays/envoy-gateway/init-container"}, [][2]string{
			{gatewaysEnvoy + "initContainers[0].command}", "[cp /etc/envoy/libhealthgate.so " + gatewaysEnvoy + "container.env[0].value}/]"},
			{gatewaysEnvoy + "initContainers[0].volumeMounts[0].mountPath}", gatewaysEnvoy + "container.env[0].value}"},
			{gatewaysEnvoy + "initContainers[0].volumeMounts[0].name}", gatewaysEnvoy + "pod.volumes[0].name}"},
			{gatewaysEnvoy + "pod.volumes[0].emptyDir}", "map[]"},
		}},
	} {
		all := render(t, test.folder, test.components...)
		for _, texts := range test.texts {
			if got, want := all.fill(texts[0]), all.fill(texts[1]); got != want {
				t.Errorf("%s with %v: %s is %q, want %q", test.folder, test.components, texts[0], got, want)
			}
		}
	}
}

// Users apply patches.yaml beside the overlay; each of its patches is for the gate's cluster.
func TestPatchesOfEnvoyGatewayAreForTheGatesCluster(t *testing.T) {
	text := readFile(t, inRoot("manifests", kustomize.EnvoyGateway, "patches.yaml"))
	if patches := strings.Count(text, "\n  - type: "); patches == 0 || strings.Count(text, "\n    name: "+gatewaysCluster) != patches {
		t.Errorf("it has %d patches for other clusters, too:\n%s", patches, text)
	}
	var policy any
	if err := yaml.UnmarshalStrict([]byte(text), &policy); err != nil {
		t.Fatal(err)
	}
	if schema, err := schemaOf("EnvoyPatchPolicy"); err != nil || schema.Validate(policy) != nil {
		t.Errorf("%v; it does not fit its CRD: %v", err, schema.Validate(policy))
	}
}

// timers are the values in manifests/README.md's table, by folder; `healthgate lint` checks them against each other.
var timers = map[string]map[string]string{
	"base": {
		"delay":   "{Deployment/envoy " + envoysContainer + ".env.[name=DRAIN_DELAY].value}",
		"timeout": "{Deployment/envoy " + envoysContainer + ".env.[name=DRAIN_TIMEOUT].value}",
		"grace":   "{Deployment/envoy spec.template.spec.terminationGracePeriodSeconds}",
		"readiness": "{Deployment/envoy " + envoysContainer + ".readinessProbe.periodSeconds} × " +
			"{Deployment/envoy " + envoysContainer + ".readinessProbe.failureThreshold} + " +
			"{Deployment/envoy " + envoysContainer + ".readinessProbe.timeoutSeconds}",
		"new Envoys": "{Deployment/envoy spec.minReadySeconds}",
		"new hosts":  "{Deployment/service spec.minReadySeconds}",
		"hanging":    "{Deployment/envoy " + envoysContainer + ".livenessProbe.terminationGracePeriodSeconds}",
		"starting, module": "{Deployment/envoy " + envoysContainer + ".startupProbe.periodSeconds} × " +
			"{Deployment/envoy " + envoysContainer + ".startupProbe.failureThreshold}",
	},
	"overlays/gke-ingress": {
		"draining, GKE Ingress": "{BackendConfig/envoy spec.connectionDraining.drainingTimeoutSec}",
		"GKE Ingress": "{BackendConfig/envoy spec.healthCheck.checkIntervalSec} × {BackendConfig/envoy spec.healthCheck.unhealthyThreshold} + " +
			"{BackendConfig/envoy spec.healthCheck.timeoutSec}",
	},
	"overlays/gke-gateway": {
		"draining, GKE Gateway": "{GCPBackendPolicy/envoy spec.default.connectionDraining.drainingTimeoutSec}",
		"GKE Gateway": "{HealthCheckPolicy/envoy spec.default.checkIntervalSec} × {HealthCheckPolicy/envoy spec.default.unhealthyThreshold} + " +
			"{HealthCheckPolicy/envoy spec.default.timeoutSec}",
	},
	"overlays/aws-alb": {
		"draining, AWS ALB": annotatedIngress + "target-group-attributes]}",
		"AWS ALB": annotatedIngress + "healthcheck-interval-seconds]} × " + annotatedIngress + "unhealthy-threshold-count]} + " +
			annotatedIngress + "healthcheck-timeout-seconds]}",
	},
	kustomize.EnvoyGateway: {
		"delay, Envoy Gateway":      "{EnvoyProxy/envoy spec.shutdown.minDrainDuration}",
		"timeout, Envoy Gateway":    "{EnvoyProxy/envoy spec.shutdown.drainTimeout}",
		"new Envoys, Envoy Gateway": gatewaysEnvoy + "patch.value.spec.minReadySeconds}",
	},
}

func TestTimersAgreeWithTheTable(t *testing.T) {
	page := readFile(t, inRoot("manifests", "README.md"))
	for folder, texts := range timers {
		var components []string
		if folder == "base" {
			components = []string{"module"}
		}
		all := render(t, folder, components...)
		for name, text := range texts {
			value := strings.TrimPrefix(all.fill(text), "deregistration_delay.timeout_seconds=")
			if strings.Contains(name, ", Envoy Gateway") {
				value = strings.TrimSuffix(value, "s")
			}
			var interval, threshold, timeout int
			if _, err := fmt.Sscanf(value, "%d × %d + %d", &interval, &threshold, &timeout); err == nil && name != "readiness" {
				value += fmt.Sprintf(" + 10 = %d", interval*threshold+timeout+10) // 10 for the balancer to act
			}
			if _, row, _ := strings.Cut(page, "\n| "+name+" |"); !strings.Contains(strings.SplitN(row, "\n", 2)[0], " "+value+" |") {
				t.Errorf("manifests/README.md has no row for %s with %q", name, value)
			}
		}
	}
}
