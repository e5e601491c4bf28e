package static

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"healthgate/e2e/bed"
)

// makeWords are the words of a variable of the Makefile's.
func makeWords(t *testing.T, name string) []string {
	t.Helper()
	text := strings.ReplaceAll(readFile(t, inRoot("Makefile")), "\\\n", " ")
	found := regexp.MustCompile(`(?m)^` + name + ` *:= *(.*)$`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("the Makefile has no %s", name)
	}
	return strings.Fields(found[1])
}

// A test that is renamed does not go missing from those that are run in each version of Envoy, or for long.
func TestNamesOfTestsInTheMakefileAreTheSuites(t *testing.T) {
	list := exec.Command("grep", "-rhoE", `^func Test\w+`, inRoot("e2e", "suite"))
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range []string{"EVERYWHERE", "FAULTS"} {
		names := makeWords(t, variable)
		if len(names) < 5 {
			t.Fatalf("%s is not read as it is written: %q", variable, names)
		}
		for _, name := range names {
			if !regexp.MustCompile(`(?m)^func Test` + name + `$`).Match(out) {
				t.Errorf("%s has Test%s, which e2e/suite has not", variable, name)
			}
		}
	}
}

// Each version that the Makefile runs the suite in can be fetched, by its hashes.
func TestVersionsOfEnvoyCanBeFetched(t *testing.T) {
	script := readFile(t, inRoot("e2e", "fetch-envoy.sh"))
	for _, version := range makeWords(t, "OTHER_ENVOYS") {
		if !strings.Contains(script, "\n"+version+") hashes=(") {
			t.Errorf("e2e/fetch-envoy.sh has no hashes of Envoy %s", version)
		}
	}
	if refuses := exec.Command("env", "ENVOY_VERSION=9.9.9", bed.Root()+"/e2e/fetch-envoy.sh"); refuses.Run() == nil {
		t.Error("e2e/fetch-envoy.sh takes any version")
	}
}
