package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"fortio.org/fortio/fhttp"
	"fortio.org/fortio/periodic"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// fortio sends all load: its runner keeps the pace and the histogram, at full rate and at a bounded one. Its own HTTP/1.1 client uses
// less CPU for a probe than Envoy's worker does: at full rate the worker is the bottleneck. Its HTTP/2 client is Go's and uses more than
// the worker does, so over HTTP/2 the rate is mostly the client's, and the figure to read is the CPU time of the worker. RESULTS.md has
// the CPU time of the load beside both. gRPC calls are grpc-go's, in the same runner.

// connections is how many clients send at the same time, each on its own connection.
const connections = 4

// outcome of a load.
type outcome struct {
	requests, rejected int64 // all, and those that were not answered with 200
	took               time.Duration
	p50, p99           time.Duration
}

// atFullRate makes each client send as soon as it has the reply to its last request, for some time or, if exactly is not 0, that often.
func atFullRate(over time.Duration, exactly int64) periodic.RunnerOptions {
	return periodic.RunnerOptions{
		QPS: -1, Duration: over, Exactly: exactly, NumThreads: connections, Out: io.Discard,
		Stop:        periodic.NewAborter(), // or fortio catches Ctrl-C, and resets it for this program
		Percentiles: []float64{50, 99}, Resolution: 10e-6,
	}
}

func outcomeOf(r periodic.RunnerResults) outcome {
	percentile := func(i int) time.Duration {
		return time.Duration(r.DurationHistogram.Percentiles[i].Value * float64(time.Second))
	}
	return outcome{r.DurationHistogram.Count, 0, r.ActualDuration, percentile(0), percentile(1)}
}

// probes sends GET / to an address on connections that are kept. It fails unless each probe is answered.
func probes(address string, http2 bool, options periodic.RunnerOptions) (outcome, error) {
	o := fhttp.HTTPRunnerOptions{RunnerOptions: options, AllowInitialErrors: true}
	o.HTTPOptions.URL = "http://" + address + "/"
	o.HTTPOptions.NumConnections = connections
	o.HTTPOptions.H2 = http2
	result, err := fhttp.RunHTTPTest(&o)
	if err != nil {
		return outcome{}, err
	}
	did := outcomeOf(result.RunnerResults)
	if lost := result.RetCodes[fhttp.SocketError]; lost > 0 {
		return outcome{}, fmt.Errorf("%d of %d probes were not answered", lost, did.requests)
	}
	did.rejected = did.requests - result.RetCodes[http.StatusOK]
	return did, nil
}

// proberRate is how many probes a prober sends in a second.
const proberRate = 20

// prober sends probes to an Envoy, each on a new connection as many balancers do, and counts the replies.
type prober struct {
	stop *periodic.Aborter
	done chan error
	seen Watched // once it is done
}

func startProber(address string) *prober {
	p := &prober{stop: periodic.NewAborter(), done: make(chan error, 1)}
	o := fhttp.HTTPRunnerOptions{AllowInitialErrors: true, RunnerOptions: periodic.RunnerOptions{
		QPS: proberRate, Duration: -1, NumThreads: 1, NoCatchUp: true, Out: io.Discard, Stop: p.stop,
	}}
	o.HTTPOptions.URL = "http://" + address + "/"
	o.HTTPOptions.ConnReuseRange = [2]int{1, 1}
	go func() {
		r, err := fhttp.RunHTTPTest(&o)
		if err == nil {
			n := r.DurationHistogram.Count
			lost := r.RetCodes[fhttp.SocketError]
			p.seen = Watched{Probes: n, Lost: lost, Rejected: n - lost - r.RetCodes[http.StatusOK]}
		}
		p.done <- err
	}()
	return p
}

// end stops the prober and returns its counts.
func (p *prober) end() (Watched, error) {
	p.stop.Abort(true)
	err := <-p.done
	return p.seen, err
}

// kind is a kind of gRPC traffic.
type kind struct {
	Name      string
	method    string
	size      int  // of a message, in bytes
	reply     int  // of its reply
	streaming bool // one stream for each client, on which each message waits for the reply to the last
}

// method is one that the reference configuration routes to the service.
const method = "/router.Router/Recommend"

var kinds = []kind{
	{"unary, 64 B", method, 64, 64, false},
	{"unary, 64 KiB", method, 64 << 10, 64 << 10, false},
	{"streaming, 64 B", method, 64, 64, true},
}

// A Check of all services has no byte, and its reply two. The same call to a host has a reply of none.
var (
	check      = kind{"Check", "/grpc.health.v1.Health/Check", 0, 2, false}
	checkAHost = kind{"Check", method, 0, 0, false}
)

// caller makes calls of one client.
type caller struct {
	conn *grpc.ClientConn
	call func() error
	err  error // the first
	stop *periodic.Aborter
}

// Run makes a call. After one that failed the whole load ends.
func (c *caller) Run(context.Context, periodic.ThreadID) (bool, string) {
	if c.err == nil {
		if c.err = c.call(); c.err != nil {
			c.stop.Abort(false)
		}
	}
	return c.err == nil, ""
}

// calls makes gRPC calls to an address for some time. It fails unless each gets its reply.
func calls(ctx context.Context, address string, k kind, over time.Duration) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, over+10*time.Second)
	defer cancel()
	options := atFullRate(over, 0)
	var clients []*caller
	for range connections {
		c, err := newCaller(ctx, address, k)
		if err != nil {
			return outcome{}, err
		}
		defer c.conn.Close()
		c.stop = options.Stop
		clients = append(clients, c)
	}
	runner := periodic.NewPeriodicRunner(&options) // empties the options
	for i, c := range clients {
		runner.Options().Runners[i] = c
	}
	result := runner.Run()
	for _, c := range clients {
		if c.err != nil {
			return outcome{}, fmt.Errorf("%s: %s: %w", address, k.Name, c.err)
		}
	}
	return outcomeOf(result), nil
}

func newCaller(ctx context.Context, address string, k kind) (*caller, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return nil, err
	}
	message := make([]byte, k.size)
	var reply []byte
	exchange := func() error { return conn.Invoke(ctx, k.method, &message, &reply) }
	if k.streaming {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, k.method)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		exchange = func() error { return errors.Join(stream.SendMsg(&message), stream.RecvMsg(&reply)) }
	}
	return &caller{conn: conn, call: func() error {
		if err := exchange(); err != nil {
			return err
		}
		if len(reply) != k.reply {
			return fmt.Errorf("the reply has %d bytes, want %d", len(reply), k.reply)
		}
		return nil
	}}, nil
}

// echo starts a gRPC server that sends back each message of any method, until the process ends, and returns its address.
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
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), nil
}

// raw is a codec of bytes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = slices.Clone(data); return nil }
func (raw) Name() string                       { return "raw" }
