package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"healthgate/internal/envoyadmin"
)

// adminFlag adds --admin, whose default the environment may say.
func adminFlag(command *cobra.Command) *string {
	address := os.Getenv("ADMIN_ADDRESS")
	if address == "" {
		address = envoyadmin.DefaultAddress
	}
	return command.Flags().String("admin", address, "where admin listens: host:port, or unix:///path; also ADMIN_ADDRESS")
}

// speaker prints lines, each of which begins with who speaks and is in the container's log too.
type speaker struct {
	who string
	out io.Writer
	log string // the container's log, a file; "" is none
}

func (s speaker) say(format string, args ...any) {
	line := fmt.Sprintf("healthgate: "+s.who+": "+format+"\n", args...)
	_, _ = io.WriteString(s.out, line)
	if s.log == "" {
		return
	}
	// A pipe that nobody reads any more is an error, and not to be waited for.
	if log, err := os.OpenFile(s.log, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0); err == nil {
		_, _ = io.WriteString(log, line)
		log.Close()
	}
}

// defaultLog is what the container's first process prints to. What a hook prints, Kubernetes throws away.
const defaultLog = "/proc/1/fd/1"

// logFlag adds --log, whose default the environment may say.
func logFlag(command *cobra.Command) *string {
	file := os.Getenv("CONTAINER_LOG")
	if file == "" {
		file = defaultLog
	}
	return command.Flags().String("log", file, "the container's log, in which each line it prints is too; also CONTAINER_LOG")
}

// unlessStdout returns the file, or "" where the command prints to it anyway or it is not there.
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
		Short: "Say whether Envoy's main thread answers, whatever the gate says: for livenessProbe",
		Long: `Say whether Envoy's main thread answers, whatever the backends and the gate say: for a livenessProbe or a startupProbe.
Restarting Envoy heals no backend. Where it does not answer, the reason is in the container's log too.`,
		Example: `  livenessProbe:
    exec: {command: [/usr/local/bin/healthgate, alive]}`,
		Args: adminIsAFlag,
	}
	address, log := adminFlag(command), logFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		admin, err := envoyadmin.New(*address)
		if err != nil {
			return err
		}
		if _, err := admin.ServerInfo(command.Context()); err != nil {
			speaker{"alive", command.ErrOrStderr(), unlessStdout(*log)}.say("%v", err)
			return errFound
		}
		return nil
	}
	return command
}

// What a drain waits for where nobody says.
const (
	defaultNotice = 30 * time.Second
	defaultFinish = 30 * time.Second
)

func newDrain() *cobra.Command {
	command := &cobra.Command{
		Use:   "drain",
		Short: "Fail the gate, let the balancer notice, let requests end: for preStop",
		Long: `Fail the gate, let the balancer notice, let clients go with their next reply, wait for requests to end: for a preStop hook.
SIGTERM comes after it. Each line it prints is in the container's log too: Kubernetes throws away what a hook prints.`,
		Example: `  lifecycle:
    preStop:
      exec: {command: [/usr/local/bin/healthgate, drain]}`,
		Args: adminIsAFlag,
	}
	address, log := adminFlag(command), logFlag(command)
	notice := command.Flags().Duration("notice", 0, "in which the balancer has to notice that the gate fails; also DRAIN_NOTICE_SECONDS (default 30s)")
	finish := command.Flags().Duration("finish", 0, "in which requests may end after that; also DRAIN_FINISH_SECONDS (default 30s)")
	command.RunE = func(command *cobra.Command, _ []string) (err error) {
		d := drain{notice: *notice, finish: *finish, speaker: speaker{"drain", command.OutOrStdout(), unlessStdout(*log)}}
		if d.admin, err = envoyadmin.New(*address); err != nil {
			return err
		}
		if err := bounded("--notice", d.notice); err != nil {
			return err
		}
		if err := bounded("--finish", d.finish); err != nil {
			return err
		}
		if !command.Flags().Changed("notice") {
			if d.notice, err = secondsFrom("DRAIN_NOTICE_SECONDS", defaultNotice); err != nil {
				return err
			}
		}
		if !command.Flags().Changed("finish") {
			if d.finish, err = secondsFrom("DRAIN_FINISH_SECONDS", defaultFinish); err != nil {
				return err
			}
		}
		return d.run(command.Context())
	}
	return command
}

