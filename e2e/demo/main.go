// Command demo shows Healthgate in an Envoy with the reference configuration and three backends.
//
//	demo run     runs until Ctrl-C, and prints each change of an answer, a count or a host
//	demo script  plays a script that shows each answer; exits with 1 if a result is not the expected one
//	demo call    makes a gRPC call through a running Envoy
//	demo check   calls grpc.health.v1.Health of a running Envoy, like grpc_health_probe
//	demo cert    makes a self-signed certificate for localhost, to try the manifests
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	commands := map[string]func(context.Context, *flag.FlagSet, []string) error{
		"run": run, "script": script, "call": call, "check": check, "cert": cert,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: demo run | script | call | check | cert [flags]")
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := commands[os.Args[1]](ctx, flag.NewFlagSet(os.Args[1], flag.ExitOnError), os.Args[2:])
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return // Ctrl-C
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		cancel()
		os.Exit(1)
	}
}
