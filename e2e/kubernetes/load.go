package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

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
	printInterval   = 300 * time.Millisecond
)

// Counts are the numbers of calls and of streams that have ended, by their answer, of one load since it began.
type Counts struct{ Calls, Streams map[string]int64 }

// Loads are the counts of each load by its name, and the number of Envoys that B's balancer sends to.
type Loads struct {
	Counts map[string]Counts
	Envoys int
}

// since returns what happened after an earlier count.
func (c Counts) since(before Counts) Counts {
	minus := func(answers, before map[string]int64) map[string]int64 {
		answers = maps.Clone(answers)
		for answer, n := range before {
			answers[answer] -= n
		}
		maps.DeleteFunc(answers, func(_ string, n int64) bool { return n == 0 })
		return answers
	}
	return Counts{minus(c.Calls, before.Calls), minus(c.Streams, before.Streams)}
}

// sum returns the number of all answers, and of those that are failures.
func sum(answers map[string]int64) (all, failed int64) {
	for _, n := range answers {
		all += n
	}
	return all, all - answers[succeeded]
}

// load is calls, and streams if not nil.
type load struct{ calls, streams *testbed.Load }

func (l load) counts() Counts {
	c := Counts{Calls: l.calls.Answers()}
	if l.streams != nil {
		c.Streams = l.streams.Answers()
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

var munich = &router.Point{Latitude: 48.1, Longitude: 11.6}

// stream makes a call that stays open for some time: it sends its message at the end.
func stream(conn *grpc.ClientConn, open time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), open+callTimeout)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, router.Method)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.RecvMsg(&router.RecommendResponse{}) }()
	select {
	case err := <-ended:
		return fmt.Errorf("the stream ended early: %w", err)
	case <-time.After(open):
	}
	if err := errors.Join(stream.SendMsg(&router.RecommendRequest{Points: []*router.Point{munich}}), stream.CloseSend()); err != nil {
		return err
	}
	return <-ended
}

// startLoads starts three loads: A on connections to a fixed address, B through a balancer, C on a new connection for each call.
func startLoads(address string, b *balancer) map[string]load {
	var conns sync.Map // by their target and number
	connect := func(target string, number int) (*grpc.ClientConn, error) {
		dialed := sync.OnceValues(func() (*grpc.ClientConn, error) { return dial(target) })
		conn, _ := conns.LoadOrStore(fmt.Sprint(target, " ", number), dialed)
		return conn.(func() (*grpc.ClientConn, error))()
	}
	fixed := func() (*grpc.ClientConn, error) { return connect(address, rand.N(connections)) }
	balanced := func() (*grpc.ClientConn, error) {
		target, _, err := b.pick()
		if err != nil {
			return nil, err
		}
		return connect(target, 0)
	}
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
	return map[string]load{"A": loadOn(fixed), "B": loadOn(balanced), "C": {calls: dialing}}
}

// sendLoad is the command load. It prints a line of JSON with all counts, again and again.
func sendLoad(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	address := flags.String("address", "", "`host:port` of Envoy's Service, as seen from outside of the cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b, err := newBalancer()
	if err != nil {
		return err
	}
	go b.run(ctx)
	loads := startLoads(*address, b)
	for ; ctx.Err() == nil; pause(ctx, printInterval) {
		all := Loads{Counts: map[string]Counts{}}
		_, all.Envoys, _ = b.pick()
		for name, l := range loads {
			all.Counts[name] = l.counts()
		}
		if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
			return err
		}
	}
	return nil
}
