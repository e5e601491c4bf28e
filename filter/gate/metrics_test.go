package gate

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestNewestGateOfAPrefixWritesHealthy(t *testing.T) {
	envoy := newFakeEnvoy()
	var process Process
	gate := func(cluster, prefix string) *Gate {
		return newGateIn(decode(t, `{"clusters": ["`+cluster+`"], "stat_prefix": "`+prefix+`"}`), envoy, &process)
	}
	up := func(cluster string, healthy uint64) { envoy.setCluster(cluster, of(healthy, 0, 1)) }
	gauge := func(want uint64, when string) {
		t.Helper()
		if got := envoy.stat("healthgate.p.healthy").Get(); got != want {
			t.Errorf("%s: got %d, want %d", when, got, want)
		}
	}
	first, other := gate("a", "p"), gate("c", "other")
	up("a", 1)
	first.Answer()
	gauge(1, "the only one passes")
	second := gate("b", "p")
	up("a", 0)
	first.Answer()
	gauge(0, "the newer one was not evaluated yet")
	up("b", 1)
	second.Answer()
	gauge(1, "the newer passes")
	up("a", 1)
	first.Answer()
	up("a", 0)
	first.Answer()
	other.Answer()
	gauge(1, "the older fails, and one of another prefix")
	second.Close()
	gauge(0, "the newer one is closed")
	up("b", 0)
	second.Answer()
	up("a", 1)
	first.Answer()
	up("b", 1)
	second.Answer()
	up("b", 0)
	second.Answer()
	gauge(1, "a closed one still answers")
	newSerial := func(cluster string, serial uint64) *Gate {
		c := decode(t, `{"clusters": ["`+cluster+`"], "stat_prefix": "p"}`)
		return New(c, serial, newSource(c, envoy), envoy, &process)
	}
	older, newest := newSerial("c", 1), newSerial("a", 2)
	newest.Answer()
	gauge(1, "the newest passes")
	between := newSerial("c", 1)
	older.Answer()
	between.Answer()
	gauge(1, "gates of older configurations were made or used later")
	passing, unused := newSerial("a", 2), newSerial("c", 3)
	passing.Answer()
	newest.Close()
	gauge(1, "the newest that was evaluated is closed")
	for _, g := range []*Gate{first, other, older, between, passing, unused} {
		g.Close()
	}
	expectNoneOpen(t, &process)
}

func TestMetricNamesAreWhatAGateDefines(t *testing.T) {
	envoy := newFakeEnvoy()
	newGate(t, envoy, `{"clusters": ["a"], "stat_prefix": "edge"}`)
	counters, gauges := MetricNames("edge")
	want := slices.Sorted(slices.Values(append(counters, gauges...)))
	got := slices.DeleteFunc(slices.Sorted(maps.Keys(envoy.stats)), func(name string) bool { return !strings.HasPrefix(name, "healthgate.") })
	if !slices.Equal(got, want) {
		t.Errorf("a gate defines %q, want %q", got, want)
	}
}
