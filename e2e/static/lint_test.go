package static

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"healthgate/e2e/bed"
	"healthgate/e2e/kustomize"
)

// command builds the command, and returns its path.
func command(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "healthgate")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", file, "./cmd/healthgate")
	build.Dir = bed.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// What kustomize makes of each overlay, the ConfigMap with Envoy's configuration and the timers around it, is fine by lint.
func TestLintFindsNothingInTheOverlays(t *testing.T) {
	healthgate := command(t)
	for _, variant := range variants(t) {
		t.Run(variant.String(), func(t *testing.T) {
			built, err := variant.Build()
			if err != nil {
				t.Fatal(err)
			}
			text, err := built.AsYaml()
			if err != nil {
				t.Fatal(err)
			}
			if variant.Folder != kustomize.EnvoyGateway && !bytes.Contains(text, []byte("plugin_name: healthgate")) {
				t.Error("it has no gate")
			}
			cmd := exec.CommandContext(t.Context(), healthgate, "lint", "-")
			cmd.Stdin = bytes.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// And in each configuration that users copy.
func TestLintFindsNothingInTheConfigurations(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), command(t), append([]string{"lint"}, configurations(t)...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
