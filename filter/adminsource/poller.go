package adminsource

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter/config"
	"healthgate/filter/policy"
)

const (
	maxBackOff = 5 * time.Second // between two looks, where admin does not answer
	logEvery   = time.Minute     // for a failure that lasts
)

// Pollers are the pollers of a process, one for each address. The zero value is ready.
type Pollers struct {
	mutex  sync.Mutex
	active map[target]*poller
}

type target struct{ network, address string }

// poller polls one address for as long as a source uses it.
type poller struct {
	pollers *Pollers
	target  target
	latest  atomic.Pointer[snapshot]
	wake    chan struct{} // a look is to come at once
	stop    context.CancelFunc
	warn    func(string)
	every   atomic.Int64 // the shortest interval of the sources, in nanoseconds

	// Guarded by Pollers.mutex.
	sources map[*Source]time.Duration // the interval of each
	asked   wanted                    // what the newest look brings, or would have brought; nil before the first
}

// Source is the clusters of one configuration, seen by a poller. It is a gate.Source, a gate.HostSource and a
// gate.DrainSource.
type Source struct {
	pollers    *Pollers
	poller     *poller
	names      []string
	reports    bool // it wants the hosts too
	staleAfter time.Duration
}

// Source returns the source of a configuration, and has its address polled until the source is closed. A cluster that no
// other source wants is stale until the first look for it, which is made at once. warn takes a line where admin can't be
// used, at most once a minute.
func (p *Pollers) Source(c *config.Config, warn func(line string)) *Source {
	s := &Source{pollers: p, reports: c.Details, staleAfter: c.StaleAfter}
	for _, cluster := range c.Clusters {
		s.names = append(s.names, cluster.Name)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.active == nil {
		p.active = make(map[target]*poller)
	}
	at := target{c.Admin.Network, c.Admin.Address}
	s.poller = p.active[at]
	if s.poller == nil {
		ctx, stop := context.WithCancel(context.Background())
		s.poller = &poller{
			pollers: p,
			target:  at,
			wake:    make(chan struct{}, 1),
			stop:    stop,
			warn:    warn,
			sources: make(map[*Source]time.Duration),
		}
		p.active[at] = s.poller
		s.poller.every.Store(int64(c.Admin.Interval))
		go s.poller.run(ctx)
	}
	s.poller.sources[s] = c.Admin.Interval
	s.poller.setInterval()
	if !s.poller.asked.has(s) {
		s.poller.lookNow()
	}
	return s
}

// Close ends the source, and its poller with the last of its sources. It may be called more than once.
func (s *Source) Close() {
	s.pollers.mutex.Lock()
	defer s.pollers.mutex.Unlock()
	delete(s.poller.sources, s)
	if len(s.poller.sources) > 0 {
		s.poller.setInterval()
		return
	}
	s.poller.stop()
	if s.pollers.active[s.poller.target] == s.poller {
		delete(s.pollers.active, s.poller.target)
	}
}

func (p *poller) setInterval() {
	before := p.every.Load()
	shortest := time.Duration(0)
	for _, interval := range p.sources {
		if shortest == 0 || interval < shortest {
			shortest = interval
		}
	}
	p.every.Store(int64(shortest))
	if int64(shortest) < before {
		p.lookNow()
	}
}

// lookNow has a look made at once, or one more after the one that is being made.
func (p *poller) lookNow() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// ask returns what the next look has to bring.
func (p *poller) ask() wanted {
	p.pollers.mutex.Lock()
	defer p.pollers.mutex.Unlock()
	p.asked = make(wanted)
	for s := range p.sources {
		for _, name := range s.names {
			p.asked[name] = p.asked[name] || s.reports
		}
	}
	return p.asked
}

// has says whether a look that brings what is wanted brings all that a source wants. One that never was made does not.
func (w wanted) has(s *Source) bool {
	for _, name := range s.names {
		if hosts, ok := w[name]; !ok || s.reports && !hosts {
			return false
		}
	}
	return w != nil
}

// Sample gives what was seen last. Where that is too old, or nothing was seen yet, it is stale.
func (s *Source) Sample(now time.Time, i int) policy.Sample {
	latest := s.poller.latest.Load()
	if latest == nil {
		return policy.Sample{Stale: true}
	}
	name := s.names[i]
	c := latest.clusters[name]
	_, asked := latest.asked[name]
	sample := policy.Sample{Stale: !asked || now.Sub(latest.at) > s.staleAfter, Unknown: asked && c == nil}
	if c != nil {
		sample.Counts = c.counts
	}
	return sample
}

// Draining says whether Envoy failed its health checks when it was last looked at, and whether it ever was.
func (s *Source) Draining() (draining, known bool) {
	latest := s.poller.latest.Load()
	return latest != nil && latest.draining, latest != nil
}

// Hosts gives the hosts of the i-th cluster, at most maxHosts of them, for a configuration that reports them.
func (s *Source) Hosts(i int) []policy.Host {
	if latest := s.poller.latest.Load(); latest != nil && latest.clusters[s.names[i]] != nil {
		return latest.clusters[s.names[i]].hosts
	}
	return nil
}

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) {
	client := p.target.client()
	defer client.close()
	timer := time.NewTimer(pause(time.Duration(p.every.Load()), 0)) // the first source wants a look before
	defer timer.Stop()
	failures, loggedAt := 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		seen, err := look(ctx, client, p.ask())
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			p.latest.Store(seen)
			failures = 0
		default:
			failures++
			if time.Since(loggedAt) >= logEvery {
				loggedAt = time.Now()
				p.warn(fmt.Sprintf("healthgate: admin at %s can't be asked for the clusters' health: %v", p.target.address, err))
			}
		}
		timer.Reset(pause(time.Duration(p.every.Load()), failures))
	}
}

// pause is how long to wait for the next look: the interval, longer after failures, and never the same for two Envoys.
func pause(interval time.Duration, failures int) time.Duration {
	if failures > 0 {
		interval = max(interval, min(interval<<min(failures, 10), maxBackOff))
	}
	return interval*9/10 + rand.N(interval/5)
}
