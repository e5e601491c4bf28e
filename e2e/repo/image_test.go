package repo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// makeVariable is the value of a variable of the Makefile's, as it is written.
func makeVariable(t *testing.T, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` +[:?]?= *(.*)$`).FindStringSubmatch(readFile(t, inRoot("Makefile")))
	if found == nil {
		t.Fatalf("the Makefile has no variable %s", name)
	}
	return found[1]
}

// stages are the Dockerfile's, by their names.
func stages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	text := readFile(t, inRoot("Dockerfile"))
	for _, stage := range regexp.MustCompile(`(?m)^FROM `).Split(text, -1)[1:] {
		from, rest, _ := strings.Cut(stage, "\n")
		words := strings.Fields(from)
		found[words[len(words)-1]] = from + "\n" + rest
	}
	return found
}

// The images are one thing for whoever runs them: user, command, the place of the configuration, the command healthgate.
func TestImagesAreRunAlike(t *testing.T) {
	t.Parallel()
	all := stages(t)
	for _, image := range []struct{ name, base, files string }{
		{"plugin", "envoyproxy/envoy:contrib-v${ENVOY_VERSION}", ""},
		{"module", "envoyproxy/envoy:v${STOCK_ENVOY_VERSION}", "module-files"},
		{"module-distroless", "envoyproxy/envoy:distroless-v${STOCK_ENVOY_VERSION}", "module-files"},
	} {
		t.Run(image.name, func(t *testing.T) {
			t.Parallel()
			stage := all[image.name]
			for _, line := range []string{
				image.base + " AS " + image.name + "\n",
				`org.opencontainers.image.base.name="` + image.base + `"` + "\n",
				`org.opencontainers.image.version="${VERSION}"`, `org.opencontainers.image.revision="${REVISION}"`,
				"\nARG VERSION=devel\nARG REVISION\n",
				"\nUSER 101:101\n",
				"\nENTRYPOINT [\"/usr/local/bin/envoy\"]\n",
				"\n" + `CMD ["--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--drain-strategy", "immediate"]` + "\n",
			} {
				if !strings.Contains(stage, line) {
					t.Errorf("the stage is without %q:\n%s", line, stage)
				}
			}
			files := stage
			if image.files != "" {
				files = all[image.files]
				if strings.Count(stage, "\nCOPY --from="+image.files+" ") != 2 || !strings.Contains(stage, "\nENV ENVOY_DYNAMIC_MODULES_SEARCH_PATH=/etc/envoy\n") {
					t.Errorf("the stage takes no %s, or says not where the module is:\n%s", image.files, stage)
				}
			}
			for _, path := range []string{" /etc/envoy/envoy.yaml\n", " --chmod=0755 /src/build/healthgate /usr/local/bin/healthgate\n"} {
				if !strings.Contains(files, path) {
					t.Errorf("there is no %q:\n%s", path, files)
				}
			}
		})
	}
	for _, target := range strings.Fields(makeVariable(t, "IMAGES")) {
		if all[target] == "" {
			t.Errorf("make image builds %s, which the Dockerfile lacks", target)
		}
	}
}

// The lines of docs/getting-started.md that run Envoy without an image of one's own start it as the images do, and as little trusted.
func TestDockerRunOfThePageIsAsTheImagesAre(t *testing.T) {
	t.Parallel()
	page, all := readFile(t, inRoot("docs", "getting-started.md")), stages(t)
	envoy := strings.NewReplacer("${ENVOY_VERSION}", argument(t, "ENVOY_VERSION"), "${STOCK_ENVOY_VERSION}", argument(t, "STOCK_ENVOY_VERSION"))
	base := func(stage string) string { return envoy.Replace(strings.Fields(all[stage])[0]) }
	args := regexp.MustCompile(`(?m)^CMD \[(.*)\]$`).FindStringSubmatch(all["plugin"])[1]
	run := ""
	for _, command := range commandsOf(page) {
		if strings.HasPrefix(command, "docker run ") {
			run += command
		}
	}
	for _, want := range []string{
		" --detach ", " --read-only ", " --cap-drop ALL ",
		" --user " + regexp.MustCompile(`(?m)^USER (.*)$`).FindStringSubmatch(all["plugin"])[1] + " ",
		" --publish 8443:8443 ", " " + base("plugin") + " " + strings.NewReplacer(`"`, "", ",", "").Replace(args),
	} {
		if !strings.Contains(run+" ", want) {
			t.Errorf("the page's line is without %q: %s", want, run)
		}
	}
	for _, want := range []string{
		"`" + base("module") + "`", "`" + base("module-distroless") + "`",
		"`--env " + regexp.MustCompile(`(?m)^ENV (.*)$`).FindStringSubmatch(all["module"])[1] + "`",
		"install -D --mode 0400 --owner 101 --group 101 tls.key ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page is without %s", want)
		}
	}
}

