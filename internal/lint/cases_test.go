package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// cases reads testdata/cases: lists of small changes to a base. A key of a case is a part of the base, and its text is put there;
// e2e/suite reads the same files, and holds what each says of Envoy to Envoy.
func cases(t testing.TB) []map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	var all []map[string]string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var some []map[string]string
		if err := yaml.Unmarshal(content, &some); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, one := range some {
			one["case"] = strings.TrimSuffix(filepath.Base(file), ".yaml") + "/" + one["case"]
			if one["file"] == "" {
				one["file"] = rendered(t, one)
			}
			all = append(all, one)
		}
	}
	return all
}

// rendered puts the parts of a case into its base.
func rendered(t testing.TB, one map[string]string) string {
	t.Helper()
	name := one["base"]
	if name == "" {
		name = "module"
	}
	base, err := os.ReadFile("testdata/cases/" + name + ".base")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{"case": true, "want": true, "says": true, "at": true, "envoy": true, "base": true, "answer": true}
	text := fill(string(base), one, used)
	for key := range one {
		if !used[key] {
			t.Fatalf("%s: the base has no part %q", one["case"], key)
		}
	}
	return text
}

// fill puts texts into the parts of a base. A part is a line "#name", or what stands between "#name{" and "#}" unless it is given.
func fill(base string, parts map[string]string, used map[string]bool) string {
	var b strings.Builder
	lines := strings.SplitAfter(base, "\n")
	for i := 0; i < len(lines); i++ {
		trimmed := strings.TrimSpace(lines[i])
		if !strings.HasPrefix(trimmed, "#") {
			b.WriteString(lines[i])
			continue
		}
		indent := lines[i][:strings.Index(lines[i], "#")]
		name, block := strings.CutSuffix(trimmed[1:], "{")
		own, given := parts[name]
		used[name] = true
		end := i
		if block {
			end = i + slices.Index(lines[i:], indent+"#}\n")
			within := fill(strings.Join(lines[i+1:end], ""), parts, used)
			if !given {
				b.WriteString(within)
			}
		}
		for line := range strings.Lines(own) {
			b.WriteString(indent + strings.TrimRight(line, "\n") + "\n")
		}
		i = end
	}
	return b.String()
}

// Each case is found as it says, and nothing else.
func TestCasesHaveTheirFindings(t *testing.T) {
	for _, one := range cases(t) {
		t.Run(one["case"], func(t *testing.T) {
			found, err := Run([]Input{{"f", []byte(one["file"])}})
			if err != nil {
				t.Error(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, fmt.Sprintf("%s %s", f.Severity, f.Rule))
			}
			if want := one["want"]; strings.Join(got, ", ") != want {
				t.Errorf("found:\n%s\nwant %q in\n%s", render(found), want, one["file"])
				return
			}
			for _, f := range found {
				if lines := strings.Split(one["file"], "\n"); one["at"] != "" && !strings.Contains(lines[f.Line-1], one["at"]) {
					t.Errorf("%s is not at %q", f, one["at"])
				}
				if !strings.Contains(f.String(), one["says"]) {
					t.Errorf("%s does not say %q", f, one["says"])
				}
			}
		})
	}
}
