package testbed

import (
	"path/filepath"
	"strings"
	"testing"

	golangv3 "github.com/envoyproxy/go-control-plane/contrib/envoy/extensions/filters/http/golang/v3alpha"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func reference(t *testing.T) *Bootstrap {
	t.Helper()
	b, err := ReadBootstrap("envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryConfigurationOfTheCheckoutIsRead(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(Root(), "envoy", "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "kustomization.yaml") {
			continue
		}
		if _, err := ReadBootstrap("envoy/" + filepath.Base(file)); err != nil {
			t.Error(err)
		}
	}
}

func TestChangesInsideAnysAreInTheCopyAndInTheJSON(t *testing.T) {
	b := reference(t)
	b.HCM().ServerName = "changed"
	b.SetGateKey("clusters", []any{"other"})
	b.Patch(b.HCM(), `{stream_idle_timeout: 45s}`)
	b.SetGateKey("path", "/healthz")
	c := b.Clone()
	if c.HCM().ServerName != "changed" || c.HCM().StreamIdleTimeout.GetSeconds() != 45 ||
		c.Gate().Fields["path"].GetStringValue() != "/healthz" {
		t.Errorf("the copy has %v", c.Bootstrap)
	}
	for _, want := range []string{`"changed"`, `"45s"`, `"/healthz"`, `"other"`} {
		if !strings.Contains(string(c.JSON()), want) {
			t.Errorf("%s is not in the JSON", want)
		}
	}
	c.HCM().ServerName = "another"
	if b.HCM().ServerName != "changed" {
		t.Error("a change of the copy is also in the original")
	}
}

func TestPatchMergesMessagesAndReplacesListsAndScalars(t *testing.T) {
	check := Parse[*corev3.HealthCheck](`{interval: 5s, timeout: 1s}`)
	cluster := Parse[*clusterv3.Cluster](`{name: a, connect_timeout: 1.5s, common_lb_config: {close_connections_on_host_set_change: true}}`)
	cluster.HealthChecks = []*corev3.HealthCheck{check, check}
	Patch(cluster,
		`{connect_timeout: 2s, common_lb_config: {ignore_new_hosts_until_first_hc: true}, health_checks: [{timeout: 3s}], name: null}`)
	want := Parse[*clusterv3.Cluster](`{connect_timeout: 2s, health_checks: [{timeout: 3s}],
		common_lb_config: {close_connections_on_host_set_change: true, ignore_new_hosts_until_first_hc: true}}`)
	if !proto.Equal(cluster, want) {
		t.Errorf("got %v, want %v", cluster, want)
	}
	route := Parse[*routev3.Route](`{match: {path: /}, direct_response: {status: 503}}`)
	Patch(route, `{route: {cluster: a}}`)
	if route.GetRoute().GetCluster() != "a" || route.GetDirectResponse() != nil {
		t.Errorf("one action did not replace the other: %v", route)
	}
}

func TestEachFormHasTheSameGate(t *testing.T) {
	b := reference(t)
	b.SetGate(`{clusters: [service], path: /healthz}`)
	PrependRoute(b.VirtualHost(), Parse[*routev3.Route](`{match: {path: /other}, direct_response: {status: 503}}`))
	b.VirtualHost().Routes[0].TypedPerFilterConfig = map[string]*anypb.Any{"healthgate": GateOverride(`{path: /other}`)}

	native, module := b.For(goPlugin{}), b.For(dynamicModule{})
	if !proto.Equal(native.Gate(), b.Gate()) || !proto.Equal(module.Gate(), b.Gate()) {
		t.Errorf("got %v and %v, want %v", native.Gate(), module.Gate(), b.Gate())
	}
	if path := native.Unpack(native.GateFilter().GetTypedConfig()).(*golangv3.Config).LibraryPath; path != (goPlugin{}).Object() {
		t.Errorf("the golang filter loads %s", path)
	}
	if n := len(module.BootstrapExtensions); n != 1 || len(module.For(dynamicModule{}).BootstrapExtensions) != 1 {
		t.Errorf("%d bootstrap extensions", n)
	}
	override := Parse[*routev3.FilterConfig]("{}")
	if err := module.VirtualHost().Routes[0].TypedPerFilterConfig["healthgate"].UnmarshalTo(override); err != nil {
		t.Fatal(err)
	}
	if _, ok := module.Unpack(override.Config).(*modulev3.DynamicModuleFilterPerRoute); !ok {
		t.Errorf("the override is %v", override)
	}
	if text := string(b.For(goPlugin{contribHost: true}).JSON()); strings.Contains(text, "golang.v3alpha") ||
		strings.Count(text, `"levels"`) != 1 {
		t.Error("the contrib host's form has golang configurations, or lacks the override")
	}
}
