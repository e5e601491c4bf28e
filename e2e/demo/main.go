// Command demo shows Healthgate in an Envoy with the reference configuration and three backends.
//
//	demo run     runs until Ctrl-C, and prints each change of an answer, a count or a host
//	demo script  plays a script that shows each answer; exits with 1 if a result is not the expected one
//	demo record  plays some steps of the script, and writes the output as an SVG
//	demo call    makes a gRPC call through a running Envoy
//	demo check   calls grpc.health.v1.Health of a running Envoy, like grpc_health_probe
//	demo cert    makes a self-signed certificate for localhost, to try the manifests
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"healthgate/e2e/testbed"
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
		return // Ctrl-C
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		cancel()
		os.Exit(1)
	}
}

func variantFlag(flags *flag.FlagSet) *string {
	return flags.String("variant", "plugin", "`variant`: plugin or module")
}

func cert(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("cert", flag.ExitOnError)
	dir := flags.String("dir", ".", "`folder` for tls.crt and tls.key")
	keep := flags.Bool("keep", false, "keep an existing certificate that is valid for another hour")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *keep && valid(*dir, time.Hour) {
		fmt.Printf("kept %s\n", filepath.Join(*dir, "tls.crt"))
		return nil
	}
	err := os.MkdirAll(*dir, 0o700)
	if err == nil {
		_, err = testbed.NewCertificate(*dir)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; it may belong to another user after a chown: remove it (sudo rm -r %s), and try again", err, *dir)
	}
	if err != nil {
		return err
	}
	fmt.Printf(`made %[1]s/tls.crt and %[1]s/tls.key, for localhost, valid for %[2]d days
  in a cluster: kubectl create secret tls envoy-tls --cert %[1]s/tls.crt --key %[1]s/tls.key
  in a container, where user 101 reads a copy of the key:
    sudo install -D --mode 0400 --owner 101 --group 101 %[1]s/tls.key /etc/healthgate/tls/tls.key
`, filepath.Clean(*dir), testbed.CertificateDays)
	return nil
}

// valid reports whether a folder has a certificate with its key that is valid for some time.
func valid(dir string, least time.Duration) bool {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	return err == nil && time.Now().Add(least).Before(pair.Leaf.NotAfter)
}
