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

// unverified accepts any certificate, because these clients do not have the demo's.
var unverified = &tls.Config{InsecureSkipVerify: true}

func call(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	address := flags.String("address", "127.0.0.1:8443", "`host:port` of the listener")
	if err := flags.Parse(args); err != nil {
		return err
	}
	reply, err := recommend(ctx, *address, unverified)
	if err != nil {
		return err
	}
	fmt.Println(reply)
	return nil
}

// recommend makes a gRPC call, and returns a description of the reply.
func recommend(ctx context.Context, address string, config *tls.Config) (string, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	munich := &router.Point{Latitude: 48.137, Longitude: 11.575}
	reply, err := router.NewRouterClient(conn).Recommend(ctx, &router.RecommendRequest{Points: []*router.Point{munich}})
	if err != nil {
		return "", err
	}
	if len(reply.GetRoutes()) == 0 {
		return "", errors.New("router.Router/Recommend returned no route")
	}
	return fmt.Sprintf("router.Router/Recommend returned routes %v", reply.GetRoutes()), nil
}

func check(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("check", flag.ExitOnError)
	address := flags.String("address", "127.0.0.1:8443", "`host:port` of the listener")
	service := flags.String("service", "", "`service` to check; empty: all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	state, err := checkHealth(ctx, *address, *service, unverified)
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
func checkHealth(ctx context.Context, address, service string, config *tls.Config) (string, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
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
