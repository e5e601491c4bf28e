// Command demo shows Healthgate at work: three backends, and Envoy in front with the reference configuration.
//
//	demo run     until Ctrl-C; says each time an answer, a count or a host changes
//	demo script  goes through the answers and ends, with 1 where one is not as it should be
//	demo record  does that, and writes what it printed as an SVG
//	demo call    makes a gRPC call through a running Envoy
//	demo check   asks a running Envoy for grpc.health.v1.Health, as grpc_health_probe does
//	demo cert    makes a self-signed certificate for localhost, for a try-out
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"healthgate/e2e/bed"
)

func main() {
	commands := map[string]func(context.Context, []string) error{
		"run": run, "script": script, "record": record, "call": call, "check": check, "cert": cert,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: demo run | script | record | call | check | cert [flags]")
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := commands[os.Args[1]](ctx, os.Args[2:])
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return // whoever pressed Ctrl-C knows
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		cancel()
		os.Exit(1)
	}
}

// doorFlag adds -door.
func doorFlag(flags *flag.FlagSet) *string {
	return flags.String("door", "contrib", "the `way` into Envoy: contrib or stock")
}

func cert(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("cert", flag.ExitOnError)
	dir := flags.String("dir", ".", "`folder` for tls.crt and tls.key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	certificate, err := bed.NewCertificate(*dir)
	if err != nil {
		return err
	}
	fmt.Printf(`made %[1]s and %[2]s, for localhost and a day
  a cluster   kubectl create secret tls envoy-tls --cert %[1]s --key %[2]s
  a container reads them as user 101: sudo chown -R 101:101 %[3]s
`, certificate.CertFile, certificate.KeyFile, filepath.Dir(certificate.KeyFile))
	return nil
}
