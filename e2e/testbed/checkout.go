package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Root returns the folder of the checkout.
var Root = sync.OnceValue(func() string {
	const marked = "plugin.go" // a file that no other folder has
	_, file, _, ok := runtime.Caller(0)
	if ok {
		if root := filepath.Join(filepath.Dir(file), "..", ".."); exists(filepath.Join(root, marked)) {
			return root
		}
	}
	// Built with -trimpath: from the working folder up.
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if exists(filepath.Join(dir, marked)) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	fmt.Fprintln(os.Stderr, "run this inside the checkout of Healthgate: it uses build/")
	os.Exit(2)
	return ""
})

// built returns the path of a file that `make build` makes.
func built(name string) string { return filepath.Join(Root(), "build", name) }

func backend() string { return built("backend") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// EnvoyPath returns the path of the Envoy to run. It fetches Envoy if necessary.
var EnvoyPath = sync.OnceValues(func() (string, error) {
	fetch := exec.Command(filepath.Join(Root(), "e2e", "fetch-envoy.sh"))
	fetch.Stderr = os.Stderr
	path, err := fetch.Output()
	if err != nil {
		return "", fmt.Errorf("no Envoy to run: %w", err)
	}
	return strings.TrimSpace(string(path)), nil
})

// EnvoyVersion returns the version of the Envoy to run.
func EnvoyVersion() (string, error) {
	envoy, err := EnvoyPath()
	if err != nil {
		return "", err
	}
	// .../envoy  version: <commit>/<version>/<state>/<type>/<TLS library>
	text, err := exec.Command(envoy, "--version").Output()
	if err != nil {
		return "", err
	}
	if parts := strings.Split(string(text), "/"); len(parts) >= 4 {
		return parts[len(parts)-4], nil
	}
	return strings.TrimSpace(string(text)), nil
}
