package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// node is the id by which the control plane knows Envoy.
const node = "compare"

// Control is an xDS server for one Envoy, over one aggregated stream.
type Control struct {
	address *net.TCPAddr
	server  *grpc.Server
	cache   cachev3.SnapshotCache

	version  int
	versions map[resourcev3.Type]string            // the last version of each type
	content  map[resourcev3.Type]map[string]string // its resources by name

	mutex    sync.Mutex
	accepted map[resourcev3.Type]string
	refused  error
	news     chan struct{} // is sent to when one of these changes
}

func newControl(ctx context.Context) (*Control, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Control{
		address:  listener.Addr().(*net.TCPAddr),
		server:   grpc.NewServer(),
		cache:    cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil),
		versions: map[resourcev3.Type]string{},
		content:  map[resourcev3.Type]map[string]string{},
		accepted: map[resourcev3.Type]string{},
		news:     make(chan struct{}, 1),
	}
	callbacks := serverv3.CallbackFuncs{StreamRequestFunc: c.request}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(c.server, serverv3.NewServer(ctx, c.cache, callbacks))
	go func() { _ = c.server.Serve(listener) }() // until it is stopped
	return c, nil
}

// request records the version that Envoy has accepted, or the error with which it refuses one.
func (c *Control) request(_ int64, r *discoveryv3.DiscoveryRequest) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.accepted[r.TypeUrl] = r.VersionInfo
	if r.ErrorDetail != nil {
		c.refused = fmt.Errorf("envoy refuses %s: %s", r.TypeUrl, r.ErrorDetail.Message)
	}
	select {
	case c.news <- struct{}{}:
	default:
	}
	return nil
}

// push sends resources to Envoy, and returns the types that have changed.
func (c *Control) push(resources map[resourcev3.Type][]types.Resource) (changed []resourcev3.Type, err error) {
	c.version++
	snapshot := &cachev3.Snapshot{}
	for _, kind := range []resourcev3.Type{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType,
		resourcev3.ExtensionConfigType} {
		content := map[string]string{}
		for _, resource := range resources[kind] {
			text, err := proto.MarshalOptions{Deterministic: true}.Marshal(resource)
			if err != nil {
				return nil, err
			}
			content[cachev3.GetResourceName(resource)] = string(text)
		}
		// Envoy waits for the endpoints of a cluster that it creates again.
		again := kind == resourcev3.EndpointType && len(changed) > 0
		if again || !maps.Equal(content, c.content[kind]) {
			c.content[kind], c.versions[kind] = content, strconv.Itoa(c.version)
			changed = append(changed, kind)
		}
		snapshot.Resources[cachev3.GetResponseType(kind)] = cachev3.NewResources(c.versions[kind], resources[kind])
	}
	if err := snapshot.Consistent(); err != nil {
		return nil, err
	}
	return changed, c.cache.SetSnapshot(context.Background(), node, snapshot)
}

// await waits until Envoy has accepted the latest versions of some types.
func (c *Control) await(ctx context.Context, kinds []resourcev3.Type, atMost time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	for {
		final, err := c.missing(kinds)
		if final {
			return err
		}
		select {
		case <-c.news:
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", atMost, err)
		}
	}
}

// missing returns an error if Envoy does not have the latest versions of some types, and whether that is final.
func (c *Control) missing(kinds []resourcev3.Type) (final bool, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.refused != nil {
		return true, c.refused
	}
	for _, kind := range kinds {
		if c.accepted[kind] != c.versions[kind] {
			return false, fmt.Errorf("envoy has version %s of %s, want %s", c.accepted[kind], kind, c.versions[kind])
		}
	}
	return true, nil
}
