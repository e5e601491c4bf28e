package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
)

// balancer sends to the targets that pass its health checks, like a load balancer outside of the cluster. One failed check takes a target
// out of rotation, and one passed check puts it back.
type balancer struct {
	list  func(context.Context) ([]string, error)
	check func(address string) error

	mutex    sync.Mutex
	checks   map[string]context.CancelFunc // of each listed target
	rotation []string
}

var errNoTarget = errors.New("no target passes the balancer's checks")

// run updates the targets each second, and checks each, until ctx ends.
func (b *balancer) run(ctx context.Context) {
	b.checks = map[string]context.CancelFunc{}
	for ; ctx.Err() == nil; pause(ctx, time.Second) {
		if addresses, err := b.list(ctx); err == nil {
			b.update(ctx, addresses)
		}
	}
}

// update adds new targets, and removes those that are no longer listed.
func (b *balancer) update(ctx context.Context, addresses []string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for address, stop := range b.checks {
		if !slices.Contains(addresses, address) {
			stop()
			delete(b.checks, address)
			b.set(address, false)
		}
	}
	for _, address := range addresses {
		if b.checks[address] == nil {
			checking, stop := context.WithCancel(ctx)
			b.checks[address] = stop
			go b.checkRepeatedly(checking, address)
		}
	}
}

func (b *balancer) checkRepeatedly(ctx context.Context, address string) {
	for ; ctx.Err() == nil; pause(ctx, checkInterval) {
		err := b.check(address)
		b.mutex.Lock()
		if ctx.Err() == nil {
			b.set(address, err == nil)
		}
		b.mutex.Unlock()
	}
}

// set puts a target into the rotation, or takes it out. The caller holds the mutex.
func (b *balancer) set(address string, passing bool) {
	b.rotation = slices.DeleteFunc(b.rotation, func(other string) bool { return other == address })
	if passing {
		b.rotation = append(b.rotation, address)
	}
}

// pick returns a target, and how many are in rotation.
func (b *balancer) pick() (target string, of int, err error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if of = len(b.rotation); of == 0 {
		return "", 0, errNoTarget
	}
	return b.rotation[rand.N(of)], of, nil
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// newBalancer returns a balancer of the Envoys. In a pod, it asks the API server for them, like the controller of a cloud's load balancer.
func newBalancer() (*balancer, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, err
	}
	config.Timeout = client.Timeout
	api, err := discoveryclient.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &balancer{check: probe, list: func(ctx context.Context) ([]string, error) {
		of := metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=envoy"}
		list, err := api.EndpointSlices(namespace).List(ctx, of)
		if err != nil {
			return nil, err
		}
		return serving(list.Items), nil
	}}, nil
}

// serving returns host:port of each serving endpoint. A terminating one serves as long as it is ready.
func serving(slices []discoveryv1.EndpointSlice) (addresses []string) {
	for _, slice := range slices {
		for _, port := range slice.Ports {
			for _, endpoint := range slice.Endpoints {
				if s := endpoint.Conditions.Serving; port.Port != nil && (s == nil || *s) {
					addresses = append(addresses, net.JoinHostPort(endpoint.Addresses[0], fmt.Sprint(*port.Port)))
				}
			}
		}
	}
	return addresses
}

// client sends probes, each on a new connection and without verifying the certificate.
var client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: unverified, DisableKeepAlives: true}}

func probe(address string) error {
	response, err := client.Get("https://" + address + "/")
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET / is answered with %s", response.Status)
	}
	return nil
}
