package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// watchInterval is how often a demo looks for changes.
const watchInterval = 200 * time.Millisecond

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	variant := variantFlag(flags)
	httpsPort := flags.Int("https-port", 8443, "`port` of the listener")
	adminPort := flags.Int("admin-port", 9901, "`port` of the admin interface")
	if err := flags.Parse(args); err != nil {
		return err
	}
	err = checkPorts(*variant, port{*httpsPort, "https", "HTTPS_PORT"}, port{*adminPort, "admin", "ADMIN_PORT"})
	if err != nil {
		return err
	}
	fmt.Println("starting three backends and Envoy")
	d, err := start(ctx, options{*variant, *httpsPort, *adminPort, "1s"})
	defer func() { d.end(err) }()
	if err != nil {
		return err
	}
	d.describe(os.Stdout)
	ended := make(chan error, 1)
	watching, cancel := context.WithCancel(ctx)
	go func() { ended <- d.printChanges(watching, newLines(os.Stdout)) }()
	err = d.await(ctx)
	cancel()
	return errors.Join(err, <-ended)
}

// await returns when the user presses Ctrl-C, or with an error when Envoy ends.
func (d *demo) await(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for d.Envoy.Alive() {
		select {
		case <-ctx.Done():
			fmt.Println("\nending")
			return nil
		case <-tick.C:
		}
	}
	return errors.New("envoy ended; its log is in " + d.log())
}

// printChanges prints each change, and how gRPC calls fare when Envoy begins or stops to send to unhealthy hosts.
func (d *demo) printChanges(ctx context.Context, l *lines) error {
	before := false
	return d.watch(ctx, watchInterval, func(c change) {
		l.print(c.At, c.subject(), c.To)
		healthy, total, ok := c.counts()
		if !ok || inPanic(healthy, total) == before {
			return
		}
		before = !before
		_, err := recommend(ctx, d.Envoy.Ingress, d.tls)
		text := "succeed, and go to healthy hosts only"
		switch {
		case err != nil:
			text = "fail: " + err.Error()
		case before:
			text = "still succeed: " + whyInPanic + " (healthy_panic_threshold)"
		}
		if ctx.Err() == nil {
			l.print(time.Now(), "gRPC calls", text)
		}
	})
}

// describe prints the addresses, and commands to try.
func (d *demo) describe(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n\n", d.title())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintf(table, "  listener\thttps://%s/\n  admin\thttp://%s/\n  log\t%s\n", d.Envoy.Ingress, d.admin, d.log())
	var ports []string
	for i, backend := range d.Backends {
		fmt.Fprintf(table, "  backend %d\tgRPC %s, control http://%s/\n", i+1, backend.Address, backend.Control)
		_, port, _ := strings.Cut(backend.Control, ":")
		ports = append(ports, port)
	}
	table.Flush()
	all := fmt.Sprintf("http://127.0.0.1:{%s}", strings.Join(ports, ","))
	fmt.Fprint(out, "\nTry in another terminal:\n")
	for _, command := range [][2]string{
		{"curl -ik https://" + d.Envoy.Ingress, "send a probe"},
		{"build/healthgate explain --admin " + d.admin, "explain the answer"},
		{"curl -k -H 'accept: application/json' https://" + d.Envoy.Ingress, "send a probe that accepts a report"},
		{"build/demo call -address " + d.Envoy.Ingress, "make a gRPC call through the same listener"},
		{"build/demo check -address " + d.Envoy.Ingress, "call grpc.health.v1.Health, which the module answers"},
		{"curl -X POST http://" + d.Backends[0].Control + "/not-serving", "make one backend unhealthy; undo: /serving"},
		{"curl -X POST '" + all + "/not-serving'", "make all backends unhealthy; undo: '" + all + "/serving'"},
		{"curl -X POST http://" + d.admin + "/healthcheck/fail", "drain; undo: /healthcheck/ok"},
		{"curl -s 'http://" + d.admin + "/stats?filter=healthgate'", "show the metrics"},
	} {
		if d.Variant.Name() != "module" && strings.HasPrefix(command[0], "build/demo check") {
			continue // Envoy would route it to a backend
		}
		fmt.Fprintf(table, "  %s\t%s\n", command[0], command[1])
	}
	table.Flush()
	fmt.Fprint(out, "\nCtrl-C ends everything. Changes, as `healthgate explain --watch` reports them:\n\n")
}
