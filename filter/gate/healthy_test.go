package gate

import "testing"

// Gates that share a stat prefix share the gauge: the newest that has judged writes it, and hands it back when it goes.
func TestNewestGateOfAPrefixWritesTheGauge(t *testing.T) {
	h := newFakeHost()
	var process Process
	gate := func(cluster, prefix string) *Gate {
		return newGateIn(decode(t, `{"clusters": ["`+cluster+`"], "stat_prefix": "`+prefix+`"}`), h, &process)
	}
	up := func(cluster string, healthy uint64) { h.setCluster(cluster, of(healthy, 0, 1)) }
	gauge := func(want uint64, when string) {
		t.Helper()
		if got := named(h.own, "healthgate.p.healthy").Get(); got != want {
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
	gauge(0, "the newer has not judged yet")
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
	gauge(0, "the newer has gone")
	up("b", 0)
	second.Answer()
	up("a", 1)
	first.Answer()
	up("b", 1)
	second.Answer()
	up("b", 0)
	second.Answer()
	gauge(1, "one that has gone still answers")
	older := New(decode(t, `{"clusters": ["c"], "stat_prefix": "p"}`), 1, newSource(decode(t, `{"clusters": ["c"]}`), h), h, &process)
	newest := New(decode(t, `{"clusters": ["a"], "stat_prefix": "p"}`), 2, newSource(decode(t, `{"clusters": ["a"]}`), h), h, &process)
	newest.Answer()
	gauge(1, "the newest passes")
	between := New(decode(t, `{"clusters": ["c"], "stat_prefix": "p"}`), 1, newSource(decode(t, `{"clusters": ["c"]}`), h), h, &process)
	older.Answer()
	between.Answer()
	gauge(1, "gates of older configurations were made or used later")
	for _, g := range []*Gate{first, other, older, between, newest} {
		g.Close()
	}
	if n := len(process.gauges.byPrefix); n != 0 {
		t.Errorf("%d prefixes are kept, and no gate", n)
	}
}
