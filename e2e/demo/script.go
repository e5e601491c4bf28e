package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"healthgate/e2e/testbed"
)

func script(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("script", flag.ExitOnError)
	variant := variantFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	return play(ctx, *variant, steps, 0, os.Stdout)
}

// step is a step of the script, with its expected result.
type step struct {
	what    string
	do      func(*player) error
	status  int // of the probe
	healthy int // hosts
	explain bool
}

// steps are the script.
var steps = []step{
	{"all three backends report SERVING", serving(3), 200, 3, false},
	{"one backend reports NOT_SERVING", serving(2), 200, 2, false},
	{"all backends report NOT_SERVING", serving(0), 503, 0, true},
	{"all backends report SERVING again", serving(3), 200, 3, false},
	{"Envoy drains: POST /healthcheck/fail to the admin interface", post("/healthcheck/fail"), 503, 3, false},
	{"Envoy no longer drains: POST /healthcheck/ok", post("/healthcheck/ok"), 200, 3, false},
}

func serving(n int) func(*player) error {
	return func(p *player) error { return p.setServing(n) }
}

func post(path string) func(*player) error {
	return func(p *player) error { _, err := p.Envoy.Post(path); return err }
}

// player plays the script. It prints the changes that explain --watch reports below the step that causes them.
type player struct {
	*demo
	out io.Writer

	mutex   sync.Mutex
	pending []string // lines that are not printed yet
	status  string   // the last answer of the gate, as explain --watch reports it
	healthy int      // the last number of healthy hosts
}

// play plays steps, with a pause after each. It fails if a result is not the expected one.
func play(ctx context.Context, variant string, steps []step, pause time.Duration, out io.Writer) (err error) {
	d, err := start(ctx, options{variant, 0, 0, "0.2s"})
	defer func() { d.end(err) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "three gRPC backends behind %s\n", d.title())
	p := &player{demo: d, out: out, healthy: -1}
	watching, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(d.watch(watching, watchInterval/2, p.noteChange))
	}()
	defer func() { cancel(nil); <-done }()
	for _, step := range steps {
		if err := p.play(watching, step); err != nil {
			if cause := context.Cause(watching); cause != nil && ctx.Err() == nil {
				err = cause
			}
			return fmt.Errorf("%s: %w", step.what, err)
		}
		time.Sleep(pause)
	}
	fmt.Fprintln(out, "\nall steps passed")
	return nil
}

func (p *player) noteChange(c change) {
	var text strings.Builder
	newLines(&text).print(c.At, c.subject(), c.To)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.pending = append(p.pending, text.String())
	if c.Gate != "" && c.Cluster == "" {
		p.status, _, _ = strings.Cut(c.To, " ")
	}
	if healthy, _, ok := c.counts(); ok {
		p.healthy = healthy
	}
}

// printChanges prints the pending lines, and returns an error until the state is the expected one.
func (p *player) printChanges(s step) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, line := range p.pending {
		fmt.Fprint(p.out, "  ", line)
	}
	p.pending = nil
	if p.status != fmt.Sprint(s.status) || p.healthy != s.healthy {
		return fmt.Errorf("explain reports %q with %d healthy hosts, want %d with %d", p.status, p.healthy, s.status, s.healthy)
	}
	return nil
}

func (p *player) play(ctx context.Context, s step) error {
	fmt.Fprintf(p.out, "\n# %s\n", s.what)
	if err := s.do(p); err != nil {
		return err
	}
	if err := testbed.WaitFor(ctx, 20*time.Second, func() error { return p.printChanges(s) }); err != nil {
		return err
	}
	return errors.Join(p.showProbe(ctx, s), p.showCall(ctx, s), p.showCheck(ctx, s), p.showExplanation(ctx, s))
}

func (p *player) print(what, text string) { fmt.Fprintf(p.out, "  %-*s%s\n", column, what, text) }

// showProbe waits for the expected reply: the module may answer one sample later than explain.
func (p *player) showProbe(ctx context.Context, s step) error {
	return testbed.WaitFor(ctx, 10*time.Second, func() error {
		status, body, err := p.probe()
		if err == nil && status != s.status {
			err = fmt.Errorf("GET / is answered with %d, want %d", status, s.status)
		}
		if err == nil {
			body, _, _ = strings.Cut(body, "\n")
			p.print("GET /", fmt.Sprint(status, " ", body))
		}
		return err
	})
}

// showCall makes a gRPC call through the same listener. It succeeds also without healthy hosts.
func (p *player) showCall(ctx context.Context, s step) error {
	if _, err := recommend(ctx, p.Envoy.Ingress, p.tls); err != nil {
		return err
	}
	text := "succeeds"
	if inPanic(s.healthy, len(p.Backends)) {
		text = "still succeeds: " + whyInPanic
	}
	p.print("a gRPC call", text)
	return nil
}

// showCheck calls Check of grpc.health.v1.Health, which the module answers.
func (p *player) showCheck(ctx context.Context, s step) error {
	if p.Variant.Name() != "module" {
		return nil
	}
	want := map[bool]string{true: "SERVING", false: "NOT_SERVING"}[s.status == 200]
	return testbed.WaitFor(ctx, 10*time.Second, func() error {
		state, err := checkHealth(ctx, p.Envoy.Ingress, "router.Router", p.tls)
		if err == nil && state != want {
			err = fmt.Errorf("grpc.health.v1.Health answers %s, want %s", state, want)
		}
		if err == nil {
			p.print("grpc.health.v1.Health/Check", state)
		}
		return err
	})
}

func (p *player) showExplanation(ctx context.Context, s step) error {
	if !s.explain {
		return nil
	}
	fmt.Fprintf(p.out, "\n$ healthgate explain --admin %s\n", p.admin)
	text, err := exec.CommandContext(ctx, command(), "explain", "--admin", p.admin).Output()
	fmt.Fprint(p.out, string(text))
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return fmt.Errorf("healthgate explain ended with %v, want exit code 1 because a gate fails", err)
	}
	return nil
}
