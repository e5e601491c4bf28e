package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigPrintsWhatLintFindsNothingIn(t *testing.T) {
	for _, door := range []string{"contrib", "stock"} {
		code, stdout, stderr := execute(t, "", "config", "--cluster", "service", "--path", "/healthz", "--door", door, "--grpc-service", "shop.v1.Checkout")
		if code != exitFine || stderr != "" || !strings.Contains(stdout, "shop.v1.Checkout") {
			t.Errorf("%s: it ended with %d and said %q", door, code, stderr)
		}
		if code, found, stderr := execute(t, stdout, "lint", "-"); code != exitFine {
			t.Errorf("%s: lint ended with %d and found %s%s", door, code, found, stderr)
		}
	}
}

func TestConfigShowsTheDiffAndWritesOnlyWhenAsked(t *testing.T) {
	lua, err := os.ReadFile(filepath.Join("..", "..", "envoy", "lua.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, "envoy.yaml", string(lua))
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	args := []string{"config", "--cluster", "service", "--into", link}
	code, shown, stderr := execute(t, "", args...)
	if text, _ := os.ReadFile(file); string(text) != string(lua) || code != exitFine || !strings.Contains(stderr, "nothing is written yet") {
		t.Errorf("it ended with %d and said %q", code, stderr)
	}
	if !strings.HasPrefix(shown, "--- "+link+"\n+++ "+link+"\n@@ -") || !strings.Contains(shown, "\n+          - name: healthgate\n") {
		t.Errorf("it showed\n%s", shown)
	}
	code, stdout, stderr := execute(t, "", append(args, "--write")...)
	if code != exitFine || stdout != shown || stderr != "" {
		t.Errorf("it ended with %d, said %q and showed\n%s", code, stderr, stdout)
	}
	if code, found, _ := execute(t, "", "lint", file); code != exitFine {
		t.Errorf("lint found %s", found)
	}
	info, err := os.Stat(file)
	if text, _ := os.ReadFile(file); err != nil || info.Mode().Perm() != 0o640 || !strings.Contains(string(text), "plugin_name: healthgate") {
		t.Errorf("%v: it has the mode %v and\n%s", err, info.Mode(), text)
	}
	if link, err := os.Lstat(link); err != nil || link.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v: the link is %v", err, link)
	}
}

// What is wrong around the gate is told with it.
func TestConfigTellsWhatLintFindsInTheResult(t *testing.T) {
	lua, err := os.ReadFile(filepath.Join("..", "..", "envoy", "lua.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, "envoy.yaml", strings.Replace(string(lua), "[h2, http/1.1]", "[http/1.1]", 1))
	code, _, stderr := execute(t, "", "config", "--cluster", "service", "--into", file)
	if code != exitFound || !strings.Contains(stderr, "lint finds in the result:\n"+file+":") || !strings.Contains(stderr, "[alpn]") {
		t.Errorf("it ended with %d and said %q", code, stderr)
	}
}

func TestConfigSaysWhatIsMissing(t *testing.T) {
	for want, args := range map[string][]string{
		`required flag(s) "cluster" not set`:      {},
		"--door: \"side\" is neither contrib nor": {"--cluster", "a", "--door", "side"},
		"--write: goes with --into FILE":          {"--cluster", "a", "--write"},
		`path: "healthz" does not start with /`:   {"--cluster", "a", "--path", "healthz"},
		"open nowhere.yaml: no such file":         {"--cluster", "a", "--into", "nowhere.yaml"},
		"is empty; give the cluster's name":       {"--cluster", ""},
		"the gate is there already, in line ":     {"--cluster", "service", "--into", filepath.Join("..", "..", "envoy", "envoy.yaml")},
	} {
		code, stdout, stderr := execute(t, "", append([]string{"config"}, args...)...)
		if code != exitBlind || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%v: it ended with %d and said %q, want %q", args, code, stderr, want)
		}
	}
}

// What is added ends as the file's own lines do, and what was added is not added again.
func TestConfigKeepsTheEndsOfLines(t *testing.T) {
	lua, err := os.ReadFile(filepath.Join("..", "..", "envoy", "lua.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]string{"LF": "\n", "CRLF": "\r\n"} {
		t.Run(name, func(t *testing.T) {
			file := write(t, "envoy.yaml", strings.ReplaceAll(string(lua), "\n", end))
			args := []string{"config", "--cluster", "service", "--into", file, "--write"}
			if code, _, stderr := execute(t, "", args...); code != exitFine {
				t.Fatalf("it ended with %d and said %q", code, stderr)
			}
			once, err := os.ReadFile(file)
			if err != nil || strings.Count(string(once), "\n") != strings.Count(string(once), end) {
				t.Errorf("%v: ends of lines are mixed", err)
			}
			if code, _, stderr := execute(t, "", args...); code != exitBlind || !strings.Contains(stderr, "the gate is there already") {
				t.Errorf("the second time it ended with %d and said %q", code, stderr)
			}
			if twice, err := os.ReadFile(file); err != nil || string(twice) != string(once) {
				t.Errorf("%v: the second time has changed the file", err)
			}
		})
	}
}

// Whatever a cluster is called, what is printed is YAML that lint finds nothing in.
func TestConfigPrintsAnyName(t *testing.T) {
	for _, name := range []string{"a\nb", `a"b`, "a: b", "*a", "#x", " ", "ü", "on", "123", "%s", "outbound|80||a.b"} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, "", "config", "--cluster", name, "--grpc-service", name)
			if code != exitFine {
				t.Fatalf("it ended with %d and said %q", code, stderr)
			}
			if code, found, stderr := execute(t, stdout, "lint", "-"); code != exitFine {
				t.Errorf("lint ended with %d and found %s%s", code, found, stderr)
			}
		})
	}
}

// The shells that people have.
func TestCompletionIsThere(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, stderr := execute(t, "", "completion", shell); code != exitFine || !strings.Contains(stdout, "healthgate") {
			t.Errorf("%s: it ended with %d and said %q", shell, code, stderr)
		}
	}
	if _, stdout, _ := execute(t, "", "__complete", "config", "--door", ""); !strings.Contains(stdout, "stock\n") {
		t.Errorf("it proposes %q", stdout)
	}
}
