// Package version says which build of Healthgate this is. Command, Go plugin and dynamic module share it.
package version

import (
	"cmp"
	"runtime/debug"
	"strings"
)

// Set by the linker: -ldflags "-X healthgate/filter/version.number=1.2.3 -X healthgate/filter/version.revision=0123abc".
var (
	number   string
	revision string
)

// String returns the version and, if it is known, the revision: "1.2.3 (0123abc)". If the linker did not set them, they are Go's own, from
// `go install` or the checkout. If Go has none either, the version is "unknown".
func String() string {
	info, _ := debug.ReadBuildInfo()
	return text(number, revision, info)
}

func text(number, revision string, info *debug.BuildInfo) string {
	if info == nil {
		info = &debug.BuildInfo{}
	}
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	built := info.Main.Version
	if built == "(devel)" {
		built = "devel"
	}
	if info.Main.Path != "healthgate" { // a test binary, or another program that imports this
		built = ""
	}
	number = strings.TrimPrefix(cmp.Or(number, built, "unknown"), "v")
	if revision = cmp.Or(revision, settings["vcs.revision"]); revision == "" || strings.Contains(number, revision[:min(12, len(revision))]) {
		return number
	}
	if revision = revision[:min(12, len(revision))]; settings["vcs.modified"] == "true" {
		revision += ", modified"
	}
	return number + " (" + revision + ")"
}
