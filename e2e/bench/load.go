package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"fortio.org/fortio/fhttp"
	"fortio.org/fortio/periodic"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// connections is how many clients ask at once: each its next request when it has the answer to its last.
const connections = 4

// done is what a load has done.
type done struct {
	requests  int64
	took      time.Duration
	p50, p99  time.Duration
	latencies latencies // of probes
}

// latencies count requests by how long each took at the most, in microseconds.
type latencies map[float64]int64

// probes asks GET / of an address for some time, or a number of times where that is not 0. Each must be answered with 200.
func probes(address string, duration time.Duration, exactly int64) (done, error) {
	options := fhttp.HTTPRunnerOptions{RunnerOptions: periodic.RunnerOptions{
		QPS: -1, Duration: duration, Exactly: exactly, NumThreads: connections, Out: io.Discard,
		Percentiles: []float64{50, 99}, Resolution: 10e-6,
	}}
	options.HTTPOptions.URL = "http://" + address + "/"
	options.HTTPOptions.NumConnections = connections
	result, err := fhttp.RunHTTPTest(&options)
	if err != nil {
		return done{}, err
	}
	n := result.DurationHistogram.Count
	if passed := result.RetCodes[http.StatusOK]; passed != n {
		return done{}, fmt.Errorf("%s: %d of %d probes were answered with 200: %v", address, passed, n, result.RetCodes)
	}
	seconds := func(i int) time.Duration {
		return time.Duration(result.DurationHistogram.Percentiles[i].Value * float64(time.Second))
	}
	all := latencies{}
	for _, bucket := range result.DurationHistogram.Data {
		all[math.Round(bucket.End*1e6)] += bucket.Count
	}
	return done{n, result.ActualDuration, seconds(0), seconds(1), all}, nil
}

// kind is a kind of gRPC traffic.
type kind struct {
	Name      string
	method    string
	size      int  // of a message, in bytes
	reply     int  // of the answer to it
	streaming bool // one stream a client, on which each message waits for the answer to the last
}

// method is one that the reference configuration routes to the service.
const method = "/router.Router/Recommend"

var kinds = []kind{
	{"unary, 64 B", method, 64, 64, false},
	{"unary, 64 KiB", method, 64 << 10, 64 << 10, false},
	{"streaming, 64 B", method, 64, 64, true},
}

// A Check asks for all that there is, in no byte, and is told the status in two. A host that is asked in its place sends nothing back.
var (
	checks   = kind{"a Check", "/grpc.health.v1.Health/Check", 0, 2, false}
	toAHost  = kind{"a Check", method, 0, 0, false}
	checking = map[string]kind{check: checks, through: toAHost}
)

// calls makes gRPC calls through an address for some time.
func calls(address string, k kind, duration time.Duration) (done, error) {
	ctx, cancel := context.WithTimeout(context.Background(), duration+10*time.Second)
	defer cancel()
	until := time.Now().Add(duration)
	began := time.Now()
	latencies := make([][]time.Duration, connections)
	failures := make([]error, connections)
	var clients sync.WaitGroup
	for i := range connections {
		clients.Go(func() { latencies[i], failures[i] = client(ctx, address, k, until) })
	}
	clients.Wait()
	took := time.Since(began)
	for _, err := range failures {
		if err != nil {
			return done{}, err
		}
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return done{}, fmt.Errorf("%s: no call came through", address)
	}
	slices.Sort(all)
	return done{requests: int64(len(all)), took: took, p50: all[len(all)/2], p99: all[len(all)*99/100]}, nil
}

// client makes calls one after the other on a connection of its own, and returns how long each took.
func client(ctx context.Context, address string, k kind, until time.Time) ([]time.Duration, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	message := make([]byte, k.size)
	call := func() error {
		var reply []byte
		if err := conn.Invoke(ctx, k.method, &message, &reply); err != nil {
			return err
		}
		return same(reply, k.reply)
	}
	if k.streaming {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, k.method)
		if err != nil {
			return nil, err
		}
		call = func() error {
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
			var reply []byte
			if err := stream.RecvMsg(&reply); err != nil {
				return err
			}
			return same(reply, k.reply)
		}
	}
	var latencies []time.Duration
	for now := time.Now(); now.Before(until); {
		if err := call(); err != nil {
			return nil, err
		}
		end := time.Now()
		latencies = append(latencies, end.Sub(now))
		now = end
	}
	return latencies, nil
}

func same(reply []byte, size int) error {
	if len(reply) != size {
		return fmt.Errorf("an answer has %d bytes, want %d", len(reply), size)
	}
	return nil
}

// echo starts a gRPC server that sends back each message of any method, and returns its address.
func echo() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		for {
			var message []byte
			if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	}))
	go func() { _ = server.Serve(listener) }() // until the process ends
	return listener.Addr().String(), nil
}

// raw is a codec of bytes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = slices.Clone(data); return nil }
func (raw) Name() string                       { return "raw" }
