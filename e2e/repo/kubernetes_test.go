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

	"healthgate/e2e/kustomize"
)

// The overlay that make e2e-kubernetes applies, the images that it loads and the address that its load calls fit together.
func TestKubernetesRunFitsTheManifests(t *testing.T) {
	t.Parallel()
	makefile := readFile(t, inRoot("Makefile"))
	load := readFile(t, inRoot("e2e", "kubernetes", "load.yaml"))
	for _, components := range [][]string{nil, {"module"}} {
		objects, err := kustomize.Build("overlays/local", components...)
		if err != nil {
			t.Fatal(err)
		}
		text, err := objects.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		images := regexp.MustCompile(`(?m)image: (\S+)$`).FindAllStringSubmatch(string(text), -1)
		if len(images) != 2 {
			t.Fatalf("%v: the images are %v", components, images)
		}
		for _, image := range images {
			if !strings.Contains(makefile, " "+image[1]+" ") {
				t.Errorf("%v: make e2e-kubernetes does not load %s", components, image[1])
			}
		}
		if !strings.Contains(string(text), "nodePort: 30443") || !strings.Contains(load, "$(NODE):30443") {
			t.Errorf("%v: the load does not call the overlay's NodePort", components)
		}
	}
	var kind struct {
		Nodes []struct {
			Role string `json:"role"`
		} `json:"nodes"`
	}
	if err := yaml.Unmarshal([]byte(readFile(t, inRoot("e2e", "kubernetes", "kind.yaml"))), &kind); err != nil || len(kind.Nodes) < 3 {
		t.Errorf("kind's cluster has the nodes %v, %v", kind.Nodes, err)
	}
	job := workflowJobs(t, "ci.yaml")["kubernetes"]
	if variants := job.Strategy.Matrix["components"]; !slices.Equal(variants, []string{"", "module"}) || !strings.Contains(job.runs(), "make e2e-kubernetes RUNS=-components=${{ matrix.components }}\n") {
		t.Errorf("the workflow does not run make e2e-kubernetes by each variant: %v, %s", variants, job.runs())
	}
}

// makeE2EKubernetes runs it with programs that write down what they are told, and returns that.
func makeE2EKubernetes(t *testing.T, load string, variables ...string) (told string, fine bool) {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, "told")
	for name, end := range map[string]string{"docker": "", "kubectl": "", "go": "", "load": load} {
		script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *'env GOARCH'*) echo amd64; exit ;; *'version'*|*'mod download'*) exit ;; esac\necho \"%s $*\" >> %s\n%s\n", name, file, end)
		if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"e2e-kubernetes", "GO=go", "LOAD=" + filepath.Join(folder, "load")}, variables...)
	cmd := exec.CommandContext(t.Context(), "make", args...)
	cmd.Dir = inRoot()
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	text, readErr := os.ReadFile(file)
	if readErr != nil {
		t.Fatalf("%v: %s", readErr, out)
	}
	return string(text), err == nil
}

func TestMakeE2EKubernetesLeavesNoCluster(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		load string
		fine bool
	}{"all is as it must be": {"", true}, "something is not": {"exit 1", false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told, fine := makeE2EKubernetes(t, test.load)
			if fine != test.fine {
				t.Errorf("it ends well: %v", fine)
			}
			at := 0
			for _, want := range []string{
				"docker buildx build", "docker build ", "kind@v0.33.0 create cluster ", "kind@v0.33.0 load docker-image ",
				"load run -context kind-healthgate-e2e -on-node docker exec {node}\n", "kind@v0.33.0 delete cluster --name healthgate-e2e\n",
			} {
				i := strings.Index(told[at:], want)
				if i < 0 {
					t.Fatalf("after what came before, %q is not told:\n%s", want, told)
				}
				at += i
			}
		})
	}
}

// Where a cluster is named, it is used as it is.
func TestMakeE2EKubernetesTakesAClusterThatIsThere(t *testing.T) {
	t.Parallel()
	told, fine := makeE2EKubernetes(t, "", "KUBE_CONTEXT=mine", "ON_NODE=", "RUNS=-components module")
	if !fine || strings.Contains(told, "kind@") || strings.Contains(told, "docker") || !strings.Contains(told, "load run -context mine -on-node  -components module\n") {
		t.Errorf("it ends well: %v, and was told:\n%s", fine, told)
	}
}

func TestMakeE2EKubernetesNamesAllThatIsMissing(t *testing.T) {
	t.Parallel()
	for want, programs := range map[string]map[string]string{
		"":                                       {"kubectl": "", "docker": ""},
		"missing: kubectl\n":                     {"docker": ""},
		"missing: docker with buildx\n":          {"kubectl": ""},
		"missing: kubectl, docker with buildx\n": nil,
	} {
		if said, fine := checkTools(t, programs, "kubectl", "docker"); fine != (want == "") || !strings.HasPrefix(said, want) {
			t.Errorf("it says %q, want %q", said, want)
		}
	}
	if recipe := makeRecipe(t, "kubectl"); !strings.Contains(recipe, "$(CHECK) kubectl$(if $(KUBE_CONTEXT),, docker)") {
		t.Errorf("make e2e-kubernetes checks by %s", recipe)
	}
}

// makeRecipe is what the Makefile has below a target.
func makeRecipe(t *testing.T, target string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + target + `:.*\n((?:\t.*\n)+)`).FindStringSubmatch(readFile(t, inRoot("Makefile")))
	if found == nil {
		t.Fatalf("the Makefile has no recipe for %s", target)
	}
	return found[1]
}
