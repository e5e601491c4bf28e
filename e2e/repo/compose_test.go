package repo

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"healthgate/e2e/testbed"
)

const (
	composeTests = "e2e/docker-compose.yaml"
	composeTry   = "compose.yaml"
)

// loadCompose reads a compose file by its schema, with no unknown key, no missing volume and no circle.
func loadCompose(t *testing.T, name string, environment types.Mapping, change func(text string) string) (*types.Project, error) {
	t.Helper()
	file := inRoot(name)
	text := change(readFile(t, file))
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  filepath.Dir(file),
		ConfigFiles: []types.ConfigFile{{Filename: file, Content: []byte(text)}},
		Environment: environment,
	})
}

func mustLoadCompose(t *testing.T, name string, environment types.Mapping) *types.Project {
	t.Helper()
	project, err := loadCompose(t, name, environment, func(text string) string { return text })
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// builtOnce says what is wrong with how a project builds its images: each is built by one service, and the others take it.
func builtOnce(project *types.Project, dockerfile string) (wrong []string) {
	builders := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		service := project.Services[name]
		if service.Build == nil {
			continue
		}
		if other, twice := builders[service.Image]; twice {
			wrong = append(wrong, fmt.Sprintf("%s is built by %s and by %s", service.Image, other, name))
		}
		builders[service.Image] = name
		if target := " AS " + service.Build.Target + "\n"; !strings.Contains(dockerfile, target) {
			wrong = append(wrong, fmt.Sprintf("%s is built from %q, which the Dockerfile lacks", name, service.Build.Target))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		service := project.Services[name]
		if service.Build == nil && service.PullPolicy != types.PullPolicyNever {
			wrong = append(wrong, fmt.Sprintf("%s would pull %s", name, service.Image))
		}
		if builders[service.Image] == "" {
			wrong = append(wrong, fmt.Sprintf("%s takes %s, which nobody builds", name, service.Image))
		}
	}
	return wrong
}

func TestComposeFilesBuildEachImageOnce(t *testing.T) {
	t.Parallel()
	dockerfile := readFile(t, inRoot("Dockerfile"))
	released := strings.Fields(makeVariable(t, "IMAGES"))
	for _, file := range []string{composeTests, composeTry} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			project := mustLoadCompose(t, file, nil)
			for _, wrong := range builtOnce(project, dockerfile) {
				t.Error(wrong)
			}
			for _, service := range project.Services {
				if slices.Contains(released, strings.TrimPrefix(service.Image, "healthgate-")) {
					t.Errorf("%s overwrites %s of make image", service.Name, service.Image)
				}
			}
		})
	}
}

func TestImageThatIsBuiltTwiceIsSeen(t *testing.T) {
	t.Parallel()
	dockerfile := readFile(t, inRoot("Dockerfile"))
	for _, slip := range []struct{ from, to, want string }{
		{"    <<: *backend\n    pull_policy: never\n", "    <<: *backend\n    build: {context: .., target: backend}\n", "healthgate-e2e-backend is built by backend-1 and by backend-2"},
		{"    <<: *backend\n    pull_policy: never\n", "    <<: *backend\n", "backend-2 would pull healthgate-e2e-backend"},
		{"target: module}", "target: modul}", `module is built from "modul", which the Dockerfile lacks`},
		{"image: healthgate-e2e\n    pull_policy", "image: healthgate-e3e\n    pull_policy", "e2e takes healthgate-e3e, which nobody builds"},
	} {
		t.Run(slip.want, func(t *testing.T) {
			t.Parallel()
			project, err := loadCompose(t, composeTests, nil, func(text string) string {
				if !strings.Contains(text, slip.from) {
					t.Fatalf("%q is not in the file", slip.from)
				}
				return strings.Replace(text, slip.from, slip.to, 1)
			})
			if err != nil {
				t.Fatal(err)
			}
			if wrong := builtOnce(project, dockerfile); !slices.Contains(wrong, slip.want) {
				t.Errorf("it is found that %q", wrong)
			}
		})
	}
}

