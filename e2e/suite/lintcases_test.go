package suite

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/bed"
)

// Envoy refuses each of lint's cases that says so, and takes each other one that stock Envoy can read.
func TestLintsCasesAreWhatEnvoySays(t *testing.T) {
	t.Parallel()
	skipUnlessStock(t)
	version, err := bed.EnvoyVersion()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(bed.Root(), "internal/lint/testdata/cases")
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	var mutex sync.Mutex
	taken, refused := 0, 0
	limit := make(chan struct{}, 2)
	t.Run("cases", func(t *testing.T) {
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var all []map[string]string
			if err := yaml.Unmarshal(content, &all); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, one := range all {
				// A case of the plugin, of more files than one, or of a part that only another Envoy has.
				if one["base"] != "" || one["file"] != "" || one["envoy"] == "unknown" || since(one["envoy"]) > version {
					continue
				}
				t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+one["case"], func(t *testing.T) {
					t.Parallel()
					limit <- struct{}{}
					defer func() { <-limit }()
					base, err := os.ReadFile(filepath.Join(folder, "module.base"))
					if err != nil {
						t.Fatal(err)
					}
					name := filepath.Join(t.TempDir(), "envoy.yaml")
					if err := os.WriteFile(name, []byte(filled(string(base), one)), 0o600); err != nil {
						t.Fatal(err)
					}
					out, err := validated(t, name)
					mutex.Lock()
					defer mutex.Unlock()
					if err == nil {
						taken++
					} else {
						refused++
					}
					if refuses := strings.HasPrefix(one["envoy"], "refuses"); refuses != (err != nil) {
						t.Errorf("Envoy refuses it: %v, want %v\n%s", err != nil, refuses, bed.Tail(out, 3))
					}
				})
			}
		}
	})
	if t.Logf("Envoy takes %d and refuses %d", taken, refused); taken < 40 || refused < 15 {
		t.Error("that shows little")
	}
}

// since is the version of Envoy from which on a case is known: "takes, since 1.39.0".
func since(said string) string {
	_, version, _ := strings.Cut(said, "since ")
	return version
}

// filled puts the parts of a case into its base, as internal/lint's own test does.
func filled(base string, parts map[string]string) string {
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
		end := i
		if block {
			end = i + slices.Index(lines[i:], indent+"#}\n")
			if !given {
				b.WriteString(filled(strings.Join(lines[i+1:end], ""), parts))
			}
		}
		for line := range strings.Lines(own) {
			b.WriteString(indent + strings.TrimRight(line, "\n") + "\n")
		}
		i = end
	}
	return b.String()
}
