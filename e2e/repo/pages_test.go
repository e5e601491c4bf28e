package repo

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
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

// commandDir is the folder of the command, after command has built it.
var commandDir string

// command builds the command once, and returns its folder.
var command = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "healthgate"); err != nil {
		return "", err
	}
	commandDir = dir
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "healthgate"), "./cmd/healthgate")
	build.Dir = testbed.Root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// workbench makes a folder with a user's envoy.yaml, the files of an xDS server and the command.
func workbench(t *testing.T) (dir string, run func(line string) (out string, err error)) {
	t.Helper()
	dir = t.TempDir()
	files := map[string]string{"envoy.yaml": inRoot("e2e", "repo", "testdata", "envoy.yaml")}
	for _, file := range []string{"bootstrap.yaml", "lds.yaml", "rds.yaml", "cds.yaml"} {
		files[file] = inRoot("internal", "lint", "testdata", "good-xds-files", file)
	}
	for to, from := range files {
		if err := os.WriteFile(filepath.Join(dir, to), []byte(readFile(t, from)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bin, err := command()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	return dir, func(line string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		return string(out) + stderr.String(), err
	}
}

// The commands that work on files are run, page by page, in the order in which a reader comes to them.
func TestCommandsOfThePagesRun(t *testing.T) {
	dir, run := workbench(t)
	users := readFile(t, inRoot("e2e", "repo", "testdata", "envoy.yaml"))
	onFiles := regexp.MustCompile(`^(build/)?healthgate ((config|lint)( .*)? envoy\.yaml( --write)?|lint --output json .*)$`)
	ran := 0
	for _, page := range pages(t) {
		if err := os.WriteFile(filepath.Join(dir, "envoy.yaml"), []byte(users), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range commandsOf(readFile(t, inRoot(page))) {
			if onFiles.MatchString(command) {
				ran++
				if out, err := run(command); err != nil {
					t.Errorf("%s: %s: %v\n%s", page, command, err, out)
				}
			}
		}
	}
	if ran < 5 {
		t.Errorf("%d commands were run", ran)
	}
}

func TestPagesNameFlagsThatExist(t *testing.T) {
	_, run := workbench(t)
	part := regexp.MustCompile(`healthgate (lint|explain|config|alive|drain|version|completion)\b([^|]*)`)
	flag := regexp.MustCompile(`--[a-z-]+`)
	helps, seen := map[string]string{}, 0
	for _, page := range pages(t) {
		for _, command := range commandsOf(readFile(t, inRoot(page))) {
			for _, found := range part.FindAllStringSubmatch(command, -1) {
				if helps[found[1]] == "" {
					help, err := run("healthgate " + found[1] + " --help")
					if err != nil {
						t.Fatal(err)
					}
					helps[found[1]] = help
				}
				for _, name := range flag.FindAllString(found[2], -1) {
					if seen++; !strings.Contains(helps[found[1]], " "+name+" ") {
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

func TestPagesNameTargetsThatExist(t *testing.T) {
	makefile := readFile(t, inRoot("Makefile"))
	for _, page := range pages(t) {
		for _, command := range commandsOf(readFile(t, inRoot(page))) {
			rest, found := strings.CutPrefix(command, "make ")
			for _, target := range strings.Fields(rest) {
				if !found || strings.HasPrefix(target, "-") || strings.Contains(target, "=") {
					continue
				}
				if !regexp.MustCompile(`(?m)^` + target + `:.* ## `).MatchString(makefile) {
					t.Errorf("%s: make %s is not there", page, target)
				}
			}
		}
	}
}

// README's diff is what its command prints for testdata/envoy.yaml, and lint finds nothing in the result.
func TestReadmeShowsWhatConfigAdds(t *testing.T) {
	readme := readFile(t, inRoot("README.md"))
	shown := regexp.MustCompile("(?s)```diff\n(.*?)```").FindStringSubmatch(readme)
	if shown == nil {
		t.Fatal("the README shows no diff")
	}
	_, run := workbench(t)
	config := regexp.MustCompile(`(?m)^build/healthgate config .*$`).FindString(readme)
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
	written, err := run("cat envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := validate([]byte(written)); err != nil {
		t.Errorf("it does not fit Envoy's API: %v", err)
	}
}

// The page of the configuration shows each key, in a configuration that lint accepts.
func TestConfigurationPageShowsEachKey(t *testing.T) {
	_, shown, _ := strings.Cut(readFile(t, inRoot("docs", "configuration.md")), "```yaml\n")
	shown, _, _ = strings.Cut(shown, "```")
	var schema struct {
		Properties map[string]any
	}
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
