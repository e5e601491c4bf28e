package repo

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"healthgate/e2e/testbed"
)

// envoy/module.yaml is envoy/envoy.yaml for the dynamic module. In addition it answers gRPC health checks, leaves them out of the
// access log, and has a listener for liveness.
func TestReferencesOfBothVariantsAgree(t *testing.T) {
	t.Parallel()
	variant, err := testbed.VariantNamed("module")
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := testbed.ReadBootstrap("envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	module, err := testbed.ReadBootstrap("envoy/module.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const checks = " && !(request.path.startsWith('/grpc.health.v1.Health/') && response.grpc_status == 0)"
	module.StaticResources.Listeners = module.StaticResources.Listeners[:1]
	module.VirtualHost().Routes = slices.Delete(module.VirtualHost().Routes, 1, 2)
	delete(module.Gate().Fields, "grpc_services")
	logged := module.Unpack(module.HCM().AccessLog[0].GetFilter().GetExtensionFilter().GetTypedConfig()).(*celv3.ExpressionFilter)
	logged.Expression = strings.TrimSuffix(logged.Expression, checks)
	if got, want := string(module.JSON()), string(plugin.For(variant).JSON()); got != want {
		t.Errorf("envoy/module.yaml is\n%s\nwant\n%s", got, want)
	}
}

// The pages show Envoy's own health_check filter as users can put it into their http_filters.
func TestPagesShowEnvoysOwnFilterAsItIsValid(t *testing.T) {
	t.Parallel()
	shown := regexp.MustCompile("(?s)```yaml\n( *- name: envoy.filters.http.health_check\n.*?)```")
	for _, page := range []string{"README.md", "docs/comparison.md"} {
		text := shown.FindStringSubmatch(readFile(t, inRoot(page)))
		if text == nil {
			t.Fatalf("%s does not show the filter", page)
		}
		testbed.Parse[*hcmv3.HttpConnectionManager]("http_filters:\n" + text[1]) // panics if it is invalid
	}
}

// The Go plugin works in one version of Envoy only.
func TestOneVersionOfEnvoyEverywhere(t *testing.T) {
	t.Parallel()
	version := ""
	for _, place := range []struct{ file, pattern string }{
		{"go.mod", `(?m)^\tgithub.com/envoyproxy/envoy v(\S+)$`},
		{"Dockerfile", `(?m)^ARG ENVOY_VERSION=(\S+)$`},
		{"e2e/fetch-envoy.sh", `(?m)^version="\$\{ENVOY_VERSION:-(\S+)\}"$`},
		{"filter/golang/envoy.go", `envoyVersion = "(\S+)"`},
		{"README.md", `envoyproxy/envoy:contrib-v(\S+?)\x60`},
		{"docs/getting-started.md", `envoyproxy/envoy:contrib-v(\S+)`},
		{"docs/upgrading.md", `envoyproxy/envoy@v(\S+)`},
		{"docs/variants.md", `contrib build of Envoy \| (\S+) only`},
	} {
		found := regexp.MustCompile(place.pattern).FindStringSubmatch(readFile(t, inRoot(place.file)))
		switch {
		case found == nil:
			t.Errorf("%s names no version of Envoy", place.file)
		case version == "":
			version = found[1]
		case found[1] != version:
			t.Errorf("%s is for Envoy %s, go.mod for %s", place.file, found[1], version)
		}
	}
}

// Tests that are listed by name in the Makefile, and on the pages of failure modes and of lint, exist in the suite.
func TestListedTestsExist(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(inRoot("e2e", "suite", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	suite := ""
	for _, file := range files {
		suite += readFile(t, file)
	}
	listing := readFile(t, inRoot("docs", "failure-modes.md")) + readFile(t, inRoot("docs", "lint.md"))
	named := regexp.MustCompile("`Test\\w+`").FindAllString(listing, -1)
	makefile := strings.ReplaceAll(readFile(t, inRoot("Makefile")), "\\\n", " ")
	for _, list := range regexp.MustCompile(`(?m)^(?:EVERYWHERE|FAULTS) *:= *(.*)$`).FindAllStringSubmatch(makefile, -1) {
		for name := range strings.FieldsSeq(list[1]) {
			named = append(named, "Test"+name)
		}
	}
	if len(named) < 50 {
		t.Fatalf("found %v", named)
	}
	for _, name := range named {
		if !regexp.MustCompile(`(?m)^func ` + strings.Trim(name, "`") + `\(t \*testing\.T\)`).MatchString(suite) {
			t.Errorf("e2e/suite has no %s", name)
		}
	}
}
