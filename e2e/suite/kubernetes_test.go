package suite

import (
	"fmt"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/bed"
)

// Envoy's probes, as the manifests have them, while all backends are down for ten of their health checks: Envoy is to be
// taken out of rotation, and not to be restarted.
func TestKubernetesTakesEnvoyOutAndDoesNotRestartItWhileTheBackendsAreDown(t *testing.T) {
	t.Parallel()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(bed.Root(), "manifests", "base"))
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
	container := envoy.Spec.Template.Spec.Containers[0]
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
	start := s.stats(attempt)[attempt]
	s.await(settle, func() error {
		if ready() || !alive() {
			t.Fatalf("with all backends down: ready %v, alive %v", ready(), alive())
		}
		if checks := (s.stats(attempt)[attempt] - start) / 2; checks < 10 { // of two hosts
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