// longest bounds what a drain waits for.
const longest = 24 * time.Hour

func bounded(flag string, d time.Duration) error {
	if d < 0 || d > longest {
		return fmt.Errorf("%s: %v is not from 0 to %v", flag, d, longest)
	}
	return nil
}

// secondsFrom reads seconds from the environment.
func secondsFrom(name string, byDefault time.Duration) (time.Duration, error) {
	value := os.Getenv(name)
	if value == "" {
		return byDefault, nil
	}
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || !(seconds >= 0 && seconds <= longest.Seconds()) {
		return 0, fmt.Errorf("%s: %q is no number of seconds from 0 to %.0f", name, value, longest.Seconds())
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// inSeconds renders a duration as it is configured.
func inSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

// drain ends an Envoy in order.
type drain struct {
	speaker
	admin          *envoyadmin.Client
	notice, finish time.Duration
}

const (
	drainLook = 200 * time.Millisecond
	// quietLooks is how many times in a row no request has to be there: for a second, so that a client between two calls has its
	// next, and with it the word to go.
	quietLooks = 5
)

// run fails the gate, and returns once Envoy may be ended.
func (d *drain) run(ctx context.Context) error {
	d.say("failing the gate, for the balancer to notice within %s", inSeconds(d.notice))
	_, err := d.admin.ServerInfo(ctx)
	if err == nil {
		err = d.admin.Post(ctx, "/healthcheck/fail")
	}
	if err != nil {
		d.say("%v: nothing is drained; ADMIN_ADDRESS says where admin is", err)
		return errFound
	}
	interrupted := !wait(ctx, d.notice)
	// Each connection is let go with its next reply (connection: close, GOAWAY), and not before the notice is over. Whoever ends the
	// drain early has clients told at least.
	if err := d.admin.Post(context.WithoutCancel(ctx), "/drain_listeners?graceful&skip_exit"); err != nil {
		d.say("%v: clients keep their connections", err)
	}
	if interrupted {
		d.say("told to end before the notice is over; %s", d.left(context.WithoutCancel(ctx)))
		return errFound
	}
	d.say("the notice is over, and clients are let go with their next reply; %s", d.left(ctx))
	return d.await(ctx)
}

// await waits until no request is left, and no longer than finish.
func (d *drain) await(ctx context.Context) error {
	quiet, blind := 0, false
	for until := time.Now().Add(d.finish); ; {
		n, known := d.active(ctx)
		switch {
		case ctx.Err() != nil:
			d.say("told to end before the %s are over; %s", inSeconds(d.finish), d.left(context.WithoutCancel(ctx)))
			return errFound
		case !known && !blind:
			blind = true
			d.say("can't see requests: no stat http.<stat_prefix>.downstream_rq_active (a stats matcher?); waiting all of %s", inSeconds(d.finish))
		case known && n == 0:
			quiet++
		default:
			quiet = 0
		}
		over := !time.Now().Before(until)
		switch {
		case quiet >= quietLooks, over && known && n == 0:
			d.say("no request is left")
			return nil
		case over && !known:
			d.say("the %s are over, and what is left is cut off", inSeconds(d.finish))
			return nil
		case over:
			d.say("%d requests are left after %s, and are cut off", n, inSeconds(d.finish))
			return nil
		}
		wait(ctx, drainLook)
	}
}

// wait says whether the whole time has passed.
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

// active returns how many requests are under way on all listeners but admin's, and whether a stat tells.
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

// left says how many requests are under way.
func (d *drain) left(ctx context.Context) string {
	n, known := d.active(ctx)
	if !known {
		return "requests can't be seen"
	}
	return fmt.Sprintf("%d requests are under way", n)
}

// adminIsAFlag tells whoever names admin as an argument, as explain takes it.
func adminIsAFlag(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument: write --admin %s", cmd.Name(), args[0])
	}
	return nil
}
