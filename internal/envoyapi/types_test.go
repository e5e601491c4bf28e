package envoyapi

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The list of imports has each package of Envoy's API that a configuration may name, of the version in go.mod.
func TestEachPackageOfTheAPIIsLinked(t *testing.T) {
	source, err := os.ReadFile("types.go")
	if err != nil {
		t.Fatal(err)
	}
	const envoy, contrib = "github.com/envoyproxy/go-control-plane/envoy/", "github.com/envoyproxy/go-control-plane/contrib/envoy/"
	out, err := exec.Command("go", "list", envoy+"config/...", envoy+"extensions/...", envoy+"watchdog/...", contrib+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(string(out))
	if len(listed) < 300 {
		t.Fatalf("go list found %d packages", len(listed))
	}
	for _, pkg := range listed {
		if !strings.Contains(pkg, "/v2") && !strings.Contains(string(source), "\t_ \""+pkg+"\"\n") {
			t.Errorf("types.go does not have\n\t_ %q", pkg)
		}
	}
}
