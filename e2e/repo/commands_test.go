package repo

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// pages are those that the rule is for: each command in them is run by a test, or listed as not run.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob(inRoot("docs", "*.md"))
	if err != nil || len(docs) < 5 {
		t.Fatalf("found %v, %v", docs, err)
	}
	all := []string{"README.md", "CONTRIBUTING.md"}
	for _, page := range docs {
		all = append(all, filepath.Join("docs", filepath.Base(page)))
	}
	return all
}

var (
	shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")
	inlineCode = regexp.MustCompile("`((?:make|healthgate|docker|kubectl|curl|go) [^`]+)`")
	remark     = regexp.MustCompile(`\s+# .*$`)
)

// commandsOf are the commands in a page's shell blocks, and those in its sentences.
func commandsOf(text string) (all []string) {
	for _, block := range shellBlock.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			if line = strings.TrimSpace(remark.ReplaceAllString(strings.TrimSpace(line), "")); line != "" && line[0] != '#' {
				all = append(all, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	for _, code := range inlineCode.FindAllStringSubmatch(shellBlock.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.ReplaceAll(code[1], `\|`, "|"))
	}
	return all
}

// fates say what becomes of the commands that a pattern matches as a whole; the first that matches counts. A fate is
//
//	here                 the test below runs it, on the file that the README's diff is of
//	test NAME            a test of that name does what it does
//	ci                   the workflow runs it
//	not run, because …
var fates = []struct{ pattern, fate string }{
	{`(build/)?healthgate (config|lint)( .*)? envoy\.yaml( --write)?`, "here"},
	{`healthgate lint --output json .*`, "here"},
	{`kubectl kustomize \S+ \| healthgate lint -`, "not run, because make lint does the same with each overlay"},
	{`curl -s localhost:9901/config_dump \| healthgate lint -`, "test TestCorpusIsFoundAsItSays"},
	{`healthgate (lint|config|version|completion bash)`, "test TestScripts"},
	{`healthgate explain( --watch| --output json)*`, "test TestExplainAgreesWithTheGate"},
	{`healthgate (alive|drain)( --delay \w+ --timeout \w+)?`, "test TestCommandDrainsAnEnvoy"},
	{`make test`, "ci"},
	{`make (plugin|module|command)( plugin| module| command)*`, "test TestBuildMakesWhatThePagesName"},
	{`make demo( VARIANT=\w+)?`, "test TestScriptGoesThroughTheAnswersByEachVariant"},
	{`make run( VARIANT=\w+)?`, "test TestRunTellsEachCountAndLeavesNothing"},
	{`make cert`, "test TestCertificateIsMadeAndNobodyElseCanReadItsKey"},
	{`make bench`, "test TestBenchRuns"},
	{`make compare( (FOR|EVENTS|WITHOUT)=\S+)?`, "test TestRandomEventsShowNoDisagreement"},
	{`make compare SOAK=1( FOR=\w+)?( VARIANT=\w+)?`, "test TestSoakShowsNoDisagreementAndNoGrowth"},
	{`make (image|e2e-compose|e2e-kubernetes|vulnerabilities|golangci)( .*)?`, "ci"},
	{`make (mutants|recording|faults)`, "not run, because it takes minutes or an hour, or changes the sources"},
	{`make e2e ENVOY_VERSION=\S+`, "not run, because make test runs a part of it, and all of it in another version"},
	{`curl .*`, "not run, because it asks an Envoy that is running: what that answers is the suite's to test"},
	{`(kubectl|gcloud|aws|kind|minikube|helm) .*`, "not run, because it needs a cluster"},
	{`docker .*`, "not run, because it needs an engine and the images"},
	{`sudo .*`, "not run, because it needs root"},
	{`go install`, "not run, because it is named, and not to be typed"},
	{`go get .*|go -C e2e get .*`, "not run, because it changes go.mod: TestOneVersionOfEnvoy holds what it says to that"},
}

// fate is the first whose pattern a command matches, or "".
func fate(line string) (pattern, fate string) {
	for _, f := range fates {
		if regexp.MustCompile(`^(` + f.pattern + `)$`).MatchString(line) {
			return f.pattern, f.fate
		}
	}
	return "", ""
}

func TestEachCommandOfThePagesIsRunOrListedAsNotRun(t *testing.T) {
	tests := testNames(t)
	workflow := readFile(t, inRoot(".github", "workflows", "ci.yaml"))
	used := map[string]bool{}
	for _, page := range pages(t) {
		for _, command := range commandsOf(readFile(t, inRoot(page))) {
			pattern, fate := fate(command)
			used[pattern] = true
			test, named := strings.CutPrefix(fate, "test ")
			switch {
			case fate == "":
				t.Errorf("%s: nothing says what runs %q, or why nothing does", page, command)
			case named && !tests[test]:
				t.Errorf("%s: %q is for %s, which is not there", page, command, test)
			case fate == "ci" && !regexp.MustCompile(`run: `+strings.Join(strings.Fields(command)[:2], " ")+`\b`).MatchString(workflow):
				t.Errorf("%s: %q is not in the workflow", page, command)
			case fate != "ci" && fate != "here" && !named && !strings.HasPrefix(fate, "not run, because "):
				t.Errorf("%q is no fate", fate)
			}
		}
	}
	for _, f := range fates {
		if !used[f.pattern] {
			t.Errorf("no page has a command like %s", f.pattern)
		}
	}
}

// testNames are the names of all tests of the project.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err := filepath.WalkDir(inRoot(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range declared.FindAllStringSubmatch(string(text), -1) {
			names[found[1]] = true
		}
		return err
	})
	if err != nil || len(names) < 100 {
		t.Fatalf("%d tests were found: %v", len(names), err)
	}
	return names
}

