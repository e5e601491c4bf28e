package suite

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// lint reports an error by its rules api and config exactly if Envoy refuses the value. Envoy's own parser decides, not its documentation.
func TestLintAcceptsExactlyWhatEnvoyAccepts(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var parts map[string]map[string]string
	if err := yaml.UnmarshalStrict([]byte(readFile(t, "testdata/spellings.yaml")), &parts); err != nil {
		t.Fatal(err)
	}
	taken, refused := 0, 0
	for part, spellings := range parts {
		for into, values := range spellings {
			for value := range strings.Lines(values) {
				text := strings.ReplaceAll(strings.Replace(into, "%s", strings.TrimSuffix(value, "\n"), 1), `\n`, "\n")
				file := writeConfig(t, fillBase(t, map[string]string{"checks": "", part: text}))
				out, err := validated(t, file)
				takes := err == nil
				if takes {
					taken++
				} else {
					refused++
				}
				if slip := slipFound(t, file); (slip == "") != takes {
					t.Errorf("%s: Envoy takes it: %v; lint says %q\n%s", text, takes, slip, testbed.Tail(out, 2))
				}
			}
		}
	}
	if t.Logf("Envoy takes %d and refuses %d", taken, refused); taken < 80 || refused < 80 {
		t.Error("too few cases")
	}
}

// slipFound returns the first error that lint finds in a file by its rules api and config.
func slipFound(t *testing.T, file string) string {
	t.Helper()
	for _, f := range findings(t, file) {
		if f.Severity == "error" && (f.Rule == "api" || f.Rule == "config") {
			return f.Message
		}
	}
	return ""
}
