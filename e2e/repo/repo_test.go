// Package repo tests the files that users copy or follow: configurations, manifests, alerts, compose files and pages.
package repo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

// bin is the folder of the command, which is built from the checkout.
var bin string

func TestMain(m *testing.M) {
	var err error
	if bin, err = os.MkdirTemp("", "healthgate"); err == nil {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, "healthgate"), "./cmd/healthgate")
		build.Dir, build.Stderr = testbed.Root(), os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(bin)
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

// Users load the plugin and the module into their Envoys without the command and its dependencies.
func TestFilterImportsNothingOfTheCommand(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-deps", ".", "./cmd/libhealthgate")
	list.Dir = testbed.Root()
	out, err := list.Output()
	if err != nil || !strings.Contains(string(out), "\nhealthgate/filter/") || strings.Contains(string(out), "\nhealthgate/internal/") {
		t.Errorf("%v: they import\n%s", err, out)
	}
}
