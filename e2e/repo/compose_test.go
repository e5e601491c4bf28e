package repo

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// loadCompose reads a compose file by its schema, with no unknown key, no missing volume or service, and no cycle.
func loadCompose(t *testing.T, name string, environment types.Mapping) *types.Project {
	t.Helper()
	file := inRoot(name)
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  filepath.Dir(file),
		ConfigFiles: []types.ConfigFile{{Filename: file, Content: []byte(readFile(t, file))}},
		Environment: environment,
	})
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// Each image is built by one service from a stage that exists, and no service pulls one. A port is reachable from this machine only.
func TestComposeFilesBuildWhatTheyRun(t *testing.T) {
	t.Parallel()
	dockerfile := readFile(t, inRoot("Dockerfile"))
	for _, file := range []string{"compose.yaml", "e2e/docker-compose.yaml"} {
		project := loadCompose(t, file, nil)
		builders := map[string]string{}
		for name, service := range project.Services {
			if service.Build == nil {
				continue
			}
			if builders[service.Image] != "" || !strings.Contains(dockerfile, " AS "+service.Build.Target+"\n") {
				t.Errorf("%s: %s builds %s from %q", file, name, service.Image, service.Build.Target)
			}
			builders[service.Image] = name
		}
		for name, service := range project.Services {
			if builders[service.Image] == "" || service.Build == nil && service.PullPolicy != types.PullPolicyNever {
				t.Errorf("%s: %s would pull %s", file, name, service.Image)
			}
			for _, port := range service.Ports {
				if port.HostIP != "127.0.0.1" {
					t.Errorf("%s: %s is reachable from other hosts at %s", file, name, port.Published)
				}
			}
		}
	}
}

// VARIANT and HTTPS_PORT choose what `docker compose up` starts, and Envoy runs without privileges.
func TestComposeFileForUsersHasVariants(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"", "plugin", "module", "module-distroless"} {
		target := cmp.Or(variant, "plugin")
		envoy := loadCompose(t, "compose.yaml", types.Mapping{"HTTPS_PORT": "10443", "VARIANT": variant}).Services["envoy"]
		if envoy.Build.Target != target || envoy.Ports[0].Published != "10443" {
			t.Errorf("VARIANT=%s builds %s at %v", variant, envoy.Build.Target, envoy.Ports)
		}
		if !envoy.ReadOnly || envoy.Privileged || !slices.Equal(envoy.CapDrop, []string{"ALL"}) || envoy.User != "" {
			t.Errorf("envoy runs read-only %v, without %v, as %q", envoy.ReadOnly, envoy.CapDrop, envoy.User)
		}
	}
}
