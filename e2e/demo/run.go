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

// looks is how often a demo looks at what has changed.
const looks = 200 * time.Millisecond

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	way := variantFlag(flags)
	httpsPort := flags.Int("https-port", 8443, "`port` of the listener")
	adminPort := flags.Int("admin-port", 9901, "`port` of admin")
	if err := flags.Parse(args); err != nil {
		return err
	}
	err = checkPorts(*way, port{*httpsPort, "https", "HTTPS_PORT"}, port{*adminPort, "admin", "ADMIN_PORT"})
	if err != nil {
		return err
	}
	fmt.Println("starting three backends and Envoy")
	s, err := start(ctx, options{*way, *httpsPort, *adminPort, "1s"})
	defer func() { s.end(err) }()
	if err != nil {
		return err
	}
	s.describe(os.Stdout)
	ended := make(chan error, 1)
	watching, cancel := context.WithCancel(ctx)
	go func() { ended <- s.tell(watching, newLines(os.Stdout)) }()
	err = s.await(ctx)
	cancel()
	return errors.Join(err, <-ended)
}

// await returns when the user has had enough, or with an error when Envoy has ended.
func (s *show) await(ctx context.Context) error {
	tick := time.NewTicker(looks)
	defer tick.Stop()
	for s.envoy.Alive() {
		select {
		case <-ctx.Done():
			fmt.Println("\nending")
			return nil
		case <-tick.C:
		}
	}
	return errors.New("envoy has ended; its log is in " + s.log())
}

// tell prints each change, and what becomes of calls.
func (s *show) tell(ctx context.Context, l *lines) error {
	before := false
	return s.watch(ctx, looks, func(c change) {
		l.print(c.At, c.what(), c.To)
		if healthy, total, ok := c.counts(); ok {
			before = s.calls(ctx, l, before, healthy, total)
		}
	})
}

// describe says where everything is, and what to try.
func (s *show) describe(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n\n", s.title())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintf(table, "  listener\thttps://%s/\n  admin\thttp://%s/\n  log\t%s\n", s.envoy.Ingress, s.admin, s.log())
	var controls, ports []string
	for i, backend := range s.backends {
		fmt.Fprintf(table, "  backend %d\tgRPC %s, control http://%s/\n", i+1, backend.Address, backend.Control)
		host, port, _ := strings.Cut(backend.Control, ":")
		controls, ports = append(controls, host), append(ports, port)
	}
	table.Flush()
	all := fmt.Sprintf("http://%s:{%s}", controls[0], strings.Join(ports, ","))
	fmt.Fprint(out, "\ntry, in another terminal:\n")
	for _, try := range [][2]string{
		{"curl -ik https://" + s.envoy.Ingress, "the probe"},
		{"build/healthgate explain --admin " + s.admin, "why it is answered so"},
		{"curl -k -H 'accept: application/json' https://" + s.envoy.Ingress, "the probe, with a report"},
		{"build/demo call -address " + s.envoy.Ingress, "a gRPC call through the same listener"},
		{"build/demo check -address " + s.envoy.Ingress, "grpc.health.v1.Health, answered at the edge"},
		{"curl -X POST http://" + s.backends[0].Control + "/not-serving", "one backend is unhealthy; /serving brings it back"},
		{"curl -X POST '" + all + "/not-serving'", "all backends are; '" + all + "/serving' brings them back"},
		{"curl -X POST http://" + s.admin + "/healthcheck/fail", "fail the health checks; /healthcheck/ok ends it"},
		{"curl -s 'http://" + s.admin + "/stats?filter=healthgate'", "the metrics"},
	} {
		if s.variant.Name() != "module" && strings.HasPrefix(try[0], "build/demo check") {
			continue // it would ask one backend
		}
		fmt.Fprintf(table, "  %s\t%s\n", try[0], try[1])
	}
	table.Flush()
	fmt.Fprint(out, "\nCtrl-C ends all of it. From now on, each change as `healthgate explain --watch` tells it:\n\n")
}
