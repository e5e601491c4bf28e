package walk

import (
	"reflect"
	"testing"
)

// The model itself, where it could be wrong without Envoy telling: Envoy tells of its counts alone.
func TestModelCountsAsTheDocumentationSays(t *testing.T) {
	w := newWorld()
	w.apply(Event{Kind: "host", Cluster: 0, Host: 1, State: "HEALTHY"})
	w.apply(Event{Kind: "host", Cluster: 0, Host: 2, State: "DEGRADED"})
	w.apply(Event{Kind: "host", Cluster: 0, Host: 3, State: "TIMEOUT"})
	if got := w.Clusters[0].Counts(); got != (Counts{1, 1, 0, 3}) {
		t.Fatalf("got %+v", got)
	}
	for _, test := range []struct {
		need Requirement
		want Answer
	}{
		{Requirement{MinHealthy: 2, Degraded: "count"}, Answer{200, "healthgate_ok", true}},
		{Requirement{MinHealthy: 1, Degraded: "count"}, Answer{200, "healthgate_ok", false}},
		{Requirement{MinHealthy: 2, Degraded: "ignore"}, Answer{503, "healthgate_cluster_unhealthy", false}},
		{Requirement{MinPercent: 67, Degraded: "count"}, Answer{503, "healthgate_cluster_unhealthy", false}},
		{Requirement{MinPercent: 66, Degraded: "count"}, Answer{200, "healthgate_ok", true}},
		{Requirement{Cluster: 1, MinPercent: 1, Degraded: "count"}, Answer{503, "healthgate_cluster_empty", false}},
		{Requirement{Cluster: 1, Degraded: "count"}, Answer{200, "healthgate_ok", false}},
	} {
		if got := w.judge(Policy{Clusters: []Requirement{test.need}, Drain: "fail"}, true); got != test.want {
			t.Errorf("%+v: got %+v, want %+v", test.need, got, test.want)
		}
	}
	// Two hosts, of which one was not checked yet.
	w.apply(Event{Kind: "host", Cluster: fresh, Host: 1, State: "UNKNOWN"})
	w.apply(Event{Kind: "host", Cluster: fresh, Host: 2, State: "UNKNOWN"})
	w.apply(Event{Kind: "server", Cluster: fresh, Host: 2, State: "up"})
	for excluded, status := range map[string]int{"count": 503, "ignore": 200} {
		if got := w.judge(Policy{Clusters: []Requirement{{Cluster: fresh, MinPercent: 100, Excluded: excluded}}}, true); got.Status != status {
			t.Errorf("%s: got %+v, want %d", excluded, got, status)
		}
	}
	w.Wider = []Override{{Drain: "fail", Require: "any"}, {Clusters: []Requirement{{Cluster: 1, MinHealthy: 1}}}}
	w.Routes = []Override{{Require: 1}, {Drain: "ignore"}}
	narrow, filter := w.Wider[1].Clusters, everything().Clusters
	for levels, want := range map[bool][]Policy{
		true:  {{narrow, 1, "fail"}, {narrow, "any", "ignore"}, {narrow, "any", "fail"}},
		false: {{filter, 1, "ignore"}, {filter, nil, "ignore"}, {narrow, nil, "ignore"}},
	} {
		if got := w.routed(levels); !reflect.DeepEqual(got, want) {
			t.Errorf("all levels %v: got %+v, want %+v", levels, got, want)
		}
	}
	w.apply(Event{Kind: "cluster goes", Cluster: 0})
	w.apply(Event{Kind: "host", Cluster: 0, Host: 4, State: "HEALTHY"})
	if got := w.Clusters[0].Counts(); got != (Counts{1, 1, 0, 3}) {
		t.Errorf("a cluster that is gone counts %+v, want what its gauges were last", got)
	}
	for told, want := range map[bool]Answer{false: {200, "healthgate_ok", false}, true: {503, "healthgate_cluster_unknown", false}} {
		if got := w.judge(Policy{Clusters: []Requirement{{Degraded: "count"}}}, told); got != want {
			t.Errorf("a cluster that is gone, told %v: got %+v, want %+v", told, got, want)
		}
	}
}
