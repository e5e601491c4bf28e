package repo

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"

	// The types that the configurations name.
	_ "github.com/cncf/xds/go/xds/type/v3"
	_ "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

// configurations are the files that users copy.
func configurations(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"envoy/*.yaml", "envoy/examples/*.yaml", "envoy/examples/module/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(testbed.Root(), pattern))
		if err != nil || len(files) < 2 {
			t.Fatalf("found %v, %v", files, err)
		}
		// kustomize's own file, by which the manifests take the configuration from there.
		files = slices.DeleteFunc(files, func(file string) bool { return filepath.Base(file) == "kustomization.yaml" })
		all = append(all, files...)
	}
	return all
}

func TestConfigurationsAreValidAsWritten(t *testing.T) {
	t.Parallel()
	for _, file := range configurations(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(text); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
}

// The dynamic module's example is the Go plugin's, in the dynamic module's words.
func TestExamplesOfBothVariantsAreTheSame(t *testing.T) {
	t.Parallel()
	stock, err := testbed.Named("module")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(testbed.Root(), "envoy/examples/*.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			config, err := testbed.LoadConfig("envoy/examples/" + name)
			if err != nil {
				t.Fatal(err)
			}
			other, err := testbed.LoadConfig("envoy/examples/module/" + name)
			if err != nil {
				t.Fatal(err)
			}
			stock.Prepare(config)
			if got, want := string(other.JSON()), string(config.JSON()); got != want {
				t.Errorf("examples/module/%s is\n%s\nwant\n%s", name, got, want)
			}
			comments := func(path string) string {
				text, _, _ := strings.Cut(readFile(t, filepath.Join(testbed.Root(), path)), "\n\n")
				return text
			}
			if got, want := comments("envoy/examples/module/"+name), comments("envoy/examples/"+name); got != want {
				t.Errorf("examples/module/%s begins with\n%s\nwant\n%s", name, got, want)
			}
		})
	}
}

// The dynamic module's reference has a route and services for gRPC health checks, what leaves them out of the log, and a listener for liveness;
// all else of it is the Go plugin's.
func TestReferencesOfBothVariantsAreTheSame(t *testing.T) {
	t.Parallel()
	stock, err := testbed.Named("module")
	if err != nil {
		t.Fatal(err)
	}
	contribs, err := testbed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	stocks, err := testbed.LoadConfig("envoy/module.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, alive := range []struct {
		key  string
		want any
	}{{"drain_type", "MODIFY_ONLY"}, {"ignore_global_conn_limit", true}} {
		if got := stocks.Get("static_resources.listeners.1." + alive.key); got != alive.want {
			t.Errorf("the listener for liveness has the %s %v, want %v", alive.key, got, alive.want)
		}
	}
	const expression = testbed.HCM + ".access_log.0.filter.extension_filter.typed_config.expression"
	const checks = " && !(request.path.startsWith('/grpc.health.v1.Health/') && response.grpc_status == 0)"
	stocks.Set("static_resources.listeners", stocks.Get("static_resources.listeners").([]any)[:1])
	stocks.Set(testbed.Routes, slices.Delete(stocks.Get(testbed.Routes).([]any), 1, 2))
	stocks.Delete(testbed.Healthgate + ".typed_config.filter_config.value.grpc_services")
	stocks.Set(expression, strings.TrimSuffix(stocks.Get(expression).(string), checks))
	stock.Prepare(contribs)
	if got, want := string(stocks.JSON()), string(contribs.JSON()); got != want {
		t.Errorf("envoy/module.yaml is\n%s\nwant\n%s", got, want)
	}
}

// What docs/comparison.md shows of Envoy's own filter can be put into the reference configuration as it is.
func TestComparisonShowsAValidConfiguration(t *testing.T) {
	t.Parallel()
	_, rest, found := strings.Cut(readFile(t, filepath.Join(testbed.Root(), "docs", "comparison.md")), "```yaml\n")
	snippet, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatal("docs/comparison.md shows no configuration")
	}
	var filters []any
	if err := yaml.UnmarshalStrict([]byte(snippet), &filters); err != nil {
		t.Fatal(err)
	}
	config := referenceConfig(t)
	config.Set(testbed.Healthgate, filters[0])
	if err := validate(config.JSON()); err != nil {
		t.Error(err)
	}
}

// What the tests above rely on: it would see a slip at any depth.
func TestValidationSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(testbed.Root(), "envoy", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, slip := range []struct{ from, to string }{
		{"codec_type: AUTO", "codec_tipe: AUTO"},                 // an unknown field in an Any
		{"library_id: healthgate", "library: healthgate"},        // in contrib's type
		{"library_id: healthgate", `library_id: ""`},             // against the rules of contrib's type
		{"connect_timeout: 0.25s", "connect_timeout: -1s"},       // against the rules
		{"stat_prefix: ingress", `stat_prefix: ""`},              // against the rules, in an Any
		{"lb_policy: ROUND_ROBIN", "lb_policy: ROUND_AND_ROUND"}, // an unknown value
		{"http.router.v3.Router", "http.router.v2.Router"},       // an unknown type
		{"unhealthy_threshold: 1", "unhealthy_threshhold: 1"},
	} {
		wrong := strings.Replace(string(text), slip.from, slip.to, 1)
		if wrong == string(text) {
			t.Errorf("%q is not in the file", slip.from)
		} else if validate([]byte(wrong)) == nil {
			t.Errorf("%q in place of %q is found valid", slip.to, slip.from)
		}
	}
}

