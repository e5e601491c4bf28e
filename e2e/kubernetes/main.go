// Command kubernetes rolls, kills and drains Envoy and the service in a real cluster, under load, and tells which calls failed.
//
//	kubernetes run    applies an overlay to a cluster, does it all, and prints a table; it takes away what it has made
//	kubernetes load   the load, in a pod of the cluster; `run` starts it
//	kubernetes counts prints what the load has counted, in its pod
//
// The files, by question:
//
//	run.go       what is done, and what must hold
//	cluster.go   what kubectl is told, and what the cluster says
//	load.go      the calls of each load
//	balancer.go  which Envoy a balancer with checks of its own sends to
//	endpoints.go which Envoys there are
//	table.go     what has come of it
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	commands := map[string]func(context.Context, []string) error{"run": run, "load": serveLoad, "counts": printCounts}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: kubernetes run | load | counts [flags]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		stop()
		os.Exit(1)
	}
}
