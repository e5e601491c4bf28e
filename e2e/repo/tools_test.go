package repo

import (
	"os"
	"os/exec"
	"path/filepath"
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

// On a Mac the line names the image of the devcontainer, whose version of Go is the Dockerfile's.
func TestMissingToolsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, version, _ := strings.Cut(readFile(t, inRoot("Dockerfile")), "\nARG GO_VERSION=")
	image := "golang:" + strings.SplitN(version, "\n", 2)[0] + "-bookworm"
	if devcontainer := readFile(t, inRoot(".devcontainer", "devcontainer.json")); !strings.Contains(devcontainer, image) {
		t.Errorf("the devcontainer is not from %s: %s", image, devcontainer)
	}
	const linux = "case $1 in -s) echo Linux;; -m) echo x86_64;; esac"
	for name, test := range map[string]struct {
		programs map[string]string
		want     []string // the output; all of it if there is one text
	}{
		"all": {map[string]string{"uname": linux, "go": "", "gcc": "", "g++": "", "readelf": "", "python3": ""}, []string{""}},
		"none": {map[string]string{"uname": linux}, []string{"missing: go, gcc, g++, readelf, python3, pip of python3\n" +
			"  apt-get install gcc g++ binutils python3 python3-pip\n  Go 1.26: https://go.dev/dl\n"}},
		"all but pip": {map[string]string{"uname": linux, "go": "", "gcc": "", "g++": "", "readelf": "", "python3": "exit 1"},
			[]string{"missing: pip of python3\n  apt-get install python3-pip\n"}},
		"Linux": {map[string]string{"uname": "echo Darwin"},
			[]string{"this needs Linux, not Darwin: open the folder in its devcontainer, or ", image}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, fine := checkTools(t, test.programs, "linux", "go=go", "cc=gcc", "cxx=g++", "readelf", "envoy")
			if fine != (test.want[0] == "") || !strings.HasPrefix(said, test.want[0]) || !strings.Contains(said, test.want[len(test.want)-1]) ||
				len(test.want) == 1 && said != test.want[0] {
				t.Errorf("it says %q (%v), want %q", said, fine, test.want)
			}
		})
	}
	// hadolint and Python's client need pip, also beside an Envoy.
	said, fine := checkTools(t, map[string]string{"python3": "exit 1"}, "pip")
	if fine || !strings.Contains(said, "missing: pip of python3\n") {
		t.Errorf("without pip it says %q (%v)", said, fine)
	}
}

// In containers a test that passes only because each of its subtests is skipped fails the run.
func TestTallyFindsHollowTests(t *testing.T) {
	t.Parallel()
	const whole = "--- PASS: TestA (0.00s)\n    --- SKIP: TestA/one (0.00s)\n    --- PASS: TestA/two (0.00s)\n--- SKIP: TestB (0.00s)\n"
	for name, test := range map[string]struct {
		out, want string
		fine      bool
	}{
		"whole": {whole, "s: 1 tests passed, 1 skipped, 0 failed\n", true},
		"hollow": {whole + "--- PASS: TestC (0.00s)\n    --- SKIP: TestC/one (0.00s)\n",
			"s: TestC passes although every subtest is skipped\n", false},
		"failed": {whole + "--- FAIL: TestC (0.00s)\n", "s: 1 tests passed, 1 skipped, 1 failed\n", false},
		"none":   {"--- SKIP: TestA (0.00s)\n", "s: 0 tests passed, 1 skipped, 0 failed\n", false},
	} {
		tally := exec.CommandContext(t.Context(), "awk", "-v", "service=s", "-f", inRoot("e2e", "tally.awk"))
		tally.Stdin = strings.NewReader(test.out)
		if got, err := tally.Output(); (err == nil) != test.fine || !strings.Contains(string(got), "\n"+test.want) {
			t.Errorf("%s: %v, and it prints %s", name, err, got)
		}
	}
}
