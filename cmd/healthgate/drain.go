package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/spf13/cobra"

	"healthgate/internal/envoyadmin"
)

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
		Args: noArgument("admin"),
	}
	connect, file := adminFlag(command), logFlag(command)
	command.Flags().Duration("delay", defaultDelay, "how long Envoy keeps serving after the gate fails; also DRAIN_DELAY")
	command.Flags().Duration("timeout", defaultTimeout, "how long requests may take to end after that; also DRAIN_TIMEOUT")
	command.RunE = func(command *cobra.Command, _ []string) error {
		return logged(command, command.OutOrStdout(), containerLog(*file), func(log *log.Logger) (err error) {
			d := drain{Logger: log}
			if d.admin, err = connect(); err != nil {
				return err
			}
			if d.delay, err = durationOf(command, "delay", "DRAIN_DELAY"); err != nil {
				return err
			}
			if d.timeout, err = durationOf(command, "timeout", "DRAIN_TIMEOUT"); err != nil {
				return err
			}
			return d.run(command.Context())
		})
	}
	return command
}

// longest is the limit of a drain's times.
const longest = 24 * time.Hour

// durationOf returns a flag's value if it was given, else the environment's, else the default.
func durationOf(command *cobra.Command, flag, variable string) (time.Duration, error) {
	name := "--" + flag
	value, err := command.Flags().GetDuration(flag)
	if text := os.Getenv(variable); text != "" && !command.Flags().Changed(flag) {
		name = variable
		if value, err = time.ParseDuration(text); err != nil {
			return 0, fmt.Errorf("%s: %q is not a duration, as in 30s", variable, text)
		}
	}
	if value < 0 || value > longest {
		return 0, fmt.Errorf("%s: %v is not from 0s to %v", name, value, longest)
	}
	return value, err
}

// drain drains one Envoy.
type drain struct {
	*log.Logger
	admin          *envoyadmin.Client
	delay, timeout time.Duration
}

const (
	drainPoll = 200 * time.Millisecond
	// quietPolls is the number of polls in a row without a request that end the drain: in that second a client that is between two requests
	// sends its next, whose reply closes the connection.
	quietPolls = 5
)

// run drains Envoy, and returns when Envoy may end.
func (d *drain) run(ctx context.Context) error {
	d.Printf("failing the gate; Envoy keeps serving for %v", d.delay)
	_, err := d.admin.ServerInfo(ctx)
	if err == nil {
		err = d.admin.Post(ctx, "/healthcheck/fail")
	}
	switch {
	case err != nil && ctx.Err() != nil:
		d.Print("interrupted before the gate fails: nothing is drained")
		return reported(exitProblems)
	case err != nil:
		d.Printf("%v: nothing is drained", err)
		return reported(exitFailed)
	}
	interrupted := !envoyadmin.Wait(ctx, d.delay)
	// From now on Envoy closes connections after their next reply (connection: close, GOAWAY).
	closing := d.admin.Post(context.WithoutCancel(ctx), "/drain_listeners?graceful&skip_exit")
	if closing != nil {
		d.Printf("%v: clients keep their connections", closing)
	}
	if interrupted {
		return d.interrupted(ctx, "before the delay is over")
	}
	d.Printf("the delay is over; connections are closed after their next reply; %s", d.left(ctx))
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
	for until := time.Now().Add(d.timeout); ; envoyadmin.Wait(ctx, drainPoll) {
		n, known := d.active(ctx)
		switch {
		case ctx.Err() != nil:
			return d.interrupted(ctx, fmt.Sprintf("before the timeout of %v", d.timeout))
		case !known && !blind:
			blind = true
			d.Printf("requests are not visible: no stat http.<stat_prefix>.downstream_rq_active (a stats matcher?); waiting for all of %v",
				d.timeout)
		case known && n == 0:
			quiet++
		default:
			quiet = 0
		}
		over := !time.Now().Before(until)
		switch {
		case quiet >= quietPolls, over && known && n == 0:
			d.Print("no request is left")
			return nil
		case over && !known:
			d.Printf("the timeout of %v is over; requests that are left are cut off", d.timeout)
			return nil
		case over:
			d.Printf("%s left after the timeout of %v, and cut off", requestsAre(n), d.timeout)
			return nil
		}
	}
}

func (d *drain) interrupted(ctx context.Context, when string) error {
	d.Printf("interrupted %s; %s", when, d.left(context.WithoutCancel(ctx)))
	return reported(exitProblems)
}

// active returns the number of active requests on all listeners but admin's, and whether it is known.
func (d *drain) active(ctx context.Context) (n uint64, known bool) {
	stats, err := d.admin.Stats(ctx, `^http\..*\.downstream_rq_active$`)
	if err != nil {
		return 0, false
	}
	return envoyadmin.Requests(stats, "downstream_rq_active")
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