// holdsBackends checks that a project's backends are found by the name and at the port that the reference configuration has.
func holdsBackends(t *testing.T, project *types.Project, names ...string) {
	t.Helper()
	envoy := referenceConfig(t)
	name := envoy.Get(testbed.Endpoints + ".0.endpoint.address.socket_address.address").(string)
	port := ":" + fmt.Sprint(envoy.Get(testbed.Endpoints+".0.endpoint.address.socket_address.port_value"))
	for _, service := range names {
		backend := project.Services[service]
		if network := backend.Networks["default"]; network == nil || !slices.Contains(network.Aliases, name) {
			t.Errorf("%s is not found as %q, which the reference configuration resolves", service, name)
		}
		if !slices.Equal(backend.Command, []string{"-listen", port, "-control", ":8081"}) {
			t.Errorf("%s is started with %v", service, backend.Command)
		}
	}
}

// holdsEnvoy checks an Envoy as users run it: nothing it may write, no capability, and asked by the command whether it lives.
func holdsEnvoy(t *testing.T, envoy types.ServiceConfig) {
	t.Helper()
	if !envoy.ReadOnly || !slices.Equal(envoy.CapDrop, []string{"ALL"}) || envoy.Privileged || envoy.User != "" {
		t.Errorf("%s is run otherwise than the images are made for: read-only %v, without %v, as %q", envoy.Name, envoy.ReadOnly, envoy.CapDrop, envoy.User)
	}
	if !slices.Equal(envoy.HealthCheck.Test, []string{"CMD", "/usr/local/bin/healthgate", "alive"}) {
		t.Errorf("%s is asked by %v", envoy.Name, envoy.HealthCheck.Test)
	}
	if envoy.DependsOn["certificate"].Condition != types.ServiceConditionCompletedSuccessfully {
		t.Errorf("%s depends on %v", envoy.Name, envoy.DependsOn)
	}
}

func TestComposeFileOfTheTestsHoldsTogether(t *testing.T) {
	t.Parallel()
	project := mustLoadCompose(t, composeTests, nil)
	holdsBackends(t, project, "backend-1", "backend-2")
	config := referenceConfig(t)
	for suite, envoy := range map[string]string{"e2e": "envoy", "e2e-module": "module", "e2e-distroless": "distroless"} {
		holdsEnvoy(t, project.Services[envoy])
		service := project.Services[suite]
		for variable, want := range map[string]string{
			testbed.PointBackends: "backend-1:8080=backend-1:8081,backend-2:8080=backend-2:8081",
			testbed.PointIngress:  "127.0.0.1:" + fmt.Sprint(config.Get(testbed.Listener+".address.socket_address.port_value")),
			testbed.PointAdmin:    "127.0.0.1:" + fmt.Sprint(config.Get("admin.address.socket_address.port_value")),
			testbed.PointCA:       "/tls/tls.crt",
		} {
			if got := service.Environment[variable]; got == nil || *got != want {
				t.Errorf("%s has %s=%v, want %s", suite, variable, got, want)
			}
		}
		if service.NetworkMode != "service:"+envoy || service.DependsOn[envoy].Condition != types.ServiceConditionHealthy {
			t.Errorf("%s has network %q and depends on %v", suite, service.NetworkMode, service.DependsOn)
		}
		if stock := slices.Contains(service.Command, "-variant=module"); stock != (envoy != "envoy") {
			t.Errorf("%s is run with %v", suite, service.Command)
		}
	}
	var suites []string
	for name, service := range project.Services {
		if len(service.Command) > 0 && service.Command[0] == "/src/build/e2e.test" {
			suites = append(suites, name)
		}
	}
	if run := strings.Fields(makeVariable(t, "COMPOSED")); !slices.Equal(slices.Sorted(slices.Values(run)), slices.Sorted(slices.Values(suites))) {
		t.Errorf("make e2e-compose runs %v, and there are %v", run, suites)
	}
	for _, service := range project.Services {
		if len(service.Ports) > 0 || service.Privileged {
			t.Errorf("%s is reachable from the host, or privileged", service.Name)
		}
	}
}

