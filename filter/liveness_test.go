package filter

import "testing"

func TestDraining(t *testing.T) {
	type stats struct{ live, state uint64 }
	for _, test := range []struct {
		name  string
		steps []stats
		want  []bool
	}{
		{"serves, drains, serves", []stats{{1, 0}, {0, 0}, {0, 1}, {1, 1}, {1, 0}}, []bool{false, true, true, false, false}},
		{"neither is kept", []stats{{0, 0}, {0, 0}}, []bool{false, false}},
		{"started in drain mode", []stats{{0, 1}, {1, 1}, {0, 1}, {0, 0}}, []bool{true, false, true, true}},
		{"live is left out", []stats{{0, 0}, {0, 1}, {0, 0}}, []bool{false, true, false}},
		{"other states say nothing", []stats{{0, 2}, {0, 3}}, []bool{false, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, l := newFakeHost(), Liveness{}
			server := findServerStats(h)
			for i, s := range test.steps {
				h.set(serverLive, s.live)
				h.set(serverState, s.state)
				if got := l.draining(server); got != test.want[i] {
					t.Errorf("step %d, %+v: got %v, want %v", i, s, got, test.want[i])
				}
			}
		})
	}
}
