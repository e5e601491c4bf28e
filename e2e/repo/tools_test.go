package repo

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// checkTools runs e2e/check-tools.sh on a machine that has only these programs, each with the text of its script.
func checkTools(t *testing.T, programs map[string]string, needs ...string) (said string, fine bool) {
	t.Helper()
	bin := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bash", "dirname", "mktemp"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "bash"), append([]string{inRoot("e2e", "check-tools.sh")}, needs...)...)
	cmd.Env = []string{"PATH=" + bin, "HEALTHGATE_CACHE=" + t.TempDir(), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func TestMissingToolsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	const linux = "case $1 in -s) echo Linux;; -m) echo x86_64;; esac"
	all := []string{"linux", "go=go", "cc=gcc", "cxx=g++", "readelf", "envoy"}
	for name, test := range map[string]struct {
		programs map[string]string
		want     string
	}{
		"all": {map[string]string{"uname": linux, "go": "", "gcc": "", "g++": "", "readelf": "", "python3": ""}, ""},
		"none": {map[string]string{"uname": linux}, "missing: go, gcc, g++, readelf, python3, pip of python3\n" +
			"  apt-get install gcc g++ binutils python3 python3-pip\n  Go 1.26: https://go.dev/dl\n"},
		"all but pip": {map[string]string{"uname": linux, "go": "", "gcc": "", "g++": "", "readelf": "", "python3": "exit 1"},
			"missing: pip of python3\n  apt-get install python3-pip\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if said, fine := checkTools(t, test.programs, all...); said != test.want || fine != (test.want == "") {
				t.Errorf("it says %q (%v), want %q", said, fine, test.want)
			}
		})
	}
}

// The line names the image of the devcontainer, whose version of Go is the Dockerfile's.
func TestMacOSGetsOneLineThatSaysHow(t *testing.T) {
	t.Parallel()
	said, fine := checkTools(t, map[string]string{"uname": "echo Darwin"}, "linux", "go=go", "cc=gcc")
	if fine || strings.Count(said, "\n") != 1 || !strings.HasPrefix(said,
		"this needs Linux, not Darwin: open the folder in its devcontainer, or ") {
		t.Errorf("it says %q (%v)", said, fine)
	}
	version := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`).FindStringSubmatch(readFile(t, inRoot("Dockerfile")))
	if version == nil {
		t.Fatal("the Dockerfile has no version of Go")
	}
	image := "golang:" + version[1] + "-bookworm"
	devcontainer := readFile(t, inRoot(".devcontainer", "devcontainer.json"))
	for what, text := range map[string]string{"the line": said, "the devcontainer": devcontainer} {
		if !strings.Contains(text, image) {
			t.Errorf("%s does not name %s: %s", what, image, text)
		}
	}
}
