// Package repo tests the files that users copy or follow: configurations, manifests, alerts, compose files and pages.
package repo

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(commandDir)
	os.Exit(code)
}

// inRoot returns the path of a file of the checkout.
func inRoot(path ...string) string {
	return filepath.Join(append([]string{testbed.Root()}, path...)...)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// imports returns what each package of a Go module imports, without its tests.
func imports(t *testing.T, module string) map[string][]string {
	t.Helper()
	list := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	list.Dir = inRoot(module)
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		names := strings.Fields(line)
		all[names[0]] = names[1:]
	}
	if len(all) < 5 {
		t.Fatalf("found %v", all)
	}
	return all
}

// The tests in Envoy know Healthgate by the files that were built and the documented configuration alone.
func TestE2EImportsNoneOfTheCodeUnderTest(t *testing.T) {
	t.Parallel()
	for pkg, imported := range imports(t, "e2e") {
		for _, name := range imported {
			if strings.HasPrefix(name, "healthgate") && !strings.HasPrefix(name, "healthgate/e2e/") {
				t.Errorf("%s imports %s", pkg, name)
			}
		}
	}
}

// Users load the plugin and the module into their Envoys without the command and its dependencies.
func TestFilterImportsNothingOfTheCommand(t *testing.T) {
	t.Parallel()
	command := regexp.MustCompile("^healthgate/(internal|cmd)/")
	for pkg, imported := range imports(t, ".") {
		for _, name := range imported {
			if strings.HasPrefix(pkg, "healthgate/filter") && command.MatchString(name) {
				t.Errorf("%s imports %s", pkg, name)
			}
		}
	}
}

// The images are built from what .dockerignore lets through.
func TestDockerignoreLetsEachPackageThrough(t *testing.T) {
	t.Parallel()
	ignored := readFile(t, inRoot(".dockerignore"))
	for pkg := range imports(t, ".") {
		folder, _, below := strings.Cut(strings.TrimPrefix(pkg, "healthgate/"), "/")
		if below && !strings.Contains(ignored, "\n!"+folder+"\n") {
			t.Errorf(".dockerignore leaves out %s, which has %s", folder, pkg)
		}
	}
}
