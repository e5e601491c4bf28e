package adminsource

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

const (
	maxBackOff = 5 * time.Second // between two polls while they fail
	logEvery   = time.Minute     // while polls fail
)

// Pollers are the pollers of a process, one for each address. The zero value is ready.
type Pollers struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error) // nil for a net.Dialer
	mutex  sync.Mutex
	active map[endpoint]*poller
}

type endpoint struct{ network, address string }

// poller polls one address while a source uses it.
type poller struct {
	pollers  *Pollers
	endpoint endpoint
	latest   atomic.Pointer[snapshot]
	wake     chan struct{} // has an element if a poll is due at once
	stop     context.CancelFunc
	warn     func(string)
	interval atomic.Int64 // the shortest of the sources, in nanoseconds

	// Guarded by Pollers.mutex.
	sources map[*Source]time.Duration // the interval of each
	wanted  wanted                    // by the newest poll, which may have failed; nil before the first
}

// Source samples the clusters of one configuration from the last poll. It is a gate.Source, a gate.HostSource and a gate.DrainSource.
type Source struct {
	poller     *poller
	names      []string
	reports    bool // a report needs the hosts too
	staleAfter time.Duration
}

// Source returns the source of a configuration, whose address is polled until the source is closed. A cluster that no other source
// samples is stale until its first poll, which starts at once. warn gets a line at most once a minute while polls fail.
func (p *Pollers) Source(c *config.Config, warn func(line string)) *Source {
	s := &Source{reports: c.Details, staleAfter: c.StaleAfter}
	for _, cluster := range c.Clusters {
		s.names = append(s.names, cluster.Name)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.active == nil {
		p.active = make(map[endpoint]*poller)
	}
	at := endpoint{c.Admin.Network, c.Admin.Address}
	s.poller = p.active[at]
	if s.poller == nil {
		ctx, stop := context.WithCancel(context.Background())
		s.poller = &poller{
			pollers:  p,
			endpoint: at,
			wake:     make(chan struct{}, 1),
			stop:     stop,
			warn:     warn,
			sources:  make(map[*Source]time.Duration),
		}
		p.active[at] = s.poller
		s.poller.interval.Store(int64(c.Admin.Interval))
		go s.poller.run(ctx)
	}
	s.poller.sources[s] = c.Admin.Interval
	s.poller.updateInterval()
	if !s.poller.wanted.covers(s) {
		s.poller.pollNow()
	}
	return s
}

// Close ends the source. The last source of a poller also ends the poller. It may be called more than once.
func (s *Source) Close() {
	p := s.poller
	p.pollers.mutex.Lock()
	defer p.pollers.mutex.Unlock()
	delete(p.sources, s)
	if len(p.sources) > 0 {
		p.updateInterval()
		return
	}
	p.stop()
	if p.pollers.active[p.endpoint] == p {
		delete(p.pollers.active, p.endpoint)
	}
}

func (p *poller) updateInterval() {
	before, shortest := time.Duration(p.interval.Load()), time.Duration(0)
	for _, interval := range p.sources {
		if shortest == 0 || interval < shortest {
			shortest = interval
		}
	}
	p.interval.Store(int64(shortest))
	if shortest < before {
		p.pollNow()
	}
}

// pollNow makes the next poll due at once. A poll that is already under way does not count.
func (p *poller) pollNow() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// collectWanted returns the clusters for the next poll.
func (p *poller) collectWanted() wanted {
	p.pollers.mutex.Lock()
	defer p.pollers.mutex.Unlock()
	p.wanted = make(wanted)
	for s := range p.sources {
		for _, name := range s.names {
			p.wanted[name] = p.wanted[name] || s.reports
		}
	}
	return p.wanted
}

// covers reports whether a poll for w answers everything s needs. w is nil before the first poll.
func (w wanted) covers(s *Source) bool {
	for _, name := range s.names {
		if hosts, ok := w[name]; !ok || s.reports && !hosts {
			return false
		}
	}
	return w != nil
}

// Sample returns the host counts of the i-th cluster at the last poll that succeeded. The sample is stale if that poll is too old or did
// not request the cluster.
func (s *Source) Sample(now time.Time, i int) policy.Sample {
	latest := s.poller.latest.Load()
	if latest == nil {
		return policy.Sample{Stale: true}
	}
	c := latest.clusters[s.names[i]]
	_, polled := latest.wanted[s.names[i]]
	sample := policy.Sample{Stale: !polled || now.Sub(latest.at) > s.staleAfter, Unknown: polled && c == nil}
	if c != nil {
		sample.Counts = c.counts
	}
	return sample
}

// Draining reports whether Envoy failed its health checks at the last poll that succeeded, and whether there was one.
func (s *Source) Draining() (draining, known bool) {
	latest := s.poller.latest.Load()
	return latest != nil && latest.draining, latest != nil
}

// Hosts returns the hosts of the i-th cluster, at most maxHosts of them, for a configuration that reports them.
func (s *Source) Hosts(i int) []policy.Host {
	if latest := s.poller.latest.Load(); latest != nil && latest.clusters[s.names[i]] != nil {
		return latest.clusters[s.names[i]].hosts
	}
	return nil
}

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) {
	dial := p.pollers.dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	client := newClient(func(context.Context) (net.Conn, error) {
		// net/http continues to connect after the poll that needed the connection has ended.
		ctx, cancel := context.WithTimeout(ctx, maxPollTime)
		defer cancel()
		return dial(ctx, p.endpoint.network, p.endpoint.address)
	})
	defer client.CloseIdleConnections()
	timer := time.NewTimer(pause(time.Duration(p.interval.Load()), 0)) // the first source requests the first poll earlier
	defer timer.Stop()
	failures, loggedAt := 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		polled, err := poll(ctx, client, p.collectWanted())
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			p.latest.Store(polled)
			failures = 0
		default:
			failures++
			if time.Since(loggedAt) >= logEvery {
				loggedAt = time.Now()
				p.warn(fmt.Sprintf("healthgate: can't poll admin at %s: %v", p.endpoint.address, err))
			}
		}
		timer.Reset(pause(time.Duration(p.interval.Load()), failures))
	}
}

// pause returns how long to wait for the next poll: about the interval, longer after failures, with random jitter.
func pause(interval time.Duration, failures int) time.Duration {
	if failures > 0 {
		interval = max(interval, min(interval<<min(failures, 10), maxBackOff))
	}
	return interval*9/10 + rand.N(interval/5)
}
