// Package bed starts what Healthgate is tested and shown with: backends, and a real Envoy. It knows of no way in which Healthgate
// comes into that, and of Healthgate nothing but its documented configuration.
//
// Everything listens on loopback, on ports that the kernel picks unless a caller asks for one, and lives in folders of
// the caller's, so that any number of beds can run at once.
package testbed

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Root returns the folder of the checkout.
var Root = sync.OnceValue(func() string {
	const marked = "plugin.go" // is nowhere else
	_, file, _, ok := runtime.Caller(0)
	if ok {
		if root := filepath.Join(filepath.Dir(file), "..", ".."); exists(filepath.Join(root, marked)) {
			return root
		}
	}
	// Built with -trimpath: from the working folder up.
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if exists(filepath.Join(dir, marked)) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	fmt.Fprintln(os.Stderr, "run this inside the checkout of Healthgate: it starts what was built there")
	os.Exit(2)
	return ""
})

func backend() string { return filepath.Join(Root(), "build", "backend") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// EnvoyPath finds the Envoy to run, or fetches it.
var EnvoyPath = sync.OnceValues(func() (string, error) {
	fetch := exec.Command(filepath.Join(Root(), "e2e", "fetch-envoy.sh"))
	fetch.Stderr = os.Stderr
	path, err := fetch.Output()
	if err != nil {
		return "", fmt.Errorf("no Envoy to run: %w", err)
	}
	return strings.TrimSpace(string(path)), nil
})

// WaitFor calls ready until it returns nil, and returns what it last returned where the time is over. It is how
// everything here waits.
func WaitFor(ctx context.Context, atMost time.Duration, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", atMost, err)
		case <-tick.C:
		}
	}
}

// process is a child process, with what it writes.
type process struct {
	cmd    *exec.Cmd
	output *lines // empty where the output goes to a file
	ended  chan struct{}
	err    error // of the process, once it has ended
}

func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, output: &lines{}, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.output
	}
	// Ended with its parent, should that be killed; and not by the Ctrl-C that ends the parent in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// signal sends it a signal and waits for it to end.
func (p *process) end(signal os.Signal, atMost time.Duration) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !p.over() {
		return err
	}
	select {
	case <-p.ended:
		return p.err
	case <-time.After(atMost):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s did not end within %v of %v", filepath.Base(p.cmd.Path), atMost, signal)
	}
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// lines is a buffer that one side writes while the other reads it.
type lines struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (l *lines) Write(text []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buffer.Write(text)
}

func (l *lines) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buffer.String()
}

// EnvoyVersion is the version of the Envoy that is run.
func EnvoyVersion() (string, error) {
	envoy, err := EnvoyPath()
	if err != nil {
		return "", err
	}
	// .../envoy  version: <commit>/<version>/<state>/<type>/<TLS library>
	text, err := exec.Command(envoy, "--version").Output()
	if err != nil {
		return "", err
	}
	if parts := strings.Split(string(text), "/"); len(parts) >= 4 {
		return parts[len(parts)-4], nil
	}
	return strings.TrimSpace(string(text)), nil
}
