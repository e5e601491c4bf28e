package repo

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Dependabot looks where there is something: a folder that has moved is not left behind in silence.
func TestDependabotLooksAtEachKind(t *testing.T) {
	var dependabot struct {
		Version int
		Updates []struct {
			Ecosystem string `json:"package-ecosystem"`
			Directory string
			Schedule  struct{ Interval string }
			Groups    map[string]struct{ Patterns []string }
			Ignore    []struct {
				Name string `json:"dependency-name"`
			}
		}
	}
	if err := yaml.UnmarshalStrict([]byte(readFile(t, inRoot(".github", "dependabot.yml"))), &dependabot); err != nil {
		t.Fatal(err)
	}
	holds := map[string]string{
		"gomod": "go.mod", "docker": "Dockerfile", "pip": "requirements.txt", "github-actions": ".github/workflows/ci.yaml",
	}
	looked := map[string]bool{}
	for _, update := range dependabot.Updates {
		file := holds[update.Ecosystem]
		if file == "" {
			t.Errorf("nothing is known of %s", update.Ecosystem)
			continue
		}
		if _, err := os.Stat(inRoot(update.Directory, file)); err != nil {
			t.Errorf("%s: %v", update.Ecosystem, err)
		}
		looked[path.Join(update.Directory, file)] = true
		if update.Ecosystem == "gomod" && (len(update.Ignore) != 1 || update.Ignore[0].Name != "github.com/envoyproxy/*") {
			t.Errorf("in %s Envoy would be raised alone: the plugin is for one version", update.Directory)
		}
	}
	for _, file := range []string{"/go.mod", "/e2e/go.mod", "/Dockerfile", "/.github/workflows/ci.yaml", "/e2e/suite/python/requirements.txt"} {
		if !looked[file] {
			t.Errorf("nothing looks at %s", file)
		}
	}
}

// Who reports a wrong answer is asked for what explain says, by the command as it is typed.
func TestIssueTemplatesAskForWhatExplainSays(t *testing.T) {
	forms, err := filepath.Glob(inRoot(".github", "ISSUE_TEMPLATE", "*.yml"))
	if err != nil || len(forms) < 3 {
		t.Fatalf("found %v, %v", forms, err)
	}
	for _, form := range forms {
		if filepath.Base(form) == "config.yml" {
			continue
		}
		t.Run(filepath.Base(form), func(t *testing.T) {
			var parsed struct {
				Name, Description string
				Labels            []string
				Body              []struct {
					Type, ID    string
					Attributes  map[string]any
					Validations struct{ Required bool }
				}
			}
			text := readFile(t, form)
			if err := yaml.UnmarshalStrict([]byte(text), &parsed); err != nil {
				t.Fatal(err)
			}
			if parsed.Name == "" || parsed.Description == "" || len(parsed.Body) == 0 {
				t.Error("a form needs a name, a description and a body")
			}
			if !strings.Contains(text, "healthgate explain --output json") {
				t.Error("it does not ask for healthgate explain --output json")
			}
		})
	}
}