// validate reads a bootstrap by the API's types, with no unknown field, and checks it and each Any in it by the API's
// own rules.
func validate(text []byte) error {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	bootstrap := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(asJSON, bootstrap); err != nil {
		return err
	}
	if err := bootstrap.ValidateAll(); err != nil {
		return err
	}
	return validateAnys(bootstrap.ProtoReflect())
}

func validateAnys(message protoreflect.Message) (err error) {
	if packed, ok := message.Interface().(*anypb.Any); ok {
		if packed.GetTypeUrl() == "" {
			return nil
		}
		unpacked, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		if checked, ok := unpacked.(interface{ ValidateAll() error }); ok {
			if err := checked.ValidateAll(); err != nil {
				return err
			}
		}
		return validateAnys(proto.Message(unpacked).ProtoReflect())
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					err = validateAnys(v.Message())
					return err == nil
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				if err = validateAnys(value.List().Get(i).Message()); err != nil {
					break
				}
			}
		default:
			err = validateAnys(value.Message())
		}
		return err == nil
	})
	return err
}

// What a load balancer and a user rely on in the reference configuration.
func TestReferenceConfigurationIsWhatItSays(t *testing.T) {
	t.Parallel()
	config := referenceConfig(t)
	for path, want := range map[string]string{
		testbed.Listener + ".address.socket_address.port_value":                                               "8443",
		"admin.address.socket_address.address":                                                                "127.0.0.1",
		testbed.Listener + ".filter_chains.0.transport_socket.typed_config.common_tls_context.alpn_protocols": "[h2 http/1.1]",
		testbed.Healthgate + ".disabled":                                                                      "true",
		testbed.Routes + ".0.match.path":                                                                      fmt.Sprint(config.Get(testbed.PluginConfig + ".path")),
		testbed.Routes + ".0.direct_response.status":                                                          "503",
		testbed.Routes + ".0.typed_per_filter_config.healthgate.config":                                       "map[]",
		testbed.Routes + ".1.match.prefix":                                                                    "/router.Router/",
		testbed.Routes + ".1.route.cluster":                                                                   "service",
		testbed.HCM + ".request_headers_timeout":                                                              "10s",
		testbed.Cluster + ".type":                                                                             "STRICT_DNS",
		testbed.Cluster + ".lb_policy":                                                                        "ROUND_ROBIN",
		testbed.Cluster + ".connect_timeout":                                                                  "0.25s",
		testbed.Cluster + ".common_lb_config.healthy_panic_threshold.value":                                   "50",
		testbed.HealthCheck + ".timeout":                                                                      "1s",
		testbed.HealthCheck + ".interval":                                                                     "5s",
		testbed.HealthCheck + ".interval_jitter":                                                              "1s",
		testbed.HealthCheck + ".no_traffic_interval":                                                          "5s",
		testbed.HealthCheck + ".unhealthy_threshold":                                                          "1",
		testbed.HealthCheck + ".healthy_threshold":                                                            "3",
		testbed.HealthCheck + ".grpc_health_check.service_name":                                               "router.Router",
	} {
		if got := fmt.Sprint(config.Get(path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// Plugin and Envoy must match, wherever either is named.
func TestOneVersionOfEnvoy(t *testing.T) {
	t.Parallel()
	version := ""
	for _, place := range []struct{ file, pattern string }{
		{"go.mod", `(?m)^\tgithub.com/envoyproxy/envoy v(\S+)$`},
		{"Dockerfile", `(?m)^ARG ENVOY_VERSION=(\S+)$`},
		{"e2e/fetch-envoy.sh", `(?m)^version="\$\{ENVOY_VERSION:-(\S+)\}"$`},
		{"filter/golang/envoy.go", `envoyVersion = "(\S+)"`},
		{"README.md", `envoyproxy/envoy:contrib-v(\S+?)\x60`},
		{"README.md", `is for Envoy (\S+?):`},
		{"docs/getting-started.md", `contrib build of Envoy (\S+?)\n`},
		{"docs/getting-started.md", `envoyproxy/envoy:contrib-v(\S+)`},
		{"docs/upgrading.md", `envoyproxy/envoy@v(\S+)`},
		{"CHANGELOG.md", `For Envoy (\S+?)\.\n`},
	} {
		found := regexp.MustCompile(place.pattern).FindStringSubmatch(readFile(t, filepath.Join(testbed.Root(), place.file)))
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
