package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// balancer sends to the targets that pass its health checks, like a load balancer outside of the cluster. One failed check takes a target
// out of rotation, and one passed check puts it back.
type balancer[C any] struct {
	interval time.Duration // between two checks of a target
	list     func(context.Context) ([]string, error)
	check    func(context.Context, string) error
	dial     func(address string) (C, error)
	close    func(C) // of a target that is no longer listed

	mutex    sync.Mutex
	targets  map[string]*target[C]
	rotation []*target[C]
	next     int
}

// target is an address that is listed, with one connection for all calls.
type target[C any] struct {
	conn    C
	passing bool
	stop    context.CancelFunc
}

var errNoTarget = errors.New("no target passes the balancer's checks")

// run updates the targets each second, and checks each, until ctx ends.
func (b *balancer[C]) run(ctx context.Context) {
	b.targets = map[string]*target[C]{}
	for ctx.Err() == nil {
		if addresses, err := b.list(ctx); err == nil {
			b.update(ctx, addresses)
		}
		pause(ctx, time.Second)
	}
}

// update adds new targets, and removes those that are no longer listed.
func (b *balancer[C]) update(ctx context.Context, addresses []string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	listed := map[string]bool{}
	for _, address := range addresses {
		listed[address] = true
		if b.targets[address] != nil {
			continue
		}
		conn, err := b.dial(address)
		if err != nil {
			continue // until the next update
		}
		checking, stop := context.WithCancel(ctx)
		t := &target[C]{conn: conn, stop: stop}
		b.targets[address] = t
		go b.checkRepeatedly(checking, t, address)
	}
	for address, t := range b.targets {
		if !listed[address] {
			t.passing = false
			t.stop()
			delete(b.targets, address)
			b.close(t.conn)
		}
	}
	b.rotate()
}

func (b *balancer[C]) checkRepeatedly(ctx context.Context, t *target[C], address string) {
	for ctx.Err() == nil {
		err := b.check(ctx, address)
		b.mutex.Lock()
		t.passing = err == nil && ctx.Err() == nil
		b.rotate()
		b.mutex.Unlock()
		pause(ctx, b.interval)
	}
}

// rotate renews the rotation. The caller holds the mutex.
func (b *balancer[C]) rotate() {
	b.rotation = b.rotation[:0]
	for _, t := range b.targets {
		if t.passing {
			b.rotation = append(b.rotation, t)
		}
	}
}

// pick returns the connection of the next target.
func (b *balancer[C]) pick() (conn C, err error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if len(b.rotation) == 0 {
		return conn, errNoTarget
	}
	b.next++
	return b.rotation[b.next%len(b.rotation)].conn, nil
}

// inRotation returns the number of targets that pass.
func (b *balancer[C]) inRotation() int {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return len(b.rotation)
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
