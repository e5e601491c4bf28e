package repo

import (
	"path/filepath"
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

// Each image is built by one service from a stage that exists, and no service pulls one.
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
		}
	}
}

// What `docker compose up` starts is reachable from this machine only, and runs Envoy without privileges.
func TestComposeFileForUsersIsClosed(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"", "plugin", "module", "module-distroless"} {
		environment, target := types.Mapping{"HTTPS_PORT": "10443"}, "plugin"
		if variant != "" {
			environment["VARIANT"], target = variant, variant
		}
		project := loadCompose(t, "compose.yaml", environment)
		envoy := project.Services["envoy"]
		if envoy.Build.Target != target || envoy.Ports[0].Published != "10443" {
			t.Errorf("VARIANT=%s builds %s at %v", variant, envoy.Build.Target, envoy.Ports)
		}
		if !envoy.ReadOnly || envoy.Privileged || len(envoy.CapDrop) != 1 || envoy.CapDrop[0] != "ALL" || envoy.User != "" {
			t.Errorf("envoy runs read-only %v, without %v, as %q", envoy.ReadOnly, envoy.CapDrop, envoy.User)
		}
		for name, service := range project.Services {
			for _, port := range service.Ports {
				if port.HostIP != "127.0.0.1" {
					t.Errorf("%s is reachable from other hosts at %s", name, port.Published)
				}
			}
		}
	}
}
