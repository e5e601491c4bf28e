// Command kubernetes restarts, kills and drains Envoy and the service in a real cluster under load, and reports which calls failed.
//
//	kubernetes run   applies the overlay local to a cluster, runs all tasks, prints a table, and deletes the namespace
//	kubernetes load  sends the load, in a pod of the cluster, and prints its counts; `run` starts it
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	commands := map[string]func(context.Context, []string) error{"run": run, "load": sendLoad}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: kubernetes run | load [flags]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		stop()
		os.Exit(1)
	}
}
