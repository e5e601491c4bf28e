package repo

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

// pages returns the paths of the pages, relative to the checkout.
func pages(t *testing.T) (all []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "envoy/examples/*.md", "manifests/*.md", "manifests/overlays/*/*.md"} {
		files, err := filepath.Glob(inRoot(pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: found %v, %v", pattern, files, err)
		}
		for _, file := range files {
			page, err := filepath.Rel(testbed.Root(), file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page)
		}
	}
	return all
}

var (
	shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")
	inlineCode = regexp.MustCompile("`((?:make|healthgate) [^`]+)`")
	remark     = regexp.MustCompile(`\s+# .*$`)
)

// commandsOf returns the commands in a page's shell blocks and in its sentences.
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

// workbench makes a folder with a user's envoy.yaml, the files of an xDS server and the command, and returns a function that runs a line
// of a shell there.
func workbench(t *testing.T) (dir string, run func(line string) (out string, err error)) {
	t.Helper()
	dir = t.TempDir()
	files := []string{"e2e/repo/testdata/envoy.yaml"}
	for _, file := range []string{"bootstrap.yaml", "lds.yaml", "rds.yaml", "cds.yaml"} {
		files = append(files, "internal/lint/testdata/good-xds-files/"+file)
	}
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(readFile(t, inRoot(file))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(bin, filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	return dir, func(line string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// The commands that work on files are run, page by page, in the order in which a reader comes to them. The flags and targets of the others
// exist.
func TestCommandsOfThePagesRun(t *testing.T) {
	onFiles := regexp.MustCompile(`^(build/)?healthgate ((config|lint)( .*)? envoy\.yaml( --write)?|lint --output json .*)$`)
	part := regexp.MustCompile(`healthgate (lint|explain|config|alive|drain|version|completion)\b([^|]*)`)
	flag := regexp.MustCompile(`--[a-z-]+`)
	makefile := readFile(t, inRoot("Makefile"))
	ran, flags := 0, 0
	for _, page := range pages(t) {
		_, run := workbench(t)
		for _, command := range commandsOf(readFile(t, inRoot(page))) {
			if onFiles.MatchString(command) {
				ran++
				if out, err := run(command); err != nil {
					t.Errorf("%s: %s: %v\n%s", page, command, err, out)
				}
			}
			for _, found := range part.FindAllStringSubmatch(command, -1) {
				help, err := run("healthgate " + found[1] + " --help")
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range flag.FindAllString(found[2], -1) {
					if flags++; !strings.Contains(help, " "+name+" ") {
						t.Errorf("%s: %q has %s, and its help has not", page, command, name)
					}
				}
			}
			if targets, found := strings.CutPrefix(command, "make "); found {
				for target := range strings.FieldsSeq(targets) {
					if target[0] != '-' && !strings.Contains(target, "=") &&
						!regexp.MustCompile(`(?m)^`+target+`:.* ## `).MatchString(makefile) {
						t.Errorf("%s: make %s is not there", page, target)
					}
				}
			}
		}
	}
	if ran < 5 || flags < 10 {
		t.Errorf("%d commands were run, and %d flags were found", ran, flags)
	}
}

// README's diff is what its command prints for testdata/envoy.yaml, and lint finds nothing in the result.
func TestReadmeShowsWhatConfigAdds(t *testing.T) {
	readme := readFile(t, inRoot("README.md"))
	shown := regexp.MustCompile("(?s)```diff\n(.*?)```").FindStringSubmatch(readme)
	config := regexp.MustCompile(`(?m)^build/healthgate config .*$`).FindString(readme)
	if shown == nil || config == "" {
		t.Fatal("the README shows no diff")
	}
	_, run := workbench(t)
	out, err := run(strings.TrimSuffix(config, " --write") + " --write")
	if err != nil {
		t.Fatal(err)
	}
	if _, diff, _ := strings.Cut(out, "+++ envoy.yaml\n"); !strings.HasPrefix(diff, shown[1]) {
		t.Errorf("the README shows\n%s\nit is\n%s", shown[1], diff)
	}
	if found, err := run("build/healthgate lint envoy.yaml"); err != nil {
		t.Errorf("lint finds %s", found)
	}
}

// The page of the configuration shows each key, in a configuration that lint accepts.
func TestConfigurationPageShowsEachKey(t *testing.T) {
	_, shown, _ := strings.Cut(readFile(t, inRoot("docs", "configuration.md")), "```yaml\n")
	shown, _, _ = strings.Cut(shown, "```")
	var schema struct{ Properties map[string]any }
	if err := json.Unmarshal([]byte(readFile(t, inRoot("filter", "config", "schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	for key := range schema.Properties {
		if !regexp.MustCompile(`(?m)^(# )?` + key + `:`).MatchString(shown) {
			t.Errorf("%s is not shown", key)
		}
	}
	config, err := testbed.ReadBootstrap("envoy/module.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config.SetGate(strings.ReplaceAll(shown, "checkout", "service"))
	config.SetGateKey("grpc_services", []any{"router.Router"}) // which module.yaml has a route for
	dir, run := workbench(t)
	if err := os.WriteFile(filepath.Join(dir, "envoy.yaml"), config.JSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run("healthgate lint envoy.yaml"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestExamplesAreOnTheirPage(t *testing.T) {
	t.Parallel()
	names, err := testbed.Examples()
	if err != nil {
		t.Fatal(err)
	}
	page := readFile(t, inRoot("envoy", "examples", "README.md"))
	for _, name := range names {
		if !strings.Contains(page, "("+name+".yaml)") {
			t.Errorf("the page of the examples does not have %s", name)
		}
	}
}

func TestLinksOfThePagesResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	for _, page := range pages(t) {
		for _, found := range link.FindAllStringSubmatch(readFile(t, inRoot(page)), -1) {
			target := page
			if found[1] != "" {
				target = filepath.Join(filepath.Dir(page), found[1])
			}
			if _, err := os.Stat(inRoot(target)); err != nil {
				t.Errorf("%s links to %s: %v", page, found[1], err)
			} else if found[2] != "" && !anchors(readFile(t, inRoot(target)))[found[2]] {
				t.Errorf("%s links to %s%s, which has no such heading", page, found[1], found[2])
			}
		}
	}
}

// anchors returns the anchors of a page's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all["#"+strings.ReplaceAll(kept, " ", "-")] = true
	}
	return all
}
