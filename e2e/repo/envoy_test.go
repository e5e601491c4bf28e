package repo

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"

	// The types that the configurations name.
	_ "github.com/cncf/xds/go/xds/type/v3"
	_ "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

// validate reads a bootstrap as Envoy does: strictly, and by the rules of its API, also within each Any.
func validate(text []byte) error {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	bootstrap := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(asJSON, bootstrap); err != nil {
		return err
	}
	return protorange.Range(bootstrap.ProtoReflect(), func(path protopath.Values) error {
		switch last := path.Index(-1); last.Step.Kind() {
		case protopath.RootStep, protopath.AnyExpandStep:
			if checked, ok := last.Value.Message().Interface().(interface{ ValidateAll() error }); ok {
				return checked.ValidateAll()
			}
		}
		return nil
	})
}

func TestConfigurationsAreValidAsWritten(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"envoy.yaml", "module.yaml", "lua.yaml"} {
		if err := validate([]byte(readFile(t, inRoot("envoy", file)))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	names, err := testbed.Examples()
	if err != nil {
		t.Fatal(err)
	}
	page := readFile(t, inRoot("envoy", "examples", "README.md"))
	for _, name := range names {
		if !strings.Contains(page, "("+name+".yaml)") {
			t.Errorf("the page of the examples does not have %s", name)
		}
		for variant := range testbed.References {
			bootstrap, err := testbed.ReadExample(name, variant)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(bootstrap.JSON()); err != nil {
				t.Errorf("%s, %s: %v", name, variant, err)
			}
		}
	}
}

// The tests above and below rely on it.
func TestValidationFindsMistakesAtAnyDepth(t *testing.T) {
	t.Parallel()
	text := readFile(t, inRoot("envoy", "envoy.yaml"))
	for _, mistake := range []struct{ from, to string }{
		{"connect_timeout: 0.25s", "connect_timeout: -1s"},
		{"lb_policy: ROUND_ROBIN", "lb_policy: ROUND_AND_ROUND"},
		{"unhealthy_threshold: 1", "unhealthy_threshhold: 1"},
		// Within an Any:
		{"codec_type: AUTO", "codec_tipe: AUTO"},
		{"library_id: healthgate", `library_id: ""`},
		{"stat_prefix: ingress", `stat_prefix: ""`},
		{"http.router.v3.Router", "http.router.v2.Router"},
	} {
		wrong := strings.Replace(text, mistake.from, mistake.to, 1)
		if wrong == text {
			t.Errorf("%q is not in the file", mistake.from)
		} else if validate([]byte(wrong)) == nil {
			t.Errorf("%q in place of %q is found valid", mistake.to, mistake.from)
		}
	}
}

// envoy/module.yaml is envoy/envoy.yaml for the dynamic module. In addition it answers gRPC health checks, leaves them out of the
// access log, and has a listener for liveness.
func TestReferencesOfBothVariantsAgree(t *testing.T) {
	t.Parallel()
	variant, err := testbed.Named("module")
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
	filter := regexp.MustCompile("(?s)```yaml\n( *- name: envoy.filters.http.health_check\n.*?)```")
	for _, page := range []string{"README.md", "docs/comparison.md"} {
		shown := filter.FindStringSubmatch(readFile(t, inRoot(page)))
		if shown == nil {
			t.Errorf("%s does not show the filter", page)
			continue
		}
		var filters []any
		if err := yaml.UnmarshalStrict([]byte(shown[1]), &filters); err != nil {
			t.Fatal(err)
		}
		config, err := testbed.ReadBootstrap("envoy/envoy.yaml")
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(filters[0])
		if err != nil {
			t.Fatal(err)
		}
		config.HCM().HttpFilters[0] = testbed.Parse[*hcmv3.HttpFilter](string(text))
		if err := validate(config.JSON()); err != nil {
			t.Errorf("%s: %v", page, err)
		}
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

// Tests that are listed by name in the Makefile, and on the page of failure modes, exist in the suite.
func TestListedTestsExist(t *testing.T) {
	t.Parallel()
	suite := ""
	files, err := filepath.Glob(inRoot("e2e", "suite", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		suite += string(text)
	}
	makefile := strings.ReplaceAll(readFile(t, inRoot("Makefile")), "\\\n", " ")
	var named []string
	for _, list := range regexp.MustCompile(`(?m)^(?:EVERYWHERE|FAULTS) *:= *(.*)$`).FindAllStringSubmatch(makefile, -1) {
		for _, name := range strings.Fields(list[1]) {
			named = append(named, "Test"+name)
		}
	}
	for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(readFile(t, inRoot("docs", "failure-modes.md")), -1) {
		named = append(named, name[1])
	}
	if len(named) < 50 {
		t.Fatalf("found %v", named)
	}
	for _, name := range named {
		if !regexp.MustCompile(`(?m)^func ` + name + `\(t \*testing\.T\)`).MatchString(suite) {
			t.Errorf("e2e/suite has no %s", name)
		}
	}
}
