package filter

import "testing"

func TestDraining(t *testing.T) {
	type stats struct{ live, state, concurrency, version uint64 }
	for _, test := range []struct {
		name  string
		steps []stats
		want  []bool
	}{
		{"serves, drains, serves", []stats{{1, 0, 2, 9}, {0, 0, 2, 9}, {1, 0, 2, 9}}, []bool{false, true, false}},
		{"only live is kept", []stats{{1, 0, 0, 0}, {0, 0, 0, 0}}, []bool{false, true}},
		{"nothing is kept", []stats{{0, 0, 0, 0}, {0, 0, 0, 0}}, []bool{false, false}},
		{"live alone is left out", []stats{{0, 0, 2, 0}, {0, 0, 0, 9}, {0, 2, 2, 0}}, []bool{false, false, false}},
		{"started in drain mode", []stats{{0, 0, 2, 9}, {1, 0, 2, 9}}, []bool{true, false}},
		{"started in drain mode, seen by the state alone", []stats{{0, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 0}}, []bool{false, true, true}},
		{"other states say nothing", []stats{{0, 2, 0, 0}, {0, 3, 0, 0}}, []bool{false, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, l := newFakeHost(), Liveness{}
			server := findServerStats(h)
			for i, s := range test.steps {
				h.set(serverLive, s.live)
				h.set(serverState, s.state)
				h.set(serverConcurrency, s.concurrency)
				h.set(serverVersion, s.version)
				if got := l.draining(server); got != test.want[i] {
					t.Errorf("step %d, %+v: got %v, want %v", i, s, got, test.want[i])
				}
			}
		})
	}
}
