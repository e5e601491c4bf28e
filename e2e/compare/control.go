package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"sync"

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
	address  string
	server   *grpc.Server
	cache    cachev3.SnapshotCache
	versions map[resourcev3.Type]string // the last version of each type

	mutex   sync.Mutex
	has     map[resourcev3.Type]string // the version of each type that Envoy has
	refused error
}

func newControl(ctx context.Context) (*Control, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Control{
		address:  listener.Addr().String(),
		server:   grpc.NewServer(),
		cache:    cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil),
		versions: map[resourcev3.Type]string{},
		has:      map[resourcev3.Type]string{},
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
	c.has[r.TypeUrl] = r.VersionInfo
	if r.ErrorDetail != nil {
		c.refused = fmt.Errorf("envoy refuses %s: %s", r.TypeUrl, r.ErrorDetail.Message)
	}
	return nil
}

// push sends resources to Envoy. The version of a type is a digest of its resources.
func (c *Control) push(resources map[resourcev3.Type][]types.Resource) (err error) {
	snapshot := &cachev3.Snapshot{}
	for _, kind := range []resourcev3.Type{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType,
		resourcev3.ExtensionConfigType} {
		var content []byte
		if kind == resourcev3.EndpointType { // Envoy waits for the endpoints of a cluster that it creates again
			content = append(content, c.versions[resourcev3.ClusterType]...)
		}
		for _, resource := range resources[kind] {
			if content, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(content, resource); err != nil {
				return err
			}
		}
		c.versions[kind] = fmt.Sprintf("%.8x", sha256.Sum256(content))
		snapshot.Resources[cachev3.GetResponseType(kind)] = cachev3.NewResources(c.versions[kind], resources[kind])
	}
	if err := snapshot.Consistent(); err != nil {
		return err
	}
	return c.cache.SetSnapshot(context.Background(), node, snapshot)
}

// accepted returns an error unless Envoy has the last version of each type.
func (c *Control) accepted() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.refused != nil {
		return c.refused
	}
	for kind, version := range c.versions {
		if c.has[kind] != version {
			return fmt.Errorf("envoy has version %s of %s, want %s", c.has[kind], kind, version)
		}
	}
	return nil
}
