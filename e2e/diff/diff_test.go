package main

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestShrinkFindsTheShortest(t *testing.T) {
	var events []Event
	for i := range 200 {
		events = append(events, Event{Kind: "host", Host: i})
	}
	for name, needed := range map[string][]int{
		"the last":            {199},
		"two that are far":    {3, 199},
		"some in the middle":  {70, 71, 130},
		"all of the last ten": {190, 191, 192, 193, 194, 195, 196, 197, 198, 199},
	} {
		tries := 0
		got := shrink(events, func(some []Event) bool {
			tries++
			for _, host := range needed {
				if !slices.Contains(some, Event{Kind: "host", Host: host}) {
					return false
				}
			}
			return true
		}, time.Minute)
		if len(got) != len(needed) || tries > 200 {
			t.Errorf("%s: %d events are left after %d tries, want %d", name, len(got), tries, len(needed))
		}
	}
}

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
		if got := w.judge(Policy{Clusters: []Requirement{test.need}, Drain: "fail"}); got != test.want {
			t.Errorf("%+v: got %+v, want %+v", test.need, got, test.want)
		}
	}
	// Two hosts, of which one was not checked yet.
	w.apply(Event{Kind: "host", Cluster: fresh, Host: 1, State: "UNKNOWN"})
	w.apply(Event{Kind: "host", Cluster: fresh, Host: 2, State: "UNKNOWN"})
	w.apply(Event{Kind: "server", Cluster: fresh, Host: 2, State: "up"})
	for excluded, status := range map[string]int{"count": 503, "ignore": 200} {
		if got := w.judge(Policy{Clusters: []Requirement{{Cluster: fresh, MinPercent: 100, Excluded: excluded}}}); got.Status != status {
			t.Errorf("%s: got %+v, want %d", excluded, got, status)
		}
	}
	w.Wider = []Override{{Drain: "fail", Require: "any"}, {Clusters: []Requirement{{Cluster: 1, MinHealthy: 1}}}}
	w.Routes = []Override{{Require: 1}, {Drain: "ignore"}}
	for i, want := range []Policy{{w.Wider[1].Clusters, 1, "fail"}, {w.Wider[1].Clusters, "any", "ignore"}, {w.Wider[1].Clusters, "any", "fail"}} {
		if got := w.routed()[i]; !reflect.DeepEqual(got, want) {
			t.Errorf("route %d: got %+v, want %+v", i, got, want)
		}
	}
	w.apply(Event{Kind: "cluster goes", Cluster: 0})
	w.apply(Event{Kind: "host", Cluster: 0, Host: 4, State: "HEALTHY"})
	if got := w.Clusters[0].Counts(); got != (Counts{1, 1, 0, 3}) {
		t.Errorf("a cluster that is gone counts %+v, want what its gauges were last", got)
	}
}

func TestAMinuteOfRandomEventsShowsNoDisagreement(t *testing.T) {
	t.Parallel()
	result, err := Search(t.Context(), uint64(time.Now().UnixNano()), time.Minute, func(line string) { t.Log(line) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: %d events, compared %v", result.Seed, result.Events, result.Compared)
	if result.Disagreement != nil {
		t.Errorf("seed %d: %s; shortest list of events: %+v", result.Seed, result.Disagreement, result.Shortest)
	}
	if result.Compared["the model"] < 500 || result.Compared["Envoy's own filter"] < 20 || result.Compared["the model, by the second listener"] < 20 {
		t.Errorf("only %v were compared, too few to show anything", result.Compared)
	}
}

// Were Healthgate wrong, it would be found, and told in few words.
func TestADisagreementIsFoundAndShortened(t *testing.T) {
	t.Parallel()
	// Turned round: the model is wrong about hosts that serve only because they are degraded.
	wrong := func(a Answer) Answer {
		a.Degraded = false
		return a
	}
	result, err := Search(t.Context(), 1, time.Minute, func(line string) { t.Log(line) }, wrong)
	if err != nil {
		t.Fatal(err)
	}
	if result.Disagreement == nil {
		t.Fatalf("not found in %d events", result.Events)
	}
	t.Logf("after %d events: %s; shortest: %+v", result.Events, result.Disagreement, result.Shortest)
	if len(result.Shortest) > 3 || !shows(t.Context(), result.Shortest, options{wrong: wrong, drained: result.Drained}) ||
		shows(t.Context(), result.Shortest, options{drained: result.Drained}) {
		t.Errorf("the shortest list is %+v", result.Shortest)
	}
}

// Everything at once, for as long as a test may take; `make soak` goes on for longer.
func TestSoakShowsNoDisagreementAndNoGrowth(t *testing.T) {
	t.Parallel()
	if err := soak(t.Context(), uint64(time.Now().UnixNano()), 30*time.Second, 5*time.Second, func(line string) { t.Log(line) }); err != nil {
		t.Error(err)
	}
}
