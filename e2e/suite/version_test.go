package suite

import (
	"regexp"
	"strings"
	"testing"
)

// At load each variant logs its version, the one that `healthgate version` prints, in one line.
func TestVersionIsLoggedOnceAtLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLDS(), alone("it reads Envoy's log"))
	out, _ := command(t, "version")
	version := strings.TrimSpace(string(out)) // healthgate 1.2.3 (0123abc)
	number, found := strings.CutPrefix(version, "healthgate ")
	if !found || number == "" {
		t.Fatalf("the command prints %q", out)
	}
	s.setServing(1)
	if !s.reload(`{"clusters": ["service"], "stat_prefix": "second"}`) {
		t.Fatal("Envoy refused a good configuration")
	}
	s.awaitProbe(s.client("h2"), 200, settle)
	variants := map[string]string{"plugin": "Go plugin for Envoy ", "module": "dynamic module"}
	line := "healthgate: " + number + ", " + variants[variant.Name()]
	s.awaitLines(line, 1, settle)
	if lines := regexp.MustCompile(
		`(?m)^.*\bhealthgate: [0-9a-z.+-]+( \([0-9a-f]+\))?, (Go plugin|dynamic module).*$`,
	).FindAllString(
		s.envoy.Log(),
		-1,
	); len(
		lines,
	) != 1 {
		t.Errorf("the log has the version in the lines %q, want one", lines)
	}
}
