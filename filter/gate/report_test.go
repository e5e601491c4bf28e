package gate

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"healthgate/filter/policy"
)

func TestReportFollowsHealthJSON(t *testing.T) {
	envoy := newFakeEnvoy()
	g := newGate(t, envoy, `{"clusters": [{"name": "a", "min_healthy": 2, "degraded": "ignore"}, "b"],
		"require": "any", "response": {"details": true}}`)
	at := func(seconds int) string { return inUTC(epoch.Add(time.Duration(seconds) * time.Second)) }
	for i, step := range []struct {
		seconds       int
		a, b          policy.Counts
		status        int
		overall, a1   string
		b1, b1Output  string
		since, aSince int
	}{
		{0, of(2, 0, 3), of(1, 0, 1), 200, "pass", "pass", "pass", "ok", 0, 0},
		{1, of(1, 1, 3), of(1, 0, 1), 200, "pass", "fail", "pass", "ok", 0, 1},
		{2, of(1, 1, 3), of(0, 1, 1), 200, "warn", "fail", "warn", "ok", 0, 1},
		{3, of(1, 1, 3), of(0, 0, 0), 503, "fail", "fail", "fail", "cluster_empty", 3, 1},
	} {
		envoy.now = epoch.Add(time.Duration(step.seconds) * time.Second)
		envoy.setCluster("a", step.a)
		envoy.setCluster("b", step.b)
		reply := g.Report()
		if reply.Status != step.status || reply.Headers["content-type"][0] != "application/health+json" ||
			reply.Headers["cache-control"][0] != "no-store" {
			t.Errorf("step %d: got %d with %v", i, reply.Status, reply.Headers)
		}
		var got report
		if err := json.Unmarshal([]byte(reply.Body), &got); err != nil {
			t.Fatal(err)
		}
		a, b := got.Checks["a:membership"][0], got.Checks["b:membership"][0]
		if got.Status != step.overall || a.Status != step.a1 || b.Status != step.b1 {
			t.Errorf("step %d: got %s, %s, %s, want %s, %s, %s", i, got.Status, a.Status, b.Status, step.overall, step.a1, step.b1)
		}
		if got.Since != at(step.since) || a.Since != at(step.aSince) {
			t.Errorf("step %d: since %s and %s, want %s and %s", i, got.Since, a.Since, at(step.since), at(step.aSince))
		}
		if want := (required{MinHealthy: 2, Degraded: "ignore", Excluded: "count"}); a.Required != want {
			t.Errorf("step %d: required %+v, want %+v", i, a.Required, want)
		}
		if a.Healthy != step.a.Healthy || a.Degraded != step.a.Degraded || a.Total != step.a.Total || a.ObservedValue != step.a.Healthy {
			t.Errorf("step %d: got counts %+v, want %+v", i, a, step.a)
		}
		if got.Output != reply.Details || b.Output != "healthgate_"+step.b1Output {
			t.Errorf("step %d: outputs %s and %s, want %s and healthgate_%s", i, got.Output, b.Output, reply.Details, step.b1Output)
		}
	}
	// The plain replies did not change.
	if r := g.Answer(); r.Body != "unavailable\n" || r.Headers["content-type"][0] != "text/plain" {
		t.Errorf("got %q, %v", r.Body, r.Headers)
	}
}

type hostsOfA struct{ Source }

func (hostsOfA) Hosts(int) []policy.Host {
	return []policy.Host{{Address: "10.0.0.1:80", Status: "healthy"}}
}

func TestReportNamesHostsIfTheSourceKnowsThem(t *testing.T) {
	envoy := newFakeEnvoy()
	c := decode(t, `{"clusters": ["a"], "response": {"details": true}}`)
	g := New(c, 0, hostsOfA{newSource(c, envoy)}, envoy, &Process{})
	var got report
	if err := json.Unmarshal([]byte(g.Report().Body), &got); err != nil {
		t.Fatal(err)
	}
	if want := []policy.Host{{Address: "10.0.0.1:80", Status: "healthy"}}; !reflect.DeepEqual(got.Checks["a:membership"][0].Hosts, want) {
		t.Errorf("got %+v, want %+v", got.Checks, want)
	}
}
