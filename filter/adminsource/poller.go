package adminsource

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
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

	// Guarded by Pollers.mutex. The last two are of the newest poll, which may have failed.
	sources  map[*Source]struct{}
	wanted   wanted // nil before the first poll
	interval time.Duration
}

// Source samples the clusters of one configuration from the last poll. It is a gate.Source, a gate.HostSource and a gate.DrainSource.
type Source struct {
	poller     *poller
	names      []string
	reports    bool // a report needs the hosts too
	interval   time.Duration
	staleAfter time.Duration
}

// Source returns the source of a configuration, whose address is polled until the source is closed. A cluster that no other source
// samples is stale until its first poll, which starts at once. warn gets a line at most once a minute while polls fail.
func (p *Pollers) Source(c *config.Config, warn func(line string)) *Source {
	s := &Source{reports: c.Details, interval: c.Admin.Interval, staleAfter: c.StaleAfter}
	for _, cluster := range c.Clusters {
		s.names = append(s.names, cluster.Name)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.active == nil {
		p.active = make(map[endpoint]*poller)
	}
	at := endpoint{c.Admin.Network, c.Admin.Address}
	if p.active[at] == nil {
		ctx, stop := context.WithCancel(context.Background())
		p.active[at] = &poller{
			pollers:  p,
			endpoint: at,
			wake:     make(chan struct{}, 1),
			stop:     stop,
			warn:     warn,
			sources:  make(map[*Source]struct{}),
		}
		go p.active[at].run(ctx)
	}
	s.poller = p.active[at]
	s.poller.sources[s] = struct{}{}
	if !s.poller.wanted.covers(s) || s.interval < s.poller.interval {
		select {
		case s.poller.wake <- struct{}{}: // a poll that is already under way does not count
		default:
		}
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
		return
	}
	p.stop()
	if p.pollers.active[p.endpoint] == p {
		delete(p.pollers.active, p.endpoint)
	}
}

// next returns the clusters for the next poll, and the shortest interval of the sources.
func (p *poller) next() (wanted, time.Duration) {
	p.pollers.mutex.Lock()
	defer p.pollers.mutex.Unlock()
	p.wanted, p.interval = make(wanted), time.Hour
	for s := range p.sources {
		p.interval = min(p.interval, s.interval)
		for _, name := range s.names {
			p.wanted[name] = p.wanted[name] || s.reports
		}
	}
	return p.wanted, p.interval
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
	admin := &http.Transport{
		// net/http continues to connect after the poll that needed the connection has ended.
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, maxPollTime)
			defer cancel()
			return dial(ctx, p.endpoint.network, p.endpoint.address)
		},
		DisableCompression: true,
	}
	defer admin.CloseIdleConnections()
	var due <-chan time.Time // nil before the first poll, which the first source wakes
	failures, loggedAt := 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
		case <-p.wake:
		}
		wanted, interval := p.next()
		polled, err := pollAdmin(ctx, admin, wanted)
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
		due = time.After(pause(interval, failures))
	}
}

// pause returns how long to wait for the next poll: about the interval, longer after failures, with random jitter.
func pause(interval time.Duration, failures int) time.Duration {
	if failures > 0 {
		interval = max(interval, min(interval<<min(failures, 10), maxBackOff))
	}
	return interval*9/10 + rand.N(interval/5)
}
