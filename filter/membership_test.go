package filter

import "testing"

// The gauges that are wanted here were read off a real Envoy; e2e's tests read them there.
func TestGaugesAreNamedAsEnvoyNamesThem(t *testing.T) {
	for name, want := range map[string]string{
		"service":                  "cluster.service.membership_healthy",
		"a.b":                      "cluster.a.b.membership_healthy",
		"outbound|80||a:v1":        "cluster.outbound|80||a_v1.membership_healthy",
		"http://service.local:80":  "cluster.http_service.local_80.membership_healthy",
		"a:/b":                     "cluster.a_b.membership_healthy",
		"a::b":                     "cluster.a__b.membership_healthy",
		"a\x00b":                   "cluster.a_b.membership_healthy",
		".a":                       "cluster..a.membership_healthy",
		"a.":                       "cluster.a.membership_healthy",
		"a..":                      "cluster.a.membership_healthy",
		"a.:":                      "cluster.a._.membership_healthy",
		"xds:///eds.authority/a:b": "cluster.xds_/eds.authority/a_b.membership_healthy",
	} {
		var names []string
		DefineGauges(name, func(stat string) Gauge {
			names = append(names, stat)
			return nil
		})
		if names[0] != want {
			t.Errorf("%q: got %s, want %s", name, names[0], want)
		}
	}
}

func TestDrainingIsNoticedOnlyWhereLiveWasSeen(t *testing.T) {
	var l Liveness
	for i, step := range []struct {
		live uint64
		want bool
	}{
		{0, false}, // the gauge is not kept, for all that is known
		{1, false},
		{0, true},
		{1, false},
		{0, true},
	} {
		if got := l.Draining(step.live); got != step.want {
			t.Errorf("step %d, live %d: got %v, want %v", i, step.live, got, step.want)
		}
	}
}
