package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// balancer sends to the hosts that pass checks of its own, as a load balancer outside of the cluster does. The first check that fails
// takes a host out, and the first that passes takes it in.
type balancer[C any] struct {
	every time.Duration // between two checks of a host
	list  func(context.Context) ([]string, error)
	check func(context.Context, string) error
	dial  func(address string) (C, error)
	close func(C) // a host that is gone for good

	mu    sync.Mutex
	hosts map[string]*host[C]
	order []*host[C]
	next  int
}

// host is one that was listed. What is dialled is for all of its calls.
type host[C any] struct {
	conn C
	in   bool
	stop context.CancelFunc
}

var errNoHost = errors.New("the balancer has no host that passes its checks")

// keep asks for the hosts each second, and checks each, until ctx ends.
func (b *balancer[C]) keep(ctx context.Context) {
	b.hosts = map[string]*host[C]{}
	for ctx.Err() == nil {
		if addresses, err := b.list(ctx); err == nil {
			b.take(ctx, addresses)
		}
		pause(ctx, time.Second)
	}
}

// take adds the hosts that are new, and takes out those that are no longer listed.
func (b *balancer[C]) take(ctx context.Context, addresses []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	listed := map[string]bool{}
	for _, address := range addresses {
		listed[address] = true
		if b.hosts[address] != nil {
			continue
		}
		conn, err := b.dial(address)
		if err != nil {
			continue // and again with the next list
		}
		checking, stop := context.WithCancel(ctx)
		h := &host[C]{conn: conn, stop: stop}
		b.hosts[address] = h
		go b.watch(checking, h, address)
	}
	for address, h := range b.hosts {
		if !listed[address] {
			h.in = false
			h.stop()
			delete(b.hosts, address)
			b.close(h.conn)
		}
	}
	b.arrange()
}

// watch checks a host at once and from then on.
func (b *balancer[C]) watch(ctx context.Context, h *host[C], address string) {
	for ctx.Err() == nil {
		err := b.check(ctx, address)
		b.mu.Lock()
		h.in = err == nil && ctx.Err() == nil
		b.arrange()
		b.mu.Unlock()
		pause(ctx, b.every)
	}
}

// arrange lists those that are in. b.mu is held.
func (b *balancer[C]) arrange() {
	b.order = b.order[:0]
	for _, h := range b.hosts {
		if h.in {
			b.order = append(b.order, h)
		}
	}
}

// pick is the next host that is sent to.
func (b *balancer[C]) pick() (conn C, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.order) == 0 {
		return conn, errNoHost
	}
	b.next++
	return b.order[b.next%len(b.order)].conn, nil
}

// in is how many hosts are sent to.
func (b *balancer[C]) in() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.order)
}

// pause waits, and less where ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