// argument is the default of an argument of the Dockerfile's.
func argument(t *testing.T, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^ARG ` + name + `=(.*)$`).FindStringSubmatch(readFile(t, inRoot("Dockerfile")))
	if found == nil {
		t.Fatalf("the Dockerfile has no ARG %s", name)
	}
	return found[1]
}

// fakeDocker is a folder with a docker that has a builder of the driver and an engine of the store, and writes down what it is told.
func fakeDocker(t *testing.T, driver, store, buildx string) (folder, told string) {
	t.Helper()
	folder = t.TempDir()
	told = filepath.Join(folder, "told")
	script := fmt.Sprintf(`#!/bin/sh
case "$*" in
"buildx version") echo github.com/docker/buildx %s 0000 ;;
"buildx inspect") printf 'Name:   a\nDriver: %s\n\nNodes:\nName: a0\n' ;;
info*) echo '[["driver-type","%s"]]' ;;
"compose version") echo v5.6.0 ;;
*) echo "$*" >> %s ;;
esac
case "$*" in
*" run "*) echo '--- PASS: TestA (0.00s)' ;;
esac
`, buildx, driver, store, told)
	if err := os.WriteFile(filepath.Join(folder, "docker"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return folder, told
}

// makes runs make with that docker, and returns what it printed and what docker was told.
func makes(t *testing.T, folder, told string, args ...string) (out string, lines []string, err error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "make", append([]string{"--no-print-directory", "-C", inRoot()}, args...)...)
	command.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool { return strings.HasPrefix(variable, "MAKE") }),
		"PATH="+folder+":"+os.Getenv("PATH"))
	printed, err := command.CombinedOutput()
	text, readErr := os.ReadFile(told)
	if readErr == nil {
		lines = strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	return string(printed), lines, err
}

// What pushes says in an image what is in it, which not every builder can: that is known before minutes of building.
func TestMakeImageAsksFirstWhetherItCanPush(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, driver, store string
		args                []string
		want                string // of each image's line; "" is that none is built
	}{
		{"an engine without containerd's store", "docker", "", []string{"PUSH=1"}, ""},
		{"an engine with it", "docker", "io.containerd.snapshotter.v1", []string{"PUSH=1"}, "--push --sbom=true --provenance=mode=max"},
		{"a builder of its own", "docker-container", "", []string{"PUSH=1"}, "--push --sbom=true --provenance=mode=max"},
		{"nothing is pushed", "docker", "", nil, "--load"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			folder, told := fakeDocker(t, test.driver, test.store, "v0.17.0")
			out, lines, err := makes(t, folder, told, append([]string{"image", "IMAGE=a/b", "TAG=v1", "PLATFORMS=linux/amd64", "VERSION=v1.2.3", "REVISION=abc"}, test.args...)...)
			if test.want == "" {
				if err == nil || len(lines) > 0 || !strings.Contains(out, "docker buildx create --use") {
					t.Errorf("it ended with %v, built %q and said: %s", err, lines, out)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var want []string
			for _, image := range []string{"plugin", "module", "module-distroless", "module-only", "backend"} {
				want = append(want, fmt.Sprintf("buildx build --target %[1]s --platform linux/amd64 --tag a/b-%[1]s:v1 --build-arg VERSION=v1.2.3 --build-arg REVISION=abc %[2]s .", image, test.want))
			}
			if !slices.Equal(lines, want) {
				t.Errorf("docker was told\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// Go is in the image that builds, so none is needed beside docker: the platform is the engine's own.
func TestMakeImageNeedsNoGo(t *testing.T) {
	t.Parallel()
	folder, told := fakeDocker(t, "docker", "", "v0.17.0")
	out, lines, err := makes(t, folder, told, "image", "GO=/nowhere/go", "VERSION=v1", "REVISION=abc")
	if err != nil || len(lines) != 5 || lines[0] != "buildx build --target plugin --tag healthgate-plugin:latest --build-arg VERSION=v1 --build-arg REVISION=abc --load ." {
		t.Errorf("%v: docker was told %q: %s", err, lines, out)
	}
}

// A service that fails does not keep the others from being run, and the failure is the last line.
func TestMakeE2EComposeRunsAllServices(t *testing.T) {
	t.Parallel()
	folder, told := fakeDocker(t, "docker", "", "v0.17.0")
	script, err := os.ReadFile(filepath.Join(folder, "docker"))
	if err != nil {
		t.Fatal(err)
	}
	failing := strings.Replace(string(script), `*" run "*)`, `*" run "*"e2e-module") echo '--- FAIL: TestA (0.00s)' ;;`+"\n"+`*" run "*)`, 1)
	if err := os.WriteFile(filepath.Join(folder, "docker"), []byte(failing), 0o700); err != nil {
		t.Fatal(err)
	}
	out, lines, err := makes(t, folder, told, "e2e-compose")
	ran := 0
	for _, line := range lines {
		if strings.Contains(line, " run ") {
			ran++
		}
	}
	if services := len(strings.Fields(makeVariable(t, "COMPOSED"))); err == nil || ran != services || !strings.Contains(out, "\nfailed: e2e-module\n") {
		t.Errorf("%v: %d of %d services were run: %s", err, ran, services, out)
	}
}

func TestMakeE2EComposeRefusesABuildxThatIsTooOld(t *testing.T) {
	t.Parallel()
	for buildx, refused := range map[string]bool{"v0.16.2": true, "v0.9.1": true, "v0.17.0": false, "v0.38.2": false} {
		t.Run(buildx, func(t *testing.T) {
			t.Parallel()
			folder, told := fakeDocker(t, "docker", "", buildx)
			out, lines, err := makes(t, folder, told, "e2e-compose")
			if (err != nil) != refused || (len(lines) > 0) == refused || refused && !strings.Contains(out, "0.17.0 or newer") {
				t.Errorf("it ended with %v, having told docker %q: %s", err, lines, out)
			}
		})
	}
}

// workflowJobs are the jobs of a workflow, by their names.
func workflowJobs(t *testing.T, name string) map[string]workflowJob {
	t.Helper()
	var workflow struct {
		Jobs map[string]workflowJob `json:"jobs"`
	}
	if err := yaml.Unmarshal([]byte(readFile(t, inRoot(".github", "workflows", name))), &workflow); err != nil {
		t.Fatal(err)
	}
	return workflow.Jobs
}

type workflowJob struct {
	Timeout  int `json:"timeout-minutes"`
	Strategy struct {
		Matrix map[string][]string `json:"matrix"`
	} `json:"strategy"`
	Steps []struct {
		Run  string         `json:"run"`
		With map[string]any `json:"with"`
	} `json:"steps"`
}

// runs are the commands of a job.
func (j workflowJob) runs() (all string) {
	for _, step := range j.Steps {
		all += step.Run + "\n"
	}
	return all
}

// The workflow builds each image that a release has for each architecture that a release has it for, and has the tests in containers.
func TestWorkflowBuildsWhatIsReleased(t *testing.T) {
	t.Parallel()
	ci, release := workflowJobs(t, "ci.yaml"), workflowJobs(t, "release.yaml")
	platforms := ci["image"].Strategy.Matrix["platform"]
	for _, test := range []struct{ job, runs, want string }{
		{"ci's image", ci["image"].runs(), "make image PLATFORMS=${{ matrix.platform }}\n"},
		{"ci's compose", ci["compose"].runs(), "make e2e-compose\n"},
		{"release's test", release["test"].runs(), "make e2e-compose\n"},
		{"release's image", release["image"].runs(), "docker buildx create --use"},
		{"release's image", release["image"].runs(), " PLATFORMS=" + strings.Join(platforms, ",") + " PUSH=1\n"},
	} {
		t.Run(test.job, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(test.runs, test.want) {
				t.Errorf("it is without %q:\n%s", test.want, test.runs)
			}
		})
	}
	if len(platforms) != 2 {
		t.Errorf("images are built for %v", platforms)
	}
	if got, least := release["test"].Timeout, ci["test"].Timeout+ci["compose"].Timeout; got < least {
		t.Errorf("a release's tests end after %d minutes, and ci gives them %d", got, least)
	}
}

// A release has what `make dist` makes: both variants for both architectures, the command for each system too, and their checksums.
func TestReleaseHasEverything(t *testing.T) {
	t.Parallel()
	if got := makeVariable(t, "DIST_SYSTEMS"); got != "linux/amd64 linux/arm64 darwin/amd64 darwin/arm64" {
		t.Errorf("the command is released for %s", got)
	}
	if got := makeVariable(t, "DIST_CC"); got != "amd64=x86_64-linux-gnu-gcc arm64=aarch64-linux-gnu-gcc" {
		t.Errorf("the variants are released for %s", got)
	}
	files := workflowJobs(t, "release.yaml")["files"]
	steps := files.runs()
	for _, step := range files.Steps {
		steps += fmt.Sprintln(step.With["subject-checksums"])
	}
	for _, want := range []string{"make dist\n", "gcc-aarch64-linux-gnu", "dist/SHA256SUMS\n", "gh release create", " dist/*\n"} {
		if !strings.Contains(steps, want) {
			t.Errorf("the workflow is without %q:\n%s", want, steps)
		}
	}
}
