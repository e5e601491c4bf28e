// Command envoygateway runs manifests/overlays/envoy-gateway in a real Envoy Gateway, without containers.
//
// It builds egctl and envoy-gateway from their Go module, translates the overlay by egctl, compares the result with testdata/egctl.json,
// and runs a standalone Envoy Gateway (provider Custom, resources from files, Envoy as a process of the host) in a network namespace.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"healthgate/e2e/testbed"
)

// pinned is the version of Envoy Gateway whose egctl has made testdata/egctl.json.
const pinned = "v1.9.1"

func main() {
	version := flag.String("version", pinned, "the `version` of Envoy Gateway")
	update := flag.Bool("update", false, "replace testdata/egctl.json by a new translation")
	inside := flag.Bool("inside", false, "internal: this process is in the network namespace")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *version, *update, *inside); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, version string, update, inside bool) error {
	t, err := find(version, inside)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "envoy-gateway")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	certificate, err := testbed.NewCertificate(dir)
	if err != nil {
		return err
	}
	objects, err := renderOverlay()
	if err != nil {
		return err
	}
	if objects, err = objects.inCluster(certificate); err != nil {
		return err
	}
	if inside {
		return t.runStandalone(ctx, dir, objects, certificate)
	}
	fmt.Printf("Envoy Gateway %s with Envoy %s: five minutes once it is built, 600 MB in build, 1 GB of memory\n", version, t.envoyVersion)
	if err := t.build(ctx); err != nil {
		return err
	}
	begun := time.Now()
	switch {
	case version != pinned:
		fmt.Printf("the translation is not compared: the committed one is by %s\n", pinned)
	case update:
		if err := t.update(ctx, dir, objects); err != nil {
			return err
		}
		passed("egctl's translation of the overlay is written to "+committed(), begun)
	default:
		if err := t.compare(ctx, dir, objects); err != nil {
			return err
		}
		passed("egctl's translation of the overlay is as committed", begun)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.CommandContext(ctx, self, "-inside", "-version", version)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.Env = append(os.Environ(), "ENVOY="+t.envoy)
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	if err := inNamespace(child).Run(); err != nil {
		return fmt.Errorf("in the network namespace: %w", err)
	}
	return nil
}

// passed prints a step that went as it should, and how long it took.
func passed(what string, begun time.Time) {
	fmt.Printf("ok  %6.1f s  %s\n", time.Since(begun).Seconds(), what)
}
