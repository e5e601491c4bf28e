package testbed

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

func reference(t *testing.T) *Bootstrap {
	t.Helper()
	b, err := ReadBootstrap("envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
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

// The suite runs with this form only if its Envoy has the golang extension.
func TestGolangFilterLoadsThePlugin(t *testing.T) {
	if path := reference(t).For(goPlugin{}).GolangFilter().GetLibraryPath(); path != (goPlugin{}).Object() {
		t.Errorf("the golang filter loads %s", path)
	}
}
