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
	for _, resource := range built.Resources() {
		if resource.GetKind() != "Deployment" || resource.GetName() != "envoy" {
			continue
		}
		envoy := &appsv1.Deployment{}
		if text, err := resource.AsYAML(); err != nil || yaml.UnmarshalStrict(text, envoy) != nil {
			t.Fatalf("%v, %v in %s", err, yaml.UnmarshalStrict(text, envoy), text)
		}
		return envoy
	}
	t.Fatal("there is no Deployment envoy")
	return nil
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

// plain sends a request to a listener without TLS, and follows no redirect.
func (s *site) plain(listener, method, path string) *answer {
	s.t.Helper()
	reply, err := askPlain(s.t, method, s.at(listener).envoy.Ingress, path)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

// askPlain sends a request on a new connection without TLS, and follows no redirect.
func askPlain(t *testing.T, method, address, path string) (*answer, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sendRequest(&http.Client{Timeout: settle, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, request)
}

// While all backends are down for ten health checks, the manifests' probes take Envoy out of rotation and do not restart it.
func TestEnvoyIsNotReadyButAliveWhileTheBackendsAreDown(t *testing.T) {
	t.Parallel()
	container := envoysDeployment(t).Spec.Template.Spec.Containers[0]
	s := newSite(t, backends(2))
	client := s.client("h2") // as the kubelet does
	check := func(want string) error {
		probe, command := container.ReadinessProbe.HTTPGet, container.LivenessProbe.Exec.Command
		status := s.mustDo(client, "GET", probe.Path, nil).status
		ready := probe.Scheme == "HTTPS" && status >= 200 && status < 400
		_, err := s.lifecycle(t.Context(), command[1])
		if got := fmt.Sprintf("ready %v, alive %v", ready, err == nil); got != want || filepath.Base(command[0]) != "healthgate" {
			return fmt.Errorf("it is %s, want %s", got, want)
		}
		return nil
	}
	const attempt = "cluster.service.health_check.attempt"
	s.setServing(2)
	s.await(settle, func() error { return check("ready true, alive true") })
	s.setServing(0)
	start := s.stat(attempt)
	s.await(settle, func() error {
		if err := check("ready false, alive true"); err != nil {
			t.Fatalf("with all backends down %v", err)
		}
		if checks := (s.stat(attempt) - start) / 2; checks < 10 { // of two hosts
			return fmt.Errorf("only %d health checks have passed", checks)
		}
		return nil
	})
	s.setServing(1)
	s.await(settle, func() error { return check("ready true, alive true") })
}
