package repo

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
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

// suiteTests are the names of the tests in e2e/suite, each after "func " in a line of its own.
func suiteTests(t *testing.T) []byte {
	t.Helper()
	out, err := exec.Command("grep", "-rhoE", `^func Test\w+`, inRoot("e2e", "suite")).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A test that is renamed does not go missing from those that are run in each version of Envoy, or for long.
func TestNamesOfTestsInTheMakefileAreTheSuites(t *testing.T) {
	out := suiteTests(t)
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

// docs/failure-modes.md has a row for each fault that a test makes, and a test for each row.
func TestFaultsPageIsAboutTheTestsThatThereAre(t *testing.T) {
	page, tests := readFile(t, inRoot("docs", "failure-modes.md")), string(suiteTests(t))
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(page, -1)
	if len(named) < 30 {
		t.Fatalf("the page names %d tests", len(named))
	}
	for _, name := range named {
		if !strings.Contains(tests, "func "+name[1]+"\n") {
			t.Errorf("the page names %s, which e2e/suite has not", name[1])
		}
	}
	faults := regexp.MustCompile(`(?m)^func (Test(?:`+strings.Join(makeWords(t, "FAULTS"), "|")+`))$`).FindAllStringSubmatch(tests, -1)
	if len(faults) < 20 {
		t.Fatalf("found %d tests of faults", len(faults))
	}
	for _, name := range faults {
		if !strings.Contains(page, "`"+name[1]+"`") {
			t.Errorf("the page is without %s", name[1])
		}
	}
}

// Each version that the Makefile runs the suite in can be fetched, by its hashes, and the README names it.
func TestVersionsOfEnvoyCanBeFetched(t *testing.T) {
	script := readFile(t, inRoot("e2e", "fetch-envoy.sh"))
	readme := readFile(t, inRoot("README.md"))
	for _, version := range makeWords(t, "OTHER_ENVOYS") {
		if !strings.Contains(readme, version) {
			t.Errorf("the README does not say that it is tested in Envoy %s", version)
		}
		if !strings.Contains(script, "\n"+version+") hashes=(") {
			t.Errorf("e2e/fetch-envoy.sh has no hashes of Envoy %s", version)
		}
	}
	if refuses := exec.Command("env", "ENVOY_VERSION=9.9.9", testbed.Root()+"/e2e/fetch-envoy.sh"); refuses.Run() == nil {
		t.Error("e2e/fetch-envoy.sh takes any version")
	}
}
