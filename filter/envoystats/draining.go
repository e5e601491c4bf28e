package envoystats

import (
	"sync"
	"sync/atomic"
)

// Draining records, for all gates of one process, whether Envoy is draining. The zero value is ready.
//
// Envoy's server.live is 0 while Envoy drains, and also always 0 for a listener whose stats matcher rejects it. So 0 means
// draining only if this gate has read 1 before, or Envoy is known to have the gauge, or server.state says so, as in an Envoy that was
// started in drain mode. A gate that has seen none of these, such as one that is created during a drain, relies on the other gates.
type Draining struct {
	mutex sync.Mutex
	seen  map[*DrainReader]struct{} // open readers that have read 1
	known atomic.Bool               // a reader has read 1
	live  atomic.Bool               // the last value of such a reader
}

// DrainReader reads for one gate whether Envoy is draining. Its methods are safe for concurrent use.
type DrainReader struct {
	process     *Draining
	live, state Value
	liveFound   Found       // nil if Stats can't tell whether Envoy has the gauge
	seen        atomic.Bool // live was 1, so no stats matcher rejects it
}

// NewReader finds the server's stats.
func (d *Draining) NewReader(stats Stats) *DrainReader {
	r := &DrainReader{process: d, live: stats.Gauge(ServerLive), state: stats.Gauge(ServerState)}
	r.liveFound, _ = r.live.(Found)
	return r
}

// Draining reports whether Envoy is draining, according to this gate's stats and, if those do not show it, to other gates.
func (r *DrainReader) Draining() bool {
	draining, known := r.OwnDraining()
	return draining || !known && (r.state.Get() == stateDraining || r.process.byOthers())
}

// OwnDraining reports whether this gate's own server.live shows that Envoy is draining, and whether its value can be trusted.
func (r *DrainReader) OwnDraining() (draining, known bool) {
	live := r.live.Get() > 0
	switch {
	case r.seen.Load():
	case live:
		r.process.addReader(r)
	default:
		found := r.liveFound != nil && r.liveFound.Found()
		return found, found
	}
	if r.process.live.Load() != live { // a store per probe would move the cache line between workers
		r.process.live.Store(live)
	}
	return !live, true
}

// SeenLive reports whether server.live is or was 1.
func (r *DrainReader) SeenLive() bool { return r.live.Get() > 0 || r.seen.Load() }

// Close makes other readers stop asking this one.
func (r *DrainReader) Close() {
	r.process.mutex.Lock()
	defer r.process.mutex.Unlock()
	delete(r.process.seen, r)
}

func (d *Draining) addReader(r *DrainReader) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	r.seen.Store(true)
	if d.seen == nil {
		d.seen = make(map[*DrainReader]struct{})
	}
	d.seen[r] = struct{}{}
	d.known.Store(true)
	d.live.Store(true)
}

// byOthers reports whether Envoy is draining according to the other readers: to the current value of an open one, or to the last value if
// all are closed.
func (d *Draining) byOthers() bool {
	if !d.known.Load() {
		return false
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for other := range d.seen {
		if live, ok := tryGet(other.live); ok {
			d.live.Store(live > 0)
			break
		}
	}
	return !d.live.Load()
}

// tryGet reads another gate's stat. If Envoy has destroyed that gate's configuration, Get panics.
func tryGet(v Value) (value uint64, ok bool) {
	defer func() { ok = recover() == nil }()
	return v.Get(), true
}
