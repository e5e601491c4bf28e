package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"healthgate/filter"
)

const (
	maxBody    = 16 << 20        // bytes of an answer; Envoy writes some 700 for a host
	maxTime    = 5 * time.Second // from the request to the end of its answer
	maxBackOff = 5 * time.Second // between two looks, where admin does not answer
	logEvery   = time.Minute     // for a failure that lasts
)

// snapshot is one answer.
type snapshot struct {
	at       time.Time // when it was asked for
	clusters map[string]*cluster
}

// Pollers are the pollers of a process, one for each address. The zero value is ready.
type Pollers struct {
	mutex  sync.Mutex
	active map[target]*poller
}

type target struct{ network, address string }

// poller polls one address for as long as a source uses it.
type poller struct {
	target  target
	latest  atomic.Pointer[snapshot]
	wake    chan struct{} // a shorter interval has come
	stop    context.CancelFunc
	warn    func(string)
	sources map[*Source]time.Duration // the interval of each; guarded by Pollers.mutex
	every   atomic.Int64              // the shortest of them, in nanoseconds
}

// Source is the clusters of one configuration, seen by a poller. It is a filter.Source and a filter.HostSource.
type Source struct {
	pollers    *Pollers
	poller     *poller
	names      []string
	staleAfter time.Duration
}

// Source returns the source of a configuration, and has its address polled until the source is closed. warn takes a line
// where admin can't be used, at most once a minute.
func (p *Pollers) Source(c *filter.Config, warn func(line string)) *Source {
	s := &Source{pollers: p, staleAfter: c.StaleAfter}
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
		s.poller = &poller{target: at, wake: make(chan struct{}, 1), stop: stop, warn: warn, sources: make(map[*Source]time.Duration)}
		p.active[at] = s.poller
		s.poller.every.Store(int64(c.Admin.Interval))
		go s.poller.run(ctx)
	}
	s.poller.sources[s] = c.Admin.Interval
	s.poller.setInterval()
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
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// Sample gives what was seen last. Where that is too old, or nothing was seen yet, it is stale.
func (s *Source) Sample(now time.Time, i int) filter.Sample {
	latest := s.poller.latest.Load()
	if latest == nil {
		return filter.Sample{Stale: true}
	}
	sample := filter.Sample{Stale: now.Sub(latest.at) > s.staleAfter}
	if c := latest.clusters[s.names[i]]; c != nil {
		sample.Counts = c.counts
	}
	return sample
}

// Hosts gives the hosts of the i-th cluster.
func (s *Source) Hosts(i int) []filter.HostState {
	if latest := s.poller.latest.Load(); latest != nil && latest.clusters[s.names[i]] != nil {
		return latest.clusters[s.names[i]].hosts
	}
	return nil
}

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) {
	client := p.client()
	defer client.CloseIdleConnections()
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures, loggedAt := 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		seen, err := look(ctx, client)
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

func (p *poller) client() *http.Client {
	dialer := &net.Dialer{Timeout: maxTime}
	return &http.Client{
		Timeout: maxTime,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, p.target.network, p.target.address)
			},
			MaxIdleConns: 1,
		},
		// Admin does not redirect, and whoever does is not to be followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// look asks admin once. A panic on the way is an error: this runs on a goroutine, where it would end Envoy.
func look(ctx context.Context, client *http.Client) (seen *snapshot, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			seen, err = nil, fmt.Errorf("panic: %v", cause)
		}
	}()
	at := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/clusters?format=json", nil)
	if err != nil {
		return nil, err
	}
	reply, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered with %s", reply.Status)
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, errors.New("its answer has more than 16 MiB")
	}
	clusters, err := decode(body)
	if err != nil {
		return nil, fmt.Errorf("its answer is not envoy.admin.v3.Clusters: %w", err)
	}
	return &snapshot{at: at, clusters: clusters}, nil
}
