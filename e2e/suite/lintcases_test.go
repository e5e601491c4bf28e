package suite

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// lintCase is a case of internal/lint/testdata/cases as a bootstrap for stock Envoy.
type lintCase struct {
	name    string
	text    string
	refused bool
	answer  string // the status of a probe, or closed; "" if the case does not say
}

func lintCasesFolder() string { return filepath.Join(testbed.Root(), "internal/lint/testdata/cases") }

// lintCases returns the cases that this Envoy can read: not those for the plugin, those that are no bootstrap,
// and those for a later version.
func lintCases(t *testing.T) (all []lintCase) {
	t.Helper()
	version, err := testbed.EnvoyVersion()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(lintCasesFolder(), "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		var some []map[string]string
		if err := yaml.Unmarshal([]byte(readFile(t, file)), &some); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, one := range some {
			envoy := one["envoy"]
			_, since, _ := strings.Cut(envoy, "since ") // as in: takes since 1.40
			if one["base"] != "" || one["file"] != "" || envoy == "unknown" || since > version {
				continue
			}
			verdict, before, _ := strings.Cut(envoy, " before ") // as in: refuses before 1.40
			all = append(all, lintCase{
				name:    strings.TrimSuffix(filepath.Base(file), ".yaml") + "/" + one["case"],
				text:    fillBase(t, one),
				refused: verdict == "refuses" && (before == "" || version < before),
				answer:  one["answer"],
			})
		}
	}
	return all
}

// fillBase puts the parts of a case into the base of the cases for the module.
func fillBase(t *testing.T, parts map[string]string) string {
	t.Helper()
	return fill(readFile(t, filepath.Join(lintCasesFolder(), "module.base")), parts)
}

// fill does the same as internal/lint's own test.
func fill(base string, parts map[string]string) string {
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
				b.WriteString(fill(strings.Join(lines[i+1:end], ""), parts))
			}
		}
		for line := range strings.Lines(own) {
			b.WriteString(indent + strings.TrimRight(line, "\n") + "\n")
		}
		i = end
	}
	return b.String()
}

// writeConfig writes a configuration into a file for Envoy or the command.
func writeConfig(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// validated makes Envoy validate a configuration with the module.
func validated(t *testing.T, file string) (log string, err error) {
	t.Helper()
	envoy, err := testbed.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	validate := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "--config-path", file)
	validate.Env = append(os.Environ(), variant.Options(testbed.Options{}).Env...)
	out, err := validate.CombinedOutput()
	return string(out), err
}

// Envoy refuses exactly the lint cases that are marked as refused.
func TestLintCasesAreRefusedAsMarked(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var taken, refused atomic.Int64
	t.Run("cases", func(t *testing.T) {
		for _, one := range lintCases(t) {
			t.Run(one.name, func(t *testing.T) {
				t.Parallel()
				out, err := validated(t, writeConfig(t, one.text))
				count := &taken
				if err != nil {
					count = &refused
				}
				if count.Add(1); one.refused != (err != nil) {
					t.Errorf("Envoy refuses it: %v, want %v\n%s", err != nil, one.refused, testbed.Tail(out, 3))
				}
			})
		}
	})
	if t.Logf("Envoy takes %d and refuses %d", taken.Load(), refused.Load()); taken.Load() < 100 || refused.Load() < 40 {
		t.Error("too few cases")
	}
}

// All hosts of the gate are down. A probe gets the status that the case names: 503 if the filter before or after the gate, the route, the
// listener or the mapper is no problem, and another if lint reports it.
func TestLintCasesGiveTheirMarkedAnswers(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	answered := 0
	for _, one := range lintCases(t) {
		if one.answer == "" {
			continue
		}
		answered++
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			s := startText(t, one.text+"\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n")
			s.awaitStat("cluster.service.health_check.failure", 4)
			if got := s.plainStatus("/"); got != one.answer {
				t.Errorf("the probe gets %s, want %s", got, one.answer)
			}
		})
	}
	if answered < 40 {
		t.Errorf("only %d cases name an answer", answered)
	}
}

// startText starts Envoy with a configuration in YAML as it is.
func startText(t *testing.T, text string) *site {
	t.Helper()
	config, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	envoy, err := testbed.StartEnvoy(t.Context(), t.TempDir(), testbed.RawJSON(config), variant.Options(testbed.Options{Workers: 1}))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t}
	s.use(envoy)
	return s
}

// plainStatus requests a path of the listener, and returns the status, or closed.
func (s *site) plainStatus(path string) string {
	s.t.Helper()
	reply, err := askPlain(s.t, http.MethodGet, s.envoy.Ingress, path)
	if err != nil {
		return "closed"
	}
	return strconv.Itoa(reply.status)
}
