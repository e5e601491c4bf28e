package version

import (
	"runtime/debug"
	"testing"
)

func TestText(t *testing.T) {
	info := func(version string, settings ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{Main: debug.Module{Path: "healthgate", Version: version}}
		for i := 0; i < len(settings); i += 2 {
			b.Settings = append(b.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return b
	}
	for name, test := range map[string]struct {
		number, revision string
		info             *debug.BuildInfo
		want             string
	}{
		"stamped":                  {"v1.2.3", "0123456789abcdef", info("(devel)"), "1.2.3 (0123456789ab)"},
		"stamped without revision": {"1.2.3", "", info("(devel)"), "1.2.3"},
		"go install":               {"", "", info("v1.2.3"), "1.2.3"},
		"a checkout": {"", "", info("(devel)", "vcs.revision", "0123456789abcdef", "vcs.modified", "true"),
			"devel (0123456789ab, modified)"},
		"a version with the revision": {"", "", info("v0.0.0-20260102030405-0123456789ab", "vcs.revision", "0123456789abcdef"),
			"0.0.0-20260102030405-0123456789ab"},
		"nothing": {"", "", nil, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := text(test.number, test.revision, test.info); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
