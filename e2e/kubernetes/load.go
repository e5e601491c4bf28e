package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/testbed"
)

const (
	callTimeout     = 10 * time.Second
	callsPerSecond  = 200 // of A and of B
	dialsPerSecond  = 20  // of C
	callers         = 100 // a call that hangs holds up one of them
	connections     = 4   // of A
	streams         = 10  // of A and of B, open at the same time
	shortestStream  = 10 * time.Second
	longestStream   = 55 * time.Second
	checkInterval   = 5 * time.Second
	pauseAfterError = time.Second // between streams
)

// Counts are what happened to one load since it began.
type Counts struct {
	Calls   int64            `json:"calls"`
	Failed  int64            `json:"failed"`
	Reasons map[string]int64 `json:"reasons,omitempty"` // why calls failed
	Streams int64            `json:"streams"`           // that have ended
	Cut     int64            `json:"cut"`               // streams that ended early
}

// Loads are the counts of each load by its name, and the number of Envoys that B's balancer sends to.
type Loads struct {
	Counts map[string]Counts `json:"counts"`
	Envoys int               `json:"envoys"`
}

// since returns what happened after an earlier count.
func (c Counts) since(before Counts) Counts {
	reasons := map[string]int64{}
	for reason, n := range c.Reasons {
		if n -= before.Reasons[reason]; n > 0 {
			reasons[reason] = n
		}
	}
	return Counts{c.Calls - before.Calls, c.Failed - before.Failed, reasons, c.Streams - before.Streams, c.Cut - before.Cut}
}

// load is calls, and streams if not nil.
type load struct{ calls, streams *testbed.Load }

func (l load) counts() Counts {
	c := Counts{Reasons: map[string]int64{}}
	for answer, n := range l.calls.Answers() {
		c.Calls += n
		if answer != succeeded {
			c.Failed += n
			c.Reasons[answer] = n
		}
	}
	if l.streams != nil {
		for answer, n := range l.streams.Answers() {
			c.Streams += n
			if answer != succeeded {
				c.Cut += n
			}
		}
	}
	return c
}

var succeeded = codes.OK.String()

// answerOf returns why a call failed, without what differs from call to call.
func answerOf(err error) string {
	if errors.Is(err, errNoTarget) {
		return errNoTarget.Error()
	}
	return status.Code(err).String()
}

// Balancers do not verify Envoy's certificate.
var unverified = &tls.Config{InsecureSkipVerify: true}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(unverified)))
}

func call(conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, err := router.Recommend(ctx, conn, munich)
	return err
}

var munich = router.Point{Latitude: 48.1, Longitude: 11.6}

// stream makes a call that stays open for some time: it sends its message at the end.
func stream(conn *grpc.ClientConn, open time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), open+callTimeout)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, router.Method)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.RecvMsg(&structpb.ListValue{}) }()
	select {
	case err := <-ended:
		return fmt.Errorf("the stream ended early: %w", err)
	case <-time.After(open):
	}
	if err := errors.Join(stream.SendMsg(router.Request(munich)), stream.CloseSend()); err != nil {
		return err
	}
	return <-ended
}

// startLoads starts three loads: A on connections to a fixed address, B through a balancer, C on a new connection for each call.
func startLoads(address string, balancer *balancer[*grpc.ClientConn]) (map[string]load, error) {
	var conns []*grpc.ClientConn
	for range connections {
		conn, err := dial(address)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
	}
	fixed := func() (*grpc.ClientConn, error) { return conns[rand.N(len(conns))], nil }
	loadOn := func(pick func() (*grpc.ClientConn, error)) load {
		return load{
			calls: testbed.StartLoad(testbed.Pace{Clients: callers, PerSecond: callsPerSecond}, func(int) string {
				conn, err := pick()
				if err == nil {
					err = call(conn)
				}
				return answerOf(err)
			}),
			streams: testbed.StartLoad(testbed.Pace{Clients: streams}, func(int) string {
				conn, err := pick()
				if err == nil {
					err = stream(conn, shortestStream+rand.N(longestStream-shortestStream))
				}
				if err != nil {
					time.Sleep(pauseAfterError)
				}
				return answerOf(err)
			}),
		}
	}
	dialing := testbed.StartLoad(testbed.Pace{Clients: callers, PerSecond: dialsPerSecond}, func(int) string {
		conn, err := dial(address)
		if err == nil {
			err = call(conn)
			conn.Close()
		}
		return answerOf(err)
	})
	return map[string]load{"A": loadOn(fixed), "B": loadOn(balancer.pick), "C": {calls: dialing}}, nil
}

// check is a load balancer's health check: GET / on a new connection, without verifying the certificate.
func check(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: unverified, DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET / is answered with %s", response.Status)
	}
	return nil
}

// newBalancer returns a balancer that checks each Envoy of a list.
func newBalancer(list func(context.Context) ([]string, error)) *balancer[*grpc.ClientConn] {
	return &balancer[*grpc.ClientConn]{
		interval: checkInterval, list: list, check: check, dial: dial,
		// Open calls end by themselves, or with their Envoy.
		close: func(conn *grpc.ClientConn) { time.AfterFunc(longestStream+callTimeout, func() { conn.Close() }) },
	}
}

// serveLoad is the command load. It serves the counts on loopback.
func serveLoad(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	address := flags.String("address", "", "`host:port` of Envoy's Service, as seen from outside of the cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	api, err := newEndpoints(account, net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")))
	if err != nil {
		return err
	}
	balancer := newBalancer(api.list)
	go balancer.run(ctx)
	loads, err := startLoads(*address, balancer)
	if err != nil {
		return err
	}
	counts := func(w http.ResponseWriter, _ *http.Request) {
		all := Loads{Counts: map[string]Counts{}, Envoys: balancer.inRotation()}
		for name, l := range loads {
			all.Counts[name] = l.counts()
		}
		_ = json.NewEncoder(w).Encode(all)
	}
	server := &http.Server{Addr: countsAddress, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(counts)}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

const countsAddress = "127.0.0.1:8090"

// printCounts is the command counts: the image has no other HTTP client.
func printCounts(ctx context.Context, _ []string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+countsAddress+"/", nil)
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
