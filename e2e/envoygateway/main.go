// Command envoygateway runs manifests/overlays/envoy-gateway in a real Envoy Gateway, without containers: `make e2e-envoy-gateway`.
//
// It translates the overlay by egctl, compares the result with testdata/egctl.json, which the suite starts in a stock Envoy in every run,
// and runs a standalone Envoy Gateway (provider Custom, resources from files, Envoy as a process of the host). That needs a network
// namespace of its own, in which Envoy Gateway's fixed ports are free, and a process namespace, which ends all that was started.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"healthgate/e2e/testbed"
)

func main() {
	tools := flag.String("tools", "", "`folder` of egctl and envoy-gateway")
	translation := flag.String("translation", "compare", "`compare` egctl's translation with testdata/egctl.json, update that, or skip it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *tools, *translation); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, tools, translation string) error {
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
	s := &standalone{ctx: ctx, tools: tools, dir: dir}
	if s.envoyVersion, err = testbed.EnvoyVersion(); err != nil {
		return err
	}
	fmt.Printf("%s with Envoy %s: five minutes, 1 GB of memory\n", tools, s.envoyVersion)
	if translation != "skip" {
		began := time.Now()
		if err := s.compareTranslation(objects, translation == "update"); err != nil {
			return err
		}
		passed("egctl's translation of the overlay is as committed", began)
	}
	return s.run(objects)
}

// passed prints a step that went as it should, and how long it took.
func passed(what string, began time.Time) {
	fmt.Printf("ok  %6.1f s  %s\n", time.Since(began).Seconds(), what)
}

// committed returns a file in testdata: egctl.json, the translation, or overlay.sha256, the sum of the overlay that was translated.
func committed(name string) string {
	return filepath.Join(testbed.Root(), "e2e", "envoygateway", "testdata", name)
}

// translate has egctl translate objects to "xds" or "gateway-api".
func (s *standalone) translate(objects overlay, to string) ([]byte, error) {
	file, err := s.write("translated.yaml", objects.yaml())
	if err != nil {
		return nil, err
	}
	egctl := exec.CommandContext(s.ctx, filepath.Join(s.tools, "egctl"), "x", "translate", "--from=gateway-api", "--to="+to, "--output=json",
		"--file="+file)
	out, err := egctl.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("egctl: %w: %s", err, exit.Stderr)
	}
	return out, err
}

// compareTranslation fails unless egctl's translation of the overlay equals the committed one, which it can also replace.
func (s *standalone) compareTranslation(objects overlay, update bool) error {
	raw, err := s.translate(objects.forTranslation(), "xds")
	if err != nil {
		return err
	}
	var made bytes.Buffer
	if err := json.Indent(&made, raw, "", " "); err != nil {
		return err
	}
	if update {
		sum, err := overlaySum()
		if err == nil {
			err = os.WriteFile(committed("overlay.sha256"), []byte(sum+"\n"), 0o644)
		}
		if err == nil {
			err = os.WriteFile(committed("egctl.json"), made.Bytes(), 0o644)
		}
		return err
	}
	file, err := s.write("egctl.json", made.String())
	if err != nil {
		return err
	}
	if diff, err := exec.CommandContext(s.ctx, "diff", "-u", committed("egctl.json"), file).CombinedOutput(); err != nil {
		return fmt.Errorf("egctl translates the overlay into something else than is committed (make e2e-envoy-gateway UPDATE=1): %w:\n%s",
			err, diff)
	}
	return nil
}

// overlaySum returns a sum of the overlay's objects.
func overlaySum() (string, error) {
	objects, err := renderOverlay()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(objects.yaml()))), err
}
