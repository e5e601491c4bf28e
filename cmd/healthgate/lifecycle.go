package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"github.com/spf13/cobra"

	"healthgate/internal/envoyadmin"
)

// adminFlag adds --admin, whose default is ADMIN_ADDRESS.
func adminFlag(command *cobra.Command) *string {
	return command.Flags().String("admin", cmp.Or(os.Getenv("ADMIN_ADDRESS"), envoyadmin.DefaultAddress),
		"address of admin: host:port, or unix:///path; also ADMIN_ADDRESS")
}

// noArgument refuses arguments. The error says how to write admin's address.
func noArgument(command *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument: write --admin %s", command.Name(), args[0])
	}
	return nil
}

// reporter prints lines with the name of its command, also to the container's log.
type reporter struct {
	name string
	out  io.Writer
	log  string // the file of the container's log, or ""
}

func (r reporter) report(format string, args ...any) {
	line := fmt.Sprintf("healthgate: "+r.name+": "+format+"\n", args...)
	_, _ = io.WriteString(r.out, line)
	if r.log == "" {
		return
	}
	// A pipe without a reader is an error; it does not block.
	if log, err := os.OpenFile(r.log, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0); err == nil {
		_, _ = io.WriteString(log, line)
		log.Close()
	}
}

// logError logs an error that is not reported yet: Kubernetes may discard a hook's own output.
func (r reporter) logError(err *error) {
	if code := reported(0); *err != nil && !errors.As(*err, &code) {
		r.out = io.Discard
		r.report("%v", *err)
	}
}

// defaultLog is the standard output of the container's first process. Kubernetes discards a hook's own output.
const defaultLog = "/proc/1/fd/1"

// logFlag adds --log, whose default is CONTAINER_LOG.
func logFlag(command *cobra.Command) *string {
	return command.Flags().String("log", cmp.Or(os.Getenv("CONTAINER_LOG"), defaultLog),
		"the container's log, which gets each line too; also CONTAINER_LOG")
}

// unlessStdout returns a file's name, or "" if it is the command's own output or does not exist.
func unlessStdout(file string) string {
	log, err := os.Stat(file)
	if err != nil {
		return ""
	}
	if own, err := os.Stdout.Stat(); err == nil && os.SameFile(log, own) {
		return ""
	}
	return file
}

func newAlive() *cobra.Command {
	command := &cobra.Command{
		Use:   "alive",
		Short: "Check that Envoy's main thread answers: for livenessProbe",
		Long: `Check that Envoy's main thread answers, whatever the state of the backends: for a livenessProbe or a startupProbe. A
restart of Envoy does not help a backend. If Envoy does not answer, the exit code is 2 and the container's log has the reason too.`,
		Example: `  livenessProbe:
    exec: {command: [/usr/local/bin/healthgate, alive]}`,
		Args: noArgument,
	}
	address, log := adminFlag(command), logFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) (err error) {
		r := reporter{"alive", command.ErrOrStderr(), unlessStdout(*log)}
		defer r.logError(&err)
		admin, err := envoyadmin.New(*address)
		if err != nil {
			return err
		}
		if _, err := admin.ServerInfo(command.Context()); err != nil {
			r.report("%v", err)
			return reported(exitFailed)
		}
		return nil
	}
	return command
}

// The default times of a drain.
const (
	defaultDelay   = 30 * time.Second
	defaultTimeout = 30 * time.Second
)

func newDrain() *cobra.Command {
	command := &cobra.Command{
		Use:   "drain",
		Short: "Fail the gate, keep serving for the delay, let requests end: for preStop",
		Long: `Fail the gate, keep serving for --delay until the balancer has removed this Envoy, close each connection after its next reply, and
wait up to --timeout for requests to end: for a preStop hook, after which Kubernetes sends SIGTERM. Only a restart of Envoy ends the
drain.

The container's log gets each line too, because Kubernetes discards a hook's output. The exit code is 0 after the drain (it prints
how many requests are then cut off), 1 if it was interrupted, 2 if admin did not answer.`,
		Example: `  lifecycle:
    preStop:
      exec: {command: [/usr/local/bin/healthgate, drain, --delay, 60s, --timeout, 120s]}`,
		Args: noArgument,
	}
	address, log := adminFlag(command), logFlag(command)
	delay := command.Flags().Duration("delay", defaultDelay, "how long Envoy keeps serving after the gate fails; also DRAIN_DELAY")
	timeout := command.Flags().Duration("timeout", defaultTimeout, "how long requests may take to end after that; also DRAIN_TIMEOUT")
	command.RunE = func(command *cobra.Command, _ []string) (err error) {
		d := drain{reporter: reporter{"drain", command.OutOrStdout(), unlessStdout(*log)}}
		defer d.logError(&err)
		if d.admin, err = envoyadmin.New(*address); err != nil {
			return err
		}
		if d.delay, err = durationOf(command, "delay", *delay, "DRAIN_DELAY"); err != nil {
			return err
		}
		if d.timeout, err = durationOf(command, "timeout", *timeout, "DRAIN_TIMEOUT"); err != nil {
			return err
		}
		return d.run(command.Context())
	}
	return command
}