// command builds the command, and returns its path.
func command(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "healthgate")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", file, "./cmd/healthgate")
	build.Dir = testbed.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// workbench is a folder with what the pages' commands ask for, and the command in it.
func workbench(t *testing.T) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	put := func(to string, from ...string) {
		if err := os.WriteFile(filepath.Join(dir, to), []byte(readFile(t, inRoot(from...))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("envoy.yaml", "e2e", "repo", "testdata", "envoy.yaml")
	for _, file := range []string{"bootstrap.yaml", "lds.yaml", "rds.yaml", "cds.yaml"} {
		put(file, "internal", "lint", "testdata", "good-xds-files", file)
	}
	healthgate := command(t)
	if err := os.Symlink(filepath.Dir(healthgate), filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	return dir, append(os.Environ(), "PATH="+filepath.Dir(healthgate)+":"+os.Getenv("PATH"))
}

// Page by page, in the order in which they stand there.
func TestCommandsOfThePagesRun(t *testing.T) {
	dir, env := workbench(t)
	for _, page := range pages(t) {
		t.Run(page, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "envoy.yaml"), []byte(readFile(t, inRoot("e2e", "repo", "testdata", "envoy.yaml"))), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, command := range commandsOf(readFile(t, inRoot(page))) {
				if _, fate := fate(command); fate != "here" {
					continue
				}
				cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
				cmd.Dir, cmd.Env = dir, env
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
			}
		})
	}
}

// Whatever runs a command of healthgate's: it and its flags are there.
func TestCommandsOfThePagesNameFlagsThatAreThere(t *testing.T) {
	healthgate := command(t)
	part := regexp.MustCompile(`healthgate (lint|explain|config|alive|drain|version|completion)\b([^|]*)`)
	flag := regexp.MustCompile(`--[a-z-]+`)
	seen := 0
	for _, page := range pages(t) {
		for _, command := range commandsOf(readFile(t, inRoot(page))) {
			for _, found := range part.FindAllStringSubmatch(command, -1) {
				help, err := exec.CommandContext(t.Context(), healthgate, found[1], "--help").Output()
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range flag.FindAllString(found[2], -1) {
					if seen++; !strings.Contains(string(help), " "+name+" ") {
						t.Errorf("%s: %q has %s, and its help has not", page, command, name)
					}
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("%d flags were found", seen)
	}
}

// What make is asked for is a target of it with a line of help.
func TestTargetsOfThePagesAreThere(t *testing.T) {
	makefile := readFile(t, inRoot("Makefile"))
	for _, page := range pages(t) {
		for _, command := range commandsOf(readFile(t, inRoot(page))) {
			rest, make := strings.CutPrefix(command, "make ")
			for _, target := range strings.Fields(rest) {
				if make && !strings.Contains(target, "=") && !regexp.MustCompile(`(?m)^`+target+`:.* ## `).MatchString(makefile) {
					t.Errorf("%s: make %s is not there", page, target)
				}
			}
		}
	}
}

// `make build`, which the tests in Envoy begin with, makes what the pages say of plugin, module and command.
func TestBuildMakesWhatThePagesName(t *testing.T) {
	makefile := readFile(t, inRoot("Makefile"))
	if !regexp.MustCompile(`(?m)^build:.*\$\(PLUGIN\) \$\(MODULE\) \$\(COMMAND\)`).MatchString(makefile) {
		t.Error("make build does not make all three")
	}
	for _, rule := range []string{
		"plugin: $(PLUGIN)", "module: $(MODULE)", "command: $(COMMAND)",
		"PLUGIN  := build/healthgate.so", "MODULE  := build/libhealthgate.so", "COMMAND := build/healthgate",
	} {
		if !strings.Contains(makefile, "\n"+rule) {
			t.Errorf("the Makefile lacks %q", rule)
		}
	}
}

// The README's diff is what its command prints of a file like many, and lint finds nothing in what comes of it.
func TestReadmeShowsWhatConfigAdds(t *testing.T) {
	readme := readFile(t, inRoot("README.md"))
	_, rest, _ := strings.Cut(readme, "```diff\n")
	shown, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README shows no diff")
	}
	dir, env := workbench(t)
	shell := func(line string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	config := regexp.MustCompile(`(?m)^build/healthgate config .*$`).FindString(readme)
	_, diff, _ := strings.Cut(shell(config+" --write"), "+++ envoy.yaml\n")
	if diff != shown {
		t.Errorf("the README shows\n%s\nit is\n%s", shown, diff)
	}
	if found := shell("build/healthgate lint envoy.yaml"); found != "" {
		t.Errorf("lint finds %s", found)
	}
	if err := validate([]byte(shell("cat envoy.yaml"))); err != nil {
		t.Errorf("it does not fit Envoy's API: %v", err)
	}
}

// The first screens are for whoever has not decided yet.
func TestReadmeIsShort(t *testing.T) {
	if lines := strings.Count(readFile(t, inRoot("README.md")), "\n"); lines > 120 {
		t.Errorf("the README has %d lines, more than 120", lines)
	}
}

// What the README shows of Envoy's own filter can be put into the reference configuration as it is.
func TestReadmeShowsAValidConfigurationOfEnvoysOwnFilter(t *testing.T) {
	shown := regexp.MustCompile("`(\\{name: health_check.*?)`").FindStringSubmatch(readFile(t, inRoot("README.md")))
	if shown == nil {
		t.Fatal("the README shows no filter of Envoy's own")
	}
	var filter map[string]any
	if err := yaml.UnmarshalStrict([]byte(shown[1]), &filter); err != nil {
		t.Fatal(err)
	}
	config := referenceConfig(t)
	config.Set(testbed.Healthgate, filter)
	if err := validate(config.JSON()); err != nil {
		t.Error(err)
	}
}

// What the pages link to within the project is there.
func TestLinksOfThePagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	for _, page := range append(pages(t), "RATIONALE.md", "CHANGELOG.md", "SECURITY.md") {
		text := readFile(t, inRoot(page))
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			target := page
			if found[1] != "" {
				target = filepath.Join(filepath.Dir(page), found[1])
			}
			content, err := os.ReadFile(inRoot(target))
			if info, statErr := os.Stat(inRoot(target)); statErr == nil && info.IsDir() {
				err = nil
			}
			switch {
			case err != nil:
				t.Errorf("%s links to %s: %v", page, found[1], err)
			case found[2] != "" && !anchors(string(content))[found[2]]:
				t.Errorf("%s links to %s%s, which has no such heading", page, found[1], found[2])
			}
		}
	}
}

// anchors are those of a page's headings.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all["#"+strings.ReplaceAll(kept, " ", "-")] = true
	}
	return all
}
