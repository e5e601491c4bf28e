package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"healthgate/e2e/testbed"
)

// committed returns the file with what egctl makes of the overlay, which the suite starts in a stock Envoy in every run.
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

// compare translates the overlay and compares the result with the committed one, or replaces that.
func (t *tools) compare(ctx context.Context, dir string, objects overlay, update bool) error {
	raw, err := t.egctlTranslate(ctx, dir, objects.forTranslation(), "xds")
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, raw, "", " "); err != nil {
		return err
	}
	made := indented.Bytes()
	if update {
		return os.WriteFile(committed(), made, 0o644)
	}
	want, err := os.ReadFile(committed())
	if err != nil {
		return err
	}
	if bytes.Equal(made, want) {
		return nil
	}
	file := filepath.Join(dir, "egctl.json")
	if err := os.WriteFile(file, made, 0o600); err != nil {
		return err
	}
	diff, _ := exec.CommandContext(ctx, "diff", "-u", committed(), file).CombinedOutput()
	return fmt.Errorf("egctl %s makes something else of the overlay than is committed: make e2e-envoy-gateway UPDATE=1\n%s", t.version, diff)
}
