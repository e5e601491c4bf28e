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
	way := variantFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	return play(ctx, *way, steps, 0, os.Stdout)
}

// step is one of the script's: what is done, and what has to come of it.
type step struct {
	what    string
	do      func(*player) error
	status  int // of the probe
	healthy int // hosts
	explain bool
}

// steps are the script.
var steps = []step{
	{"all three backends say SERVING", serving(3), 200, 3, false},
	{"one backend says NOT_SERVING", serving(2), 200, 2, false},
	{"all backends say NOT_SERVING", serving(0), 503, 0, true},
	{"all backends say SERVING again", serving(3), 200, 3, false},
	{"Envoy drains: POST /healthcheck/fail on admin", admin("/healthcheck/fail"), 503, 3, false},
	{"Envoy no longer drains: POST /healthcheck/ok", admin("/healthcheck/ok"), 200, 3, false},
}

func serving(n int) func(*player) error {
	return func(p *player) error { return p.setServing(n) }
}

func admin(path string) func(*player) error {
	return func(p *player) error { _, err := p.envoy.Post(path); return err }
}

// player goes through the steps. What it prints between them is what explain --watch tells.
type player struct {
	*show
	out io.Writer

	mutex   sync.Mutex
	held    []string // lines that came and are not printed yet
	status  string   // the gate's answer, as explain --watch told it last
	healthy int      // and the hosts
}

// play shows the answer of each step, with a pause for the reader between them, and fails where one is not as it should be.
func play(ctx context.Context, way string, steps []step, pause time.Duration, out io.Writer) (err error) {
	s, err := start(ctx, options{way, 0, 0, "0.2s"})
	defer func() { s.end(err) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "three gRPC backends behind %s\n", s.title())
	p := &player{show: s, out: out, healthy: -1}
	watching, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(s.watch(watching, looks/2, p.tell))
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
	fmt.Fprintln(out, "\nall as it should be")
	return nil
}

// tell notes a change, and has its line printed under the step that it belongs to.
func (p *player) tell(c change) {
	var text strings.Builder
	newLines(&text).print(c.At, c.what(), c.To)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.held = append(p.held, text.String())
	if c.Gate != "" && c.Cluster == "" {
		p.status, _, _ = strings.Cut(c.To, " ")
	}
	if healthy, _, ok := c.counts(); ok {
		p.healthy = healthy
	}
}

// release prints what has come, and says whether it is what a step has to come to.
func (p *player) release(s step) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, line := range p.held {
		fmt.Fprint(p.out, "  ", line)
	}
	p.held = nil
	if p.status != fmt.Sprint(s.status) || p.healthy != s.healthy {
		return fmt.Errorf("explain says %q with %d healthy hosts, want %d with %d", p.status, p.healthy, s.status, s.healthy)
	}
	return nil
}

func (p *player) play(ctx context.Context, s step) error {
	fmt.Fprintf(p.out, "\n# %s\n", s.what)
	if err := s.do(p); err != nil {
		return err
	}
	if err := testbed.WaitFor(ctx, 20*time.Second, func() error { return p.release(s) }); err != nil {
		return err
	}
	return errors.Join(p.sayProbe(ctx, s), p.sayCall(ctx, s), p.sayCheck(ctx, s), p.sayWhy(ctx, s))
}

func (p *player) say(what, text string) {
	fmt.Fprintf(p.out, "  %-*s%s\n", column, what, text)
}

// sayProbe asks as a balancer does. A variant may answer a look later than the numbers say.
func (p *player) sayProbe(ctx context.Context, s step) error {
	return testbed.WaitFor(ctx, 10*time.Second, func() error {
		status, body, err := p.probe()
		if err == nil && status != s.status {
			err = fmt.Errorf("GET / is answered with %d, want %d", status, s.status)
		}
		if err == nil {
			body, _, _ = strings.Cut(body, "\n")
			p.say("GET /", fmt.Sprint(status, " ", body))
		}
		return err
	})
}

// sayCall makes a call through the same listener, and says why it passes where no host is healthy.
func (p *player) sayCall(ctx context.Context, s step) error {
	if _, err := recommend(ctx, p.envoy.Ingress, p.tls); err != nil {
		return err
	}
	text := "passes"
	if panics(s.healthy, len(p.backends)) {
		text = "still passes: " + panicking
	}
	p.say("a gRPC call", text)
	return nil
}

// sayCheck asks by gRPC, which the dynamic module answers.
func (p *player) sayCheck(ctx context.Context, s step) error {
	if p.variant.Name() != "module" {
		return nil
	}
	want := map[bool]string{true: "SERVING", false: "NOT_SERVING"}[s.status == 200]
	return testbed.WaitFor(ctx, 10*time.Second, func() error {
		state, err := checkHealth(ctx, p.envoy.Ingress, "router.Router", p.tls)
		if err == nil && state != want {
			err = fmt.Errorf("grpc.health.v1.Health says %s, want %s", state, want)
		}
		if err == nil {
			p.say("grpc.health.v1.Health/Check", state)
		}
		return err
	})
}

// sayWhy has the command explain the answer.
func (p *player) sayWhy(ctx context.Context, s step) error {
	if !s.explain {
		return nil
	}
	fmt.Fprintf(p.out, "\n$ healthgate explain --admin %s\n", p.admin)
	explain := exec.CommandContext(ctx, command(), "explain", "--admin", p.admin)
	text, err := explain.Output()
	fmt.Fprint(p.out, string(text))
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return fmt.Errorf("healthgate explain ended with %v, want 1, since a gate fails", err)
	}
	return nil
}
