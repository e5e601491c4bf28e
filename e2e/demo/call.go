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

// dial returns a client of a listener. It accepts any certificate, because the commands call and check do not have the demo's.
func dial(address string) (*grpc.ClientConn, error) {
	unverified := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(unverified))
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

func addressFlag(flags *flag.FlagSet) *string {
	return flags.String("address", "127.0.0.1:8443", "`host:port` of the listener")
}

// recommend makes a gRPC call, and returns the routes of the reply.
func recommend(ctx context.Context, address string) ([]int, error) {
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	munich := router.Point{Latitude: 48.137, Longitude: 11.575}
	routes, err := router.Recommend(ctx, conn, munich)
	if err == nil && len(routes) == 0 {
		err = errors.New("router.Router/Recommend returned no route")
	}
	return routes, err
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

// checkHealth calls Check of grpc.health.v1.Health, and returns SERVING, NOT_SERVING or NOT_FOUND.
func checkHealth(ctx context.Context, address, service string) (string, error) {
	conn, err := dial(address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if status.Code(err) == codes.NotFound {
		return "NOT_FOUND", nil
	}
	return reply.GetStatus().String(), err
}
