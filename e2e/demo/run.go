package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"

	"healthgate/e2e/testbed"
)

func run(ctx context.Context, flags *flag.FlagSet, args []string) error {
	variant := variantFlag(flags)
	httpsPort := flags.Int("https-port", 8443, "`port` of the listener")
	adminPort := flags.Int("admin-port", 9901, "`port` of the admin interface")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := checkPorts(*variant, port{*httpsPort, "https", "HTTPS_PORT"}, port{*adminPort, "admin", "ADMIN_PORT"}); err != nil {
		return err
	}
	fmt.Println("starting three backends and Envoy")
	return withDemo(ctx, options{*variant, *httpsPort, *adminPort, "1s"}, func(d *demo) error {
		d.describe()
		return d.watch(ctx)
	})
}

// port is a port that the user can choose.
type port struct {
	number   int
	what     string
	variable string // of make
}

// checkPorts returns an error that names the ports in use, and a command with other ports. Envoy itself would share a port with another
// Envoy.
func checkPorts(variant string, ports ...port) error {
	var reasons []string
	try := "make run"
	if variant != "plugin" {
		try += " VARIANT=module"
	}
	for _, p := range ports {
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", p.number))
		if err == nil {
			listener.Close()
			continue
		}
		why := err.Error()
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			why = "is in use"
		case errors.Is(err, syscall.EACCES):
			why = "needs more rights"
		}
		reasons = append(reasons, fmt.Sprintf("port %d (%s) %s", p.number, p.what, why))
		other, err := testbed.UnusedAddress()
		if err != nil {
			return err
		}
		try += fmt.Sprintf(" %s=%d", p.variable, other.Port)
	}
	if reasons == nil {
		return nil
	}
	return fmt.Errorf("%s; try: %s", strings.Join(reasons, ", "), try)
}

// watch prints each change as explain reports it, until Ctrl-C, or until Envoy ends, which is an error.
func (d *demo) watch(ctx context.Context) error {
	watching, cancel := context.WithCancelCause(ctx)
	go func() {
		cancel(fmt.Errorf("envoy ended: %v; its log is in %s", d.Envoy.Wait(math.MaxInt64), d.log))
	}()
	cmd := exec.CommandContext(watching, command(), "explain", "--admin", d.admin, "--watch", "--interval", "200ms")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// It ends if this process is killed; it does not get the Ctrl-C of this process, which ends it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Run(); ctx.Err() == nil {
		return cmp.Or(context.Cause(watching), fmt.Errorf("healthgate explain ended: %w", err))
	}
	fmt.Println("\nending")
	return nil
}

// describe prints the addresses, and commands to try.
func (d *demo) describe() {
	fmt.Printf("\n%s\n\n", d.title)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  listener\thttps://%s/\n  admin\thttp://%s/\n  log\t%s\n", d.Envoy.Ingress, d.admin, d.log)
	var ports []string
	for i, backend := range d.Backends {
		fmt.Fprintf(table, "  backend %d\tgRPC %s, control http://%s/\n", i+1, backend.Address, backend.Control)
		ports = append(ports, strings.TrimPrefix(backend.Control, "127.0.0.1:"))
	}
	table.Flush()
	all := fmt.Sprintf("http://127.0.0.1:{%s}", strings.Join(ports, ","))
	fmt.Print("\nTry in another terminal:\n")
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
	fmt.Printf("\nCalls succeed also while no backend is healthy: %s.\n", whyInPanic)
	fmt.Print("Ctrl-C ends everything. Changes, as `healthgate explain --watch` reports them:\n\n")
}
