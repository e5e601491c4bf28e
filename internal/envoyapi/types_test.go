package envoyapi

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// Each package of Envoy's API that a configuration may name, of the versions in go.mod, is linked: by the list of imports, or by one of
// the packages in it.
func TestEachPackageOfTheAPIIsLinked(t *testing.T) {
	linked, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for module, folders := range map[string][]string{
		"github.com/envoyproxy/go-control-plane/envoy":   {"config", "extensions", "watchdog"},
		"github.com/envoyproxy/go-control-plane/contrib": {"envoy"},
	} {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		files := os.DirFS(strings.TrimSpace(string(dir)))
		for _, folder := range folders {
			packages := map[string]bool{}
			err := fs.WalkDir(files, folder, func(name string, _ fs.DirEntry, err error) error {
				if strings.HasSuffix(name, ".pb.go") && !strings.Contains(name, "/v2") {
					packages[module+"/"+path.Dir(name)] = true
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for pkg := range packages {
				found++
				if !strings.Contains(string(linked), "\n"+pkg+"\n") {
					t.Errorf("types.go does not have\n\t_ %q", pkg)
				}
			}
		}
	}
	if found < 300 {
		t.Errorf("the API has %d packages", found)
	}
}
