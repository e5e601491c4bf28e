package suite

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// envoysDeployment returns Envoy's Deployment, as kustomize builds it from base with components.
func envoysDeployment(t *testing.T, components ...string) *appsv1.Deployment {
	t.Helper()
	built, err := kustomize.Build("base", components...)
	if err != nil {
		t.Fatal(err)
	}
	envoy := &appsv1.Deployment{}
	for _, resource := range built.Resources() {
		if resource.GetKind() == "Deployment" && resource.GetName() == "envoy" {
			text, err := resource.AsYAML()
			if err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict(text, envoy); err != nil {
				t.Fatal(err)
			}
		}
	}
	return envoy
}

// asDeployed starts the site with the configuration that a Deployment mounts, and with what its arguments add.
func asDeployed(t *testing.T, envoy *appsv1.Deployment) option {
	t.Helper()
	container := envoy.Spec.Template.Spec.Containers[0]
	file := ""
	for _, m := range container.VolumeMounts {
		if m.MountPath == "/etc/envoy/envoy.yaml" {
			file = m.SubPath
		}
	}
	config := readConfig(t, "envoy/"+file)
	return func(p *plan) {
		p.config, p.alone = config, "it needs the configuration of a Deployment"
		i := slices.Index(container.Args, "--config-yaml")
		if i < 0 {
			return
		}
		// Other ports than the container's, because many Envoys run here at once.
		admin := unusedAddress(t).Port
		p.changes = append(p.changes, func(c *testbed.Bootstrap) { c.Listen(0, admin) })
		added := strings.NewReplacer("port_value: 9902", "port_value: 0", "port_value: 9901", fmt.Sprint("port_value: ", admin)).Replace(
			container.Args[i+1])
		p.options.Flags = append(p.options.Flags, "--config-yaml", added)
	}
}

// plain sends a request to a listener without TLS.
func (s *site) plain(listener, method, path string) *answer {
	s.t.Helper()
	request, err := http.NewRequest(method, "http://"+s.at(listener).envoy.Ingress+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	reply, err := sendRequest(&http.Client{Timeout: settle, Transport: &http.Transport{DisableKeepAlives: true}}, request)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

// While all backends are down for ten health checks, the manifests' probes take Envoy out of rotation and do not restart it.
func TestEnvoyIsNotReadyButAliveWhileTheBackendsAreDown(t *testing.T) {
	t.Parallel()
	container := envoysDeployment(t).Spec.Template.Spec.Containers[0]
	s := newSite(t, backends(2))
	client := s.client("h2") // as the kubelet does
	ready := func() bool {
		probe := container.ReadinessProbe.HTTPGet
		status := s.mustDo(client, "GET", probe.Path, nil).status
		return probe.Scheme == "HTTPS" && status >= 200 && status < 400
	}
	alive := func() bool {
		command := container.LivenessProbe.Exec.Command
		if filepath.Base(command[0]) != "healthgate" {
			t.Fatalf("liveness runs %v", command)
		}
		_, err := s.lifecycle(t.Context(), command[1])
		return err == nil
	}
	s.setServing(2)
	if !ready() || !alive() {
		t.Fatalf("with all backends up: ready %v, alive %v", ready(), alive())
	}
	s.setServing(0)
	const attempt = "cluster.service.health_check.attempt"
	start := s.stat(attempt)
	s.await(settle, func() error {
		if ready() || !alive() {
			t.Fatalf("with all backends down: ready %v, alive %v", ready(), alive())
		}
		if checks := (s.stat(attempt) - start) / 2; checks < 10 { // of two hosts
			return fmt.Errorf("only %d health checks have passed", checks)
		}
		return nil
	})
	s.setServing(1)
	s.await(settle, func() error {
		if !ready() || !alive() {
			return fmt.Errorf("with a backend back: ready %v, alive %v", ready(), alive())
		}
		return nil
	})
}
