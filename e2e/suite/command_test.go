package suite

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"healthgate/e2e/testbed"
)

// command runs build/healthgate, and returns its output and its exit code: 0 all well, 1 problems found.
func command(t *testing.T, args ...string) (stdout []byte, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(testbed.Root(), "build", "healthgate"), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	exit := (*exec.ExitError)(nil)
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 1) {
		t.Fatalf("healthgate %v: %v (make command builds it)\n%s", args, err, stderr.String())
	}
	if exit != nil {
		return stdout, exit.ExitCode()
	}
	return stdout, 0
}

// finding is an entry of what lint prints.
type finding struct{ Severity, Rule, Message string }

// findings returns what lint finds in a file.
func findings(t *testing.T, file string) (all []finding) {
	t.Helper()
	stdout, _ := command(t, "lint", "--output", "json", file)
	if err := json.Unmarshal(stdout, &all); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return all
}

// lint returns the rules that a configuration breaks, each once.
func lint(t *testing.T, config testbed.Configuration) []string {
	t.Helper()
	rules := []string{}
	for _, f := range findings(t, writeConfig(t, string(config.JSON()))) {
		t.Logf("lint: %s [%s]", f.Message, f.Rule)
		rules = append(rules, f.Rule)
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

// expectLint expects these rules to be broken, separated by spaces, and no other.
func expectLint(t *testing.T, config testbed.Configuration, rules string) {
	t.Helper()
	if got := lint(t, config); !slices.Equal(got, strings.Fields(rules)) {
		t.Errorf("lint finds %q, want %q", got, rules)
	}
}

// At load each variant logs its version, the one that `healthgate version` prints, in one line. The Envoy of the tests is a supported one,
// so nothing is logged about Envoy's.
func TestVersionIsLoggedOnceAtLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS(), alone("it reads Envoy's log"))
	out, _ := command(t, "version")
	number, found := strings.CutPrefix(strings.TrimSpace(string(out)), "healthgate ") // healthgate 1.2.3 (0123abc)
	if !found || number == "" {
		t.Fatalf("the command prints %q", out)
	}
	s.setServing(1)
	if !s.reload(`{"clusters": ["service"], "stat_prefix": "second"}`) {
		t.Fatal("Envoy refused a good configuration")
	}
	s.awaitProbe(s.client("h2"), 200, settle)
	variants := map[string]string{"plugin": "Go plugin for Envoy ", "module": "dynamic module"}
	s.awaitLines("healthgate: "+number+", "+variants[variant.Name()], 1, settle)
	line := regexp.MustCompile(`\bhealthgate: [0-9a-z.+-]+( \([0-9a-f]+\))?, (Go plugin|dynamic module).*`)
	if lines := line.FindAllString(s.envoy.Log(), -1); len(lines) != 1 {
		t.Errorf("the log has the version in the lines %q, want one", lines)
	}
	if s.stat("server.version") == 0 || strings.Contains(s.envoy.Log(), "this plugin was built for") {
		t.Error("the log has a warning about Envoy's version, or Envoy has no stat server.version")
	}
}
