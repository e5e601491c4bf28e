package envoystats

import "testing"

func TestDraining(t *testing.T) {
	type stats struct{ live, state uint64 }
	for _, test := range []struct {
		name  string
		steps []stats
		want  []bool
	}{
		{"serves, drains, serves", []stats{{1, 0}, {0, 0}, {0, 1}, {1, 1}, {1, 0}}, []bool{false, true, true, false, false}},
		{"a stats matcher leaves out both", []stats{{0, 0}, {0, 0}}, []bool{false, false}},
		{"started in drain mode", []stats{{0, 1}, {1, 1}, {0, 1}, {0, 0}}, []bool{true, false, true, true}},
		{"a stats matcher leaves out server.live", []stats{{0, 0}, {0, 1}, {0, 0}}, []bool{false, true, false}},
		{"other states", []stats{{0, 2}, {0, 3}}, []bool{false, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, l := newFakeStats(), Draining{}
			server := l.NewReader(h)
			for i, s := range test.steps {
				h.set(ServerLive, s.live)
				h.set(ServerState, s.state)
				if got := server.Draining(); got != test.want[i] {
					t.Errorf("step %d, %+v: got %v, want %v", i, s, got, test.want[i])
				}
			}
		})
	}
}

// One of two listeners has a stats matcher that leaves out server.live: its 0 must neither look like a drain nor hide one.
func TestDrainIsSeenThroughOtherGates(t *testing.T) {
	var l Draining
	visible, hidden := newFakeStats(), newFakeStats()
	hidden.set(ServerLive, 0)
	one, other := l.NewReader(visible), l.NewReader(hidden)
	expect := func(when string, want bool) {
		t.Helper()
		if got := other.Draining(); got != want {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	expect("no gate has read 1", false)
	one.Draining()
	expect("another reads 1", false)
	visible.set(ServerLive, 0)
	expect("another reads 0", true)
	visible.set(ServerLive, 1)
	expect("another reads 1 again", false)
	visible.set(ServerLive, 0)
	one.Draining()
	one.Close()
	expect("the other one is closed and last read 0", true)
	again := newFakeStats()
	third := l.NewReader(again)
	third.Draining()
	third.Close()
	expect("another closed one last read 1", false)
}

func TestDestroyedGateIsNotAsked(t *testing.T) {
	var l Draining
	destroyed, hidden := newFakeStats(), newFakeStats()
	l.NewReader(destroyed).Draining()
	destroyed.number(ServerLive).gone = true
	hidden.set(ServerLive, 0)
	if l.NewReader(hidden).Draining() {
		t.Error("draining, though 1 was read last")
	}
}
