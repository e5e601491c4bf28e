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

// subject returns the name of the changed gate, cluster or host.
func (c change) subject() string {
	switch {
	case c.Host != "":
		return "host " + c.Host
	case c.Cluster != "":
		return "cluster " + c.Cluster
	case c.Gate != "":
		gate, _, _ := strings.Cut(c.Gate, " (") // without the name of the listener, which is the only one
		return "gate " + gate
	}
	return "admin"
}

// counts returns the host counts of a cluster, if the change is one of these.
func (c change) counts() (healthy, total int, ok bool) {
	if c.Cluster == "" || c.Host != "" {
		return 0, 0, false
	}
	degraded := 0
	n, _ := fmt.Sscanf(c.To, "%d healthy and %d degraded of %d hosts", &healthy, &degraded, &total)
	return healthy + degraded, total, n == 3
}

// lines prints lines in two columns.
type lines struct {
	mutex sync.Mutex
	table *tabwriter.Writer
}

// column is the width of the longest subject with its time.
const column = len("06:54:41.2  host 127.0.0.1:65535") + 2

func newLines(out io.Writer) *lines {
	return &lines{table: tabwriter.NewWriter(out, column, 0, 2, ' ', 0)}
}

func (l *lines) print(at time.Time, what, text string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	fmt.Fprintf(l.table, "%s  %s\t%s\n", at.Local().Format("15:04:05.0"), what, text)
	l.table.Flush()
}

// command returns the path of the command.
func command() string { return filepath.Join(testbed.Root(), "build", "healthgate") }

// watch runs `healthgate explain --watch` until the context ends, and calls report for each change.
func (d *demo) watch(ctx context.Context, interval time.Duration, report func(change)) error {
	cmd := exec.CommandContext(ctx, command(), "explain", "--admin", d.admin, "--watch", "--interval", interval.String(), "--output", "json")
	// Ends if this process is killed; does not receive the Ctrl-C of this process, which ends it in order.
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
		report(c)
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("healthgate explain: %w: %s", err, stderr.String())
	}
	return nil
}

// panicThreshold is healthy_panic_threshold of the reference configurations, in per cent.
const panicThreshold = 50

// whyInPanic is why calls succeed while probes fail.
const whyInPanic = "Envoy sends to all hosts if less than 50 % are healthy"

// inPanic reports whether Envoy sends to all hosts, healthy or not.
func inPanic(healthy, total int) bool { return 100*healthy < panicThreshold*total }
