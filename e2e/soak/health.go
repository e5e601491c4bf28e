package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/walk"
)

// stranger is a service that no gate knows.
const stranger = "nobody"

// health is a client of grpc.health.v1.Health on a connection of its own.
func health(ingress string) (grpc_health_v1.HealthClient, *grpc.ClientConn) {
	conn, err := grpc.NewClient("passthrough:///"+ingress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err) // of the options, which are made here
	}
	return grpc_health_v1.NewHealthClient(conn), conn
}

// asks picks whom to ask for.
func asks(r *rand.Rand) *grpc_health_v1.HealthCheckRequest {
	return &grpc_health_v1.HealthCheckRequest{Service: []string{"", walk.Service, walk.Service, stranger}[r.IntN(4)]}
}

// ended counts how a call has ended that its client did not end, and fails where that can't be.
func (a *answers) ended(what string, err error) {
	if status.Code(err) == codes.Unavailable {
		a.cut.Add(1)
		return
	}
	a.fail(fmt.Errorf("%s: %w", what, err))
}

// check calls Check again and again; one in ten hangs up.
func (a *answers) check(ctx context.Context, ingress string, r *rand.Rand) {
	client, conn := health(ingress)
	defer conn.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		hangsUp := r.IntN(10) == 0
		if hangsUp {
			time.AfterFunc(time.Duration(r.IntN(1000))*time.Microsecond, cancel)
		}
		request := asks(r)
		reply, err := client.Check(call, request)
		cancel()
		switch {
		case ctx.Err() != nil || err != nil && hangsUp:
		case request.Service == stranger && status.Code(err) == codes.NotFound,
			request.Service != stranger && err == nil && isVerdict(reply):
			a.checked.Add(1)
		case err == nil:
			a.fail(fmt.Errorf("Check of %q: %v", request.Service, reply))
		default:
			a.ended(fmt.Sprintf("Check of %q", request.Service), err)
		}
	}
}

func isVerdict(reply *grpc_health_v1.HealthCheckResponse) bool {
	return reply.Status == grpc_health_v1.HealthCheckResponse_SERVING || reply.Status == grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// watch opens one Watch after the other, each for up to two seconds.
func (a *answers) watch(ctx context.Context, ingress string, r *rand.Rand) {
	client, conn := health(ingress)
	defer conn.Close()
	for ctx.Err() == nil {
		call, hangUp := context.WithTimeout(ctx, time.Duration(10+r.IntN(2000))*time.Millisecond)
		request := asks(r)
		stream, err := client.Watch(call, request)
		a.watched.Add(1)
		for err == nil {
			var reply *grpc_health_v1.HealthCheckResponse
			if reply, err = stream.Recv(); err != nil {
				break
			}
			a.told.Add(1)
			if unknown := reply.Status == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN; unknown != (request.Service == stranger) ||
				!unknown && !isVerdict(reply) {
				a.fail(fmt.Errorf("Watch of %q: %v", request.Service, reply))
			}
		}
		// The deadline is its own; grpc-go may tell of it before the context does.
		if code := status.Code(err); call.Err() == nil && code != codes.DeadlineExceeded {
			a.ended(fmt.Sprintf("Watch of %q", request.Service), err)
		}
		hangUp()
	}
}

// abuseHealth sends what is no message to methods of the health service, some of it half.
func (a *answers) abuseHealth(ctx context.Context, ingress string, r *rand.Rand) {
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		junk := make([]byte, r.IntN(5000))
		for i := range junk {
			junk[i] = byte(r.Uint32())
		}
		if len(junk) > 5 && r.IntN(2) == 0 { // the beginning of a frame
			copy(junk, []byte{0, 0, 0, 0, byte(r.IntN(20))})
		}
		call, cancel := context.WithCancel(ctx)
		if r.IntN(5) == 0 {
			time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, cancel)
		}
		method := []string{"Check", "Check", "List", "Other"}[r.IntN(4)]
		request, err := http.NewRequestWithContext(call, http.MethodPost, "http://"+ingress+"/grpc.health.v1.Health/"+method, bytes.NewReader(junk))
		if err != nil {
			panic(err) // made here
		}
		request.Header.Set("content-type", "application/grpc")
		reply, err := client.Do(request)
		if err == nil {
			_, _ = io.Copy(io.Discard, reply.Body) // it may be the one that hangs up
			reply.Body.Close()
			if reply.StatusCode != http.StatusOK {
				a.fail(fmt.Errorf("garbage to %s is answered with %d", method, reply.StatusCode))
			}
		}
		cancel()
		a.abused.Add(1)
	}
}