// longest is the limit of a drain's times.
const longest = 24 * time.Hour

// durationOf returns a flag's value if it was given, else the environment's, else the default.
func durationOf(command *cobra.Command, flag string, value time.Duration, variable string) (time.Duration, error) {
	name := "--" + flag
	if text := os.Getenv(variable); text != "" && !command.Flags().Changed(flag) {
		var err error
		if value, err = time.ParseDuration(text); err != nil {
			return 0, fmt.Errorf("%s: %q is not a duration, as in 30s", variable, text)
		}
		name = variable
	}
	if value < 0 || value > longest {
		return 0, fmt.Errorf("%s: %v is not from 0s to %v", name, value, longest)
	}
	return value, nil
}

// drain drains one Envoy.
type drain struct {
	reporter
	admin          admin
	delay, timeout time.Duration
}

// admin is the part of Envoy's admin interface that a drain needs.
type admin interface {
	ServerInfo(ctx context.Context) (*adminv3.ServerInfo, error)
	Post(ctx context.Context, path string) error
	Stats(ctx context.Context, pattern string) (map[string]uint64, error)
}

const (
	drainPoll = 200 * time.Millisecond
	// quietPolls is the number of polls in a row without a request that end the drain: in that second a client that is between two requests
	// sends its next, whose reply closes the connection.
	quietPolls = 5
)

// run drains Envoy, and returns when Envoy may end.
func (d *drain) run(ctx context.Context) error {
	d.report("failing the gate; Envoy keeps serving for %v", d.delay)
	_, err := d.admin.ServerInfo(ctx)
	if err == nil {
		err = d.admin.Post(ctx, "/healthcheck/fail")
	}
	switch {
	case err != nil && ctx.Err() != nil:
		d.report("interrupted before the gate fails: nothing is drained")
		return reported(exitProblems)
	case err != nil:
		d.report("%v: nothing is drained", err)
		return reported(exitFailed)
	}
	interrupted := !wait(ctx, d.delay)
	// From now on Envoy closes connections after their next reply (connection: close, GOAWAY).
	closing := d.admin.Post(context.WithoutCancel(ctx), "/drain_listeners?graceful&skip_exit")
	if closing != nil {
		d.report("%v: clients keep their connections", closing)
	}
	if interrupted {
		d.report("interrupted before the delay is over; %s", d.left(context.WithoutCancel(ctx)))
		return reported(exitProblems)
	}
	d.report("the delay is over; connections are closed after their next reply; %s", d.left(ctx))
	if err := d.await(ctx); err != nil {
		return err
	}
	if closing != nil {
		return reported(exitFailed)
	}
	return nil
}

// await waits until no request is left, or the timeout is over.
func (d *drain) await(ctx context.Context) error {
	quiet, blind := 0, false
	for until := time.Now().Add(d.timeout); ; {
		n, known := d.active(ctx)
		switch {
		case ctx.Err() != nil:
			d.report("interrupted before the timeout of %v; %s", d.timeout, d.left(context.WithoutCancel(ctx)))
			return reported(exitProblems)
		case !known && !blind:
			blind = true
			d.report("requests are not visible: no stat http.<stat_prefix>.downstream_rq_active (a stats matcher?); waiting for all of %v",
				d.timeout)
		case known && n == 0:
			quiet++
		default:
			quiet = 0
		}
		over := !time.Now().Before(until)
		switch {
		case quiet >= quietPolls, over && known && n == 0:
			d.report("no request is left")
			return nil
		case over && !known:
			d.report("the timeout of %v is over; requests that are left are cut off", d.timeout)
			return nil
		case over:
			d.report("%s left after the timeout of %v, and cut off", requestsAre(n), d.timeout)
			return nil
		}
		wait(ctx, drainPoll)
	}
}

// wait waits, and reports whether the whole time has passed.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// active returns the number of active requests on all listeners but admin's, and whether it is known.
func (d *drain) active(ctx context.Context) (n uint64, known bool) {
	stats, err := d.admin.Stats(ctx, `^http\..*\.downstream_rq_active$`)
	if err != nil {
		return 0, false
	}
	for name, value := range stats {
		if strings.HasPrefix(name, "http.") && !strings.HasPrefix(name, "http.admin.") {
			n, known = n+value, true
		}
	}
	return n, known
}

// left describes the number of active requests.
func (d *drain) left(ctx context.Context) string {
	n, known := d.active(ctx)
	if !known {
		return "requests are not visible"
	}
	return requestsAre(n) + " under way"
}

func requestsAre(n uint64) string {
	if n == 1 {
		return "1 request is"
	}
	return fmt.Sprint(n, " requests are")
}
