package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"healthgate/e2e/testbed"
)

// change is a line of `healthgate explain --watch --output json`.
type change struct {
	At                      time.Time
	Gate, Cluster, Host, To string
}

// what is what has changed, in a few words.
func (c change) what() string {
	switch {
	case c.Host != "":
		return "host " + c.Host
	case c.Cluster != "":
		return "cluster " + c.Cluster
	case c.Gate != "":
		gate, _, _ := strings.Cut(c.Gate, " (") // the listener is the only one
		return "gate " + gate
	}
	return "admin"
}

// counts are those of a change that is one of them.
func (c change) counts() (healthy, total int, ok bool) {
	if c.Cluster == "" || c.Host != "" {
		return 0, 0, false
	}
	degraded := 0
	n, _ := fmt.Sscanf(c.To, "%d healthy and %d degraded of %d hosts", &healthy, &degraded, &total)
	return healthy + degraded, total, n == 3
}

// lines prints lines in two columns, as they come.
type lines struct {
	mutex sync.Mutex
	table *tabwriter.Writer
}

// column is as wide as the longest name of what changes, with the time.
const column = len("06:54:41.2  host 127.0.0.1:65535") + 2

func newLines(out io.Writer) *lines {
	// The second cell is the last, so that only the first is made as wide as that.
	return &lines{table: tabwriter.NewWriter(out, column, 0, 2, ' ', 0)}
}

func (l *lines) print(at time.Time, what, text string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	fmt.Fprintf(l.table, "%s  %s\t%s\n", at.Local().Format("15:04:05.0"), what, text)
	l.table.Flush()
}

// command is the one that users have.
func command() string { return filepath.Join(testbed.Root(), "build", "healthgate") }

// watch runs `healthgate explain --watch` until the context ends, and calls tell for each change that it prints.
func (s *show) watch(ctx context.Context, interval time.Duration, tell func(change)) error {
	cmd := exec.CommandContext(ctx, command(), "explain", "--admin", s.admin, "--watch", "--interval", interval.String(), "--output", "json")
	// Ended with its parent, should that be killed; and not by the Ctrl-C that ends the parent in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w; run `make command` first", err)
	}
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		var c change
		if err := json.Unmarshal(scanner.Bytes(), &c); err != nil {
			cancelled := cmd.Cancel()
			return errors.Join(fmt.Errorf("explain printed %q: %w", scanner.Text(), err), cancelled, cmd.Wait())
		}
		tell(c)
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("healthgate explain: %w: %s", err, stderr.String())
	}
	return nil
}

// panicThreshold is what the reference configurations have as healthy_panic_threshold, in per cent.
const panicThreshold = 50

// panicking is why calls pass where a probe fails.
const panicking = "Envoy sends to all hosts, with under 50 % healthy"

// panics says whether Envoy sends to all hosts, healthy or not.
func panics(healthy, total int) bool { return 100*healthy < panicThreshold*total }

// calls makes a call where the counts say that Envoy sends to all hosts, and again when it no longer does, and says what came of it.
func (s *show) calls(ctx context.Context, l *lines, before bool, healthy, total int) (now bool) {
	now = panics(healthy, total)
	if now == before {
		return now
	}
	_, err := recommend(ctx, s.envoy.Ingress, s.tls)
	text := "still pass: " + panicking + " (healthy_panic_threshold)"
	if !now {
		text = "pass, and go to healthy hosts alone"
	}
	if err != nil {
		text = "fail: " + err.Error()
	}
	if ctx.Err() == nil {
		l.print(time.Now(), "gRPC calls", text)
	}
	return now
}
