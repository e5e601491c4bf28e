package static

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"healthgate/e2e/bed"
)

// loadCompose reads the compose file by its schema, with no unknown key, no missing volume and no circle.
func loadCompose(t *testing.T, change func(text string) string) (*types.Project, error) {
	t.Helper()
	file := filepath.Join(bed.Root(), "e2e", "docker-compose.yaml")
	text := change(readFile(t, file))
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  filepath.Dir(file),
		ConfigFiles: []types.ConfigFile{{Filename: file, Content: []byte(text)}},
		Environment: types.Mapping{},
	})
}

func TestComposeFileHoldsTogether(t *testing.T) {
	t.Parallel()
	project, err := loadCompose(t, func(text string) string { return text })
	if err != nil {
		t.Fatal(err)
	}
	envoy := referenceConfig(t)
	name := envoy.Get(bed.Endpoints + ".0.endpoint.address.socket_address.address").(string)
	port := ":" + fmt.Sprint(envoy.Get(bed.Endpoints+".0.endpoint.address.socket_address.port_value"))
	var pairs []string
	for _, service := range []string{"backend-1", "backend-2"} {
		backend := project.Services[service]
		if network := backend.Networks["default"]; network == nil || !slices.Contains(network.Aliases, name) {
			t.Errorf("%s is not found as %q, which the reference configuration resolves", service, name)
		}
		if !slices.Equal(backend.Command, []string{"-listen", port, "-control", ":8081"}) {
			t.Errorf("%s is started with %v", service, backend.Command)
		}
		pairs = append(pairs, service+port+"="+service+":8081")
	}
	suite := project.Services["e2e"]
	for variable, want := range map[string]string{
		bed.PointBackends: strings.Join(pairs, ","),
		bed.PointIngress:  "127.0.0.1:" + fmt.Sprint(envoy.Get(bed.Listener+".address.socket_address.port_value")),
		bed.PointAdmin:    "127.0.0.1:" + fmt.Sprint(envoy.Get("admin.address.socket_address.port_value")),
		bed.PointCA:       "/tls/tls.crt",
	} {
		if got := suite.Environment[variable]; got == nil || *got != want {
			t.Errorf("e2e has %s=%v, want %s", variable, got, want)
		}
	}
	if suite.NetworkMode != "service:envoy" || suite.DependsOn["envoy"].Condition != types.ServiceConditionHealthy {
		t.Errorf("e2e has network %q and depends on %v", suite.NetworkMode, suite.DependsOn)
	}
	dockerfile := readFile(t, filepath.Join(bed.Root(), "Dockerfile"))
	for _, service := range project.Services {
		if len(service.Ports) > 0 || service.Privileged {
			t.Errorf("%s is reachable from the host, or privileged", service.Name)
		}
		if target := " AS " + service.Build.Target + "\n"; !strings.Contains(dockerfile, target) {
			t.Errorf("%s is built from %q, which the Dockerfile lacks", service.Name, service.Build.Target)
		}
	}
}

// What the test above relies on: the loader would see a slip.
func TestComposeLoaderSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, slip := range [][2]string{
		{"read_only: true", "readonly: true"},
		{"tls:/tls:ro", "nothing:/tls:ro"},
		{"envoy: {condition: service_healthy}", "envoi: {condition: service_healthy}"},
		{"network_mode: service:envoy", "network_mode: service:nobody"},
	} {
		_, err := loadCompose(t, func(text string) string {
			if !strings.Contains(text, slip[0]) {
				t.Errorf("%q is not in the file", slip[0])
			}
			return strings.Replace(text, slip[0], slip[1], 1)
		})
		if err == nil {
			t.Errorf("%q in place of %q is found valid", slip[1], slip[0])
		}
	}
}
