// Package static tests what is read and not run: configurations, manifests, alerts, the compose file, and what is written about
// them.
package repo

import (
	"os"
	"path/filepath"
	"testing"

	"healthgate/e2e/testbed"
)

// inRoot is the path of a file of the checkout's.
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

// referenceConfig is the reference configuration.
func referenceConfig(t *testing.T) *testbed.Config {
	t.Helper()
	config, err := testbed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return config
}
