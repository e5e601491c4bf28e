package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"healthgate/e2e/backend/router"
)

const (
	callTimeout = 10 * time.Second
	// A second's calls of A and B, and of C.
	callsEach, callsAnew = 200, 20
	connections          = 4
	streams              = 10
	streamShort          = 10 * time.Second
	streamLong           = 55 * time.Second
	checkEvery           = 5 * time.Second
)

// Counts are what a load has done since it began.
type Counts struct {
	Calls   int64            `json:"calls"`
	Failed  int64            `json:"failed"`
	Reasons map[string]int64 `json:"reasons,omitempty"` // of those that failed
	Streams int64            `json:"streams"`           // that have ended, well or not
	Cut     int64            `json:"cut"`               // of the streams
}

// Load is the counts of each, by its name, and how many Envoys B's balancer sends to.
type Load struct {
	Counts map[string]Counts `json:"counts"`
	Hosts  int               `json:"hosts"`
}

// since is what has happened after an earlier count.
func (c Counts) since(before Counts) Counts {
	reasons := map[string]int64{}
	for reason, n := range c.Reasons {
		if n -= before.Reasons[reason]; n > 0 {
			reasons[reason] = n
		}
	}
	return Counts{c.Calls - before.Calls, c.Failed - before.Failed, reasons, c.Streams - before.Streams, c.Cut - before.Cut}
}

// tally counts the calls of one load.
type tally struct {
	mu     sync.Mutex
	counts Counts
}

func (t *tally) call(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Calls++
	if err == nil {
		return
	}
	t.counts.Failed++
	if t.counts.Reasons == nil {
		t.counts.Reasons = map[string]int64{}
	}
	t.counts.Reasons[reason(err)]++
}

func (t *tally) stream(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Streams++
	if err != nil {
		t.counts.Cut++
	}
}

func (t *tally) now() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := t.counts
	counts.Reasons = maps.Clone(counts.Reasons)
	return counts
}

// reason is why a call failed, without what differs from call to call.
func reason(err error) string {
	if errors.Is(err, errNoHost) {
		return errNoHost.Error()
	}
	return status.Code(err).String()
}

// Nobody verifies the certificate between a balancer and Envoy.
var unverified = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(unverified))
}

// unary is one call.
func unary(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := router.NewRouterClient(conn).Recommend(ctx, points())
	return err
}

func points() *router.RecommendRequest {
	return &router.RecommendRequest{Points: []*router.Point{{Latitude: 48.1, Longitude: 11.6}}}
}

// lasting is a call that is under way for some time: its message comes at the end.
func lasting(ctx context.Context, conn *grpc.ClientConn, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d+callTimeout)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, router.Router_Recommend_FullMethodName)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		if err := stream.RecvMsg(&router.RecommendResponse{}); err != nil {
			ended <- err
			return
		}
		ended <- nil
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("it ended early: %w", err)
	case <-time.After(d):
	}
	if err := errors.Join(stream.SendMsg(points()), stream.CloseSend()); err != nil {
		return err
	}
	return <-ended
}

// pickFunc is where the next call goes to, and what is done when it has ended.
type pickFunc func() (*grpc.ClientConn, func(), error)

func nothing() {}

// over makes so many calls a second until ctx ends. None waits for another.
func (t *tally) over(ctx context.Context, perSecond int, pick pickFunc) {
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		calls.Go(func() {
			conn, done, err := pick()
			if err == nil {
				err = unary(ctx, conn)
				done()
			}
			if ctx.Err() == nil {
				t.call(err)
			}
		})
	}
}

// stream has one stream after another until ctx ends.
func (t *tally) streams(ctx context.Context, pick pickFunc) {
	for ctx.Err() == nil {
		conn, done, err := pick()
		if err == nil {
			err = lasting(ctx, conn, streamShort+rand.N(streamLong-streamShort))
			done()
		}
		if ctx.Err() == nil {
			t.stream(err)
		}
		if err != nil {
			pause(ctx, time.Second)
		}
	}
}

// start begins the three loads: A and C by a fixed address, B by a balancer.
func start(ctx context.Context, address string, balancer *balancer[*grpc.ClientConn]) (map[string]*tally, error) {
	tallies := map[string]*tally{"A": {}, "B": {}, "C": {}}
	var conns []*grpc.ClientConn
	for range connections {
		conn, err := dial(address)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
	}
	byAddress := func() (*grpc.ClientConn, func(), error) { return conns[rand.N(len(conns))], nothing, nil }
	byBalancer := func() (*grpc.ClientConn, func(), error) {
		conn, err := balancer.pick()
		return conn, nothing, err
	}
	anew := func() (*grpc.ClientConn, func(), error) {
		conn, err := dial(address)
		return conn, func() { conn.Close() }, err
	}
	go tallies["A"].over(ctx, callsEach, byAddress)
	go tallies["B"].over(ctx, callsEach, byBalancer)
	go tallies["C"].over(ctx, callsAnew, anew)
	for range streams {
		go tallies["A"].streams(ctx, byAddress)
		go tallies["B"].streams(ctx, byBalancer)
	}
	return tallies, nil
}

// probe is the check of a load balancer: GET / on a connection of its own, without verifying the certificate.
func probe(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET / is answered with %s", response.Status)
	}
	return nil
}

// newBalancer checks each Envoy that the cluster has.
func newBalancer(list func(context.Context) ([]string, error)) *balancer[*grpc.ClientConn] {
	return &balancer[*grpc.ClientConn]{
		every: checkEvery, list: list, check: probe, dial: dial,
		// Calls that are under way end by themselves, or with what they were sent to.
		close: func(conn *grpc.ClientConn) { time.AfterFunc(streamLong+callTimeout, func() { conn.Close() }) },
	}
}

// serveLoad is the command load: the load, and what it has counted at a port on loopback.
func serveLoad(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	address := flags.String("address", "", "host:port of Envoy's Service, as from outside of the cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	api, err := newEndpoints(account, net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")))
	if err != nil {
		return err
	}
	balancer := newBalancer(api.list)
	go balancer.keep(ctx)
	tallies, err := start(ctx, *address, balancer)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: countsAt, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		load := Load{Counts: map[string]Counts{}, Hosts: balancer.in()}
		for name, t := range tallies {
			load.Counts[name] = t.now()
		}
		_ = json.NewEncoder(w).Encode(load)
	})}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

const countsAt = "127.0.0.1:8090"

// printCounts is the command counts: the image has nothing else to ask with.
func printCounts(ctx context.Context, _ []string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+countsAt+"/", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
