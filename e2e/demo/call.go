package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"healthgate/e2e/backend/router"
)

// callTimeout bounds each call.
const callTimeout = 10 * time.Second

// unverified accepts any certificate, because the commands call and check do not have the demo's.
var unverified = &tls.Config{InsecureSkipVerify: true}

func addressFlag(flags *flag.FlagSet) *string {
	return flags.String("address", "127.0.0.1:8443", "`host:port` of the listener")
}

func call(ctx context.Context, flags *flag.FlagSet, args []string) error {
	address := addressFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	routes, err := recommend(ctx, *address)
	if err == nil {
		fmt.Printf("router.Router/Recommend returned routes %v\n", routes)
	}
	return err
}

func check(ctx context.Context, flags *flag.FlagSet, args []string) error {
	address := addressFlag(flags)
	service := flags.String("service", "", "`service` to check; empty: all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	state, err := checkHealth(ctx, *address, *service)
	if err != nil {
		return err
	}
	fmt.Println("status:", state)
	if state != grpc_health_v1.HealthCheckResponse_SERVING.String() {
		return errors.New("the service is not serving")
	}
	return nil
}

// recommend makes a gRPC call by a listener, and returns the routes of the reply.
func recommend(ctx context.Context, address string) ([]uint32, error) {
	return withConn(ctx, address, func(ctx context.Context, conn *grpc.ClientConn) ([]uint32, error) {
		return router.Recommend(ctx, conn, &router.Point{Latitude: 48.137, Longitude: 11.575})
	})
}

// checkHealth calls Check of grpc.health.v1.Health by a listener, and returns SERVING, NOT_SERVING or NOT_FOUND.
func checkHealth(ctx context.Context, address, service string) (string, error) {
	return withConn(ctx, address, func(ctx context.Context, conn *grpc.ClientConn) (string, error) {
		reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if status.Code(err) == codes.NotFound {
			return "NOT_FOUND", nil
		}
		return reply.GetStatus().String(), err
	})
}

// withConn makes a call with a connection to a listener.
func withConn[R any](ctx context.Context, address string, call func(context.Context, *grpc.ClientConn) (R, error)) (reply R, err error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(unverified)))
	if err != nil {
		return reply, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, conn)
}
