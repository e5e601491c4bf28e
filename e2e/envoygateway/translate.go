package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"healthgate/e2e/testbed"
)

// committed returns the file of the committed translation, which the suite starts in a stock Envoy in every run.
func committed() string {
	return filepath.Join(testbed.Root(), "e2e", "envoygateway", "testdata", "egctl.json")
}

// egctlTranslate has egctl translate objects to "xds" or "gateway-api".
func (t *tools) egctlTranslate(ctx context.Context, dir string, objects overlay, to string) ([]byte, error) {
	text, err := objects.yaml()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "overlay.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, t.egctl, "x", "translate", "--from", "gateway-api", "--to", to, "--output", "json", "--file", file)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("egctl: %w: %s", err, stderr.String())
	}
	return out, nil
}

// translated returns egctl's translation of the overlay, in the form that is committed.
func (t *tools) translated(ctx context.Context, dir string, objects overlay) ([]byte, error) {
	raw, err := t.egctlTranslate(ctx, dir, objects.forTranslation(), "xds")
	if err != nil {
		return nil, err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, raw, "", " "); err != nil {
		return nil, err
	}
	return indented.Bytes(), nil
}

// compare fails unless egctl's translation of the overlay equals the committed one.
func (t *tools) compare(ctx context.Context, dir string, objects overlay) error {
	made, err := t.translated(ctx, dir, objects)
	if err != nil {
		return err
	}
	want, err := os.ReadFile(committed())
	if err != nil || bytes.Equal(made, want) {
		return err
	}
	file := filepath.Join(dir, "egctl.json")
	if err := os.WriteFile(file, made, 0o600); err != nil {
		return err
	}
	diff, _ := exec.CommandContext(ctx, "diff", "-u", committed(), file).CombinedOutput()
	return fmt.Errorf("egctl %s translates the overlay into something else than is committed (make e2e-envoy-gateway UPDATE=1):\n%s",
		t.version, diff)
}

// update replaces the committed translation.
func (t *tools) update(ctx context.Context, dir string, objects overlay) error {
	made, err := t.translated(ctx, dir, objects)
	if err != nil {
		return err
	}
	if err := os.WriteFile(committed(), made, 0o644); err != nil {
		return err
	}
	sum, err := overlaySum()
	if err != nil {
		return err
	}
	return os.WriteFile(sumFile(), []byte(sum+"\n"), 0o644)
}

// sumFile returns the file with the sum of the translated overlay.
func sumFile() string { return filepath.Join(filepath.Dir(committed()), "overlay.sha256") }

// overlaySum returns a sum of the overlay's objects.
func overlaySum() (string, error) {
	objects, err := renderOverlay()
	if err != nil {
		return "", err
	}
	text, err := objects.yaml()
	return fmt.Sprintf("%x", sha256.Sum256(text)), err
}
