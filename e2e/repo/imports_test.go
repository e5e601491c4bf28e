package repo

import (
	"os/exec"
	"strings"
	"testing"
)

// imports are what each package of a module imports, its tests left out.
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
	return all
}

// Only its own main imports a variant, and filter/ imports nothing of the command. filter/golang's tests check the order within filter/.
func TestNothingKnowsAVariantButItsMain(t *testing.T) {
	mains := map[string]string{"healthgate/filter/golang": "healthgate", "healthgate/filter/dynamicmodule": "healthgate/cmd/libhealthgate"}
	seen := 0
	for pkg, imported := range imports(t, ".") {
		for _, name := range imported {
			if main, variant := mains[name]; variant {
				seen++
				if pkg != main && !strings.HasPrefix(pkg, name+"/") {
					t.Errorf("%s imports %s, which is for %s", pkg, name, main)
				}
			}
			if strings.HasPrefix(pkg, "healthgate/filter") && (strings.HasPrefix(name, "healthgate/internal") || strings.HasPrefix(name, "healthgate/cmd")) {
				t.Errorf("%s imports %s, which is the command's", pkg, name)
			}
		}
	}
	if seen < len(mains) {
		t.Errorf("%d of %d variants are imported by anybody", seen, len(mains))
	}
}

func TestBedKnowsNoVariantAndNoneOfTheCode(t *testing.T) {
	for pkg, imported := range imports(t, "e2e") {
		for _, name := range imported {
			if pkg == "healthgate/e2e/testbed" && strings.HasPrefix(name, "healthgate/") {
				t.Errorf("bed imports %s", name)
			}
			if name == "healthgate" || strings.HasPrefix(name, "healthgate/") && !strings.HasPrefix(name, "healthgate/e2e/") {
				t.Errorf("%s imports %s: e2e knows what was built, and not its code", pkg, name)
			}
		}
	}
}

// The images are built from what .dockerignore lets through: each folder with a package of the project's has to be.
func TestImagesAreBuiltFromEveryPackage(t *testing.T) {
	ignored := readFile(t, inRoot(".dockerignore"))
	folders := 0
	for pkg := range imports(t, ".") {
		folder, _, _ := strings.Cut(strings.TrimPrefix(pkg, "healthgate/"), "/")
		if folder == "healthgate" {
			continue // plugin.go's own
		}
		folders++
		if !strings.Contains(ignored, "\n!"+folder+"\n") {
			t.Errorf(".dockerignore leaves out %s, which has %s", folder, pkg)
		}
	}
	if folders < 5 {
		t.Errorf("%d packages were found", folders)
	}
}