// What make e2e-compose says of a service's tests: how many, and whether one has tested nothing.
func TestTallyCountsTests(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		out, want string
		fine      bool
	}{
		"passed and skipped": {"--- PASS: TestA (0.00s)\n--- SKIP: TestB (0.00s)\n    --- PASS: TestA/one (0.00s)\n", "e2e: 1 tests passed, 1 skipped, 0 failed\n", true},
		"one fails":          {"--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.00s)\n", "e2e: 1 tests passed, 0 skipped, 1 failed\n", false},
		"none passes":        {"--- SKIP: TestA (0.00s)\n", "e2e: 0 tests passed, 1 skipped, 0 failed\n", false},
		"nothing":            {"", "e2e: 0 tests passed, 0 skipped, 0 failed\n", false},
		"hollow": {
			"--- PASS: TestB (0.00s)\n--- PASS: TestA (0.00s)\n    --- SKIP: TestA/one (0.00s)\n    --- SKIP: TestA/two (0.00s)\n",
			"e2e: TestA passes, and each of its subtests is skipped\ne2e: 2 tests passed, 0 skipped, 0 failed\n", false,
		},
		"partly skipped": {"--- PASS: TestA (0.00s)\n    --- SKIP: TestA/one (0.00s)\n    --- PASS: TestA/two (0.00s)\n", "e2e: 1 tests passed, 0 skipped, 0 failed\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tally := exec.CommandContext(t.Context(), "awk", "-v", "service=e2e", "-f", inRoot("e2e", "tally.awk"))
			tally.Stdin = strings.NewReader(test.out)
			out, err := tally.CombinedOutput()
			if string(out) != test.out+test.want || (err == nil) != test.fine {
				t.Errorf("it ended with %v and said:\n%s", err, out)
			}
		})
	}
}

// What compose.yaml says at its top to type fits what it starts.
func TestComposeFileToTryItHoldsTogether(t *testing.T) {
	t.Parallel()
	says, _, _ := strings.Cut(readFile(t, inRoot(composeTry)), "\nname:")
	for variant, target := range map[string]string{"": "plugin", "plugin": "plugin", "module": "module", "module-distroless": "module-distroless"} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			environment := types.Mapping{"HTTPS_PORT": "10443"}
			if variant != "" {
				environment["VARIANT"] = variant
			}
			project := mustLoadCompose(t, composeTry, environment)
			holdsBackends(t, project, "backend-1", "backend-2", "backend-3")
			envoy := project.Services["envoy"]
			holdsEnvoy(t, envoy)
			if envoy.Build.Target != target {
				t.Errorf("VARIANT=%s builds %s", variant, envoy.Build.Target)
			}
			if envoy.Ports[0].Published != "10443" || envoy.Ports[0].Target != 8443 {
				t.Errorf("the listener is published as %v", envoy.Ports)
			}
			for name, service := range project.Services {
				for _, port := range service.Ports {
					if port.HostIP != "127.0.0.1" {
						t.Errorf("%s is reachable from other hosts at %s", name, port.Published)
					}
				}
			}
		})
	}
	project := mustLoadCompose(t, composeTry, nil)
	for _, url := range []string{
		"curl -ik https://127.0.0.1:" + project.Services["envoy"].Ports[0].Published + "/",
		"curl -X POST http://127.0.0.1:" + project.Services["backend-1"].Ports[0].Published + "/not-serving",
		"docker compose exec envoy healthgate explain",
		"docker compose exec envoy healthgate drain",
	} {
		if !strings.Contains(says, url) {
			t.Errorf("%s does not say %q", composeTry, url)
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
		_, err := loadCompose(t, composeTests, nil, func(text string) string {
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
