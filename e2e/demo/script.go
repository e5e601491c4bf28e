package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"healthgate/e2e/testbed"
)

// step is a step of the script, with its expected result.
type step struct {
	what    string
	do      func(*demo) error
	status  int // of the probe
	healthy int // hosts
}

// steps are the script.
var steps = []step{
	{"all three backends report SERVING", serving(3), 200, 3},
	{"one backend reports NOT_SERVING", serving(2), 200, 2},
	{"all backends report NOT_SERVING", serving(0), 503, 0},
	{"all backends report SERVING again", serving(3), 200, 3},
	{"Envoy drains: POST /healthcheck/fail to the admin interface", post("/healthcheck/fail"), 503, 3},
	{"Envoy no longer drains: POST /healthcheck/ok", post("/healthcheck/ok"), 200, 3},
}

// serving makes the first n backends report SERVING and the others NOT_SERVING.
func serving(n int) func(*demo) error {
	return func(d *demo) (err error) {
		for i, backend := range d.Backends {
			err = errors.Join(err, backend.SetServing(i < n))
		}
		return err
	}
}

func post(path string) func(*demo) error {
	return func(d *demo) error { _, err := d.Envoy.Post(path); return err }
}

// script plays the steps. It fails if a result is not the expected one.
func script(ctx context.Context, flags *flag.FlagSet, args []string) error {
	variant := variantFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	return withDemo(ctx, options{*variant, 0, 0, "0.2s"}, func(d *demo) error {
		fmt.Println("three gRPC backends behind", d.title)
		for _, s := range steps {
			if err := d.play(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s.what, err)
			}
		}
		fmt.Println("\nall steps passed")
		return nil
	})
}

func (d *demo) play(ctx context.Context, s step) error {
	fmt.Printf("\n# %s\n", s.what)
	if err := s.do(d); err != nil {
		return err
	}
	explanation, err := d.explain(ctx, s)
	if err != nil {
		return err
	}
	status, body, err := d.probe()
	if err == nil && status != s.status {
		err = fmt.Errorf("GET / is answered with %d, want %d", status, s.status)
	}
	if err != nil {
		return err
	}
	fmt.Printf("GET / is answered with %d %s\n", status, body)
	// A call through the same listener succeeds also without healthy hosts.
	if _, err := recommend(ctx, d.Envoy.Ingress); err != nil {
		return err
	}
	fmt.Println("a gRPC call", map[bool]string{true: "succeeds", false: "still succeeds: " + whyInPanic}[s.healthy > 0])
	if d.Variant.Name() == "module" { // it answers this itself
		state, err := checkHealth(ctx, d.Envoy.Ingress, "router.Router")
		if want := map[int]string{200: "SERVING", 503: "NOT_SERVING"}[s.status]; err == nil && state != want {
			err = fmt.Errorf("grpc.health.v1.Health/Check answers %s, want %s", state, want)
		}
		if err != nil {
			return err
		}
		fmt.Println("grpc.health.v1.Health/Check answers", state)
	}
	fmt.Printf("$ healthgate explain --admin %s%s", d.admin, explanation)
	return nil
}

// whyInPanic is why calls succeed while probes fail, with healthy_panic_threshold of the reference configurations.
const whyInPanic = "Envoy sends to all hosts if less than 50 % are healthy"

// explain waits until explain reports the expected result. It returns the report if no host is healthy, and otherwise its lines about the
// answer and the cluster.
func (d *demo) explain(ctx context.Context, s step) (report string, err error) {
	err = testbed.WaitFor(ctx, 20*time.Second, func() error {
		out, err := exec.CommandContext(ctx, command(), "explain", "--admin", d.admin).Output()
		if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			return err // exit code 1: the gate fails
		}
		report = string(out)
		for _, want := range []string{fmt.Sprintf("  answers %d ", s.status), fmt.Sprintf("  cluster service: %d healthy ", s.healthy)} {
			if !strings.Contains(report, want) {
				return fmt.Errorf("explain does not report %q: %s", want, report)
			}
		}
		return nil
	})
	if s.healthy > 0 {
		_, report, _ = strings.Cut(report, "\ngate default: ")
		report, _, _ = strings.Cut(report, "\n\n") // other gates
		lines := regexp.MustCompile(`(?m)^  (answers|cluster) .*`).FindAllString(report, -1)
		return "   # shortened\n" + strings.Join(lines, "\n") + "\n", err
	}
	return "\n" + report, err
}

// probe sends a probe, and returns the status and the body of the reply.
func (d *demo) probe() (status int, body string, err error) {
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{TLSClientConfig: unverified}}
	defer client.CloseIdleConnections()
	reply, err := client.Get("https://" + d.Envoy.Ingress + "/")
	if err != nil {
		return 0, "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	return reply.StatusCode, strings.TrimSpace(string(text)), err
}
