// Package bed starts what Healthgate is tested and shown with: backends, and a real Envoy that runs the built plugin. It
// knows the plugin by its file and its documented configuration alone.
//
// Everything listens on loopback, on ports that the kernel picks unless a caller asks for one, and lives in folders of
// the caller's, so that any number of beds can run at once.
package bed

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
	_, file, _, ok := runtime.Caller(0)
	if ok {
		if root := filepath.Join(filepath.Dir(file), "..", ".."); exists(filepath.Join(root, "go.mod")) {
			return root
		}
	}
	// Built with -trimpath: from the working folder up.
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if exists(filepath.Join(dir, "go.mod")) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	panic("run this inside the checkout")
})

// Plugin, StandIn and backend are the files that `make build` makes.
func Plugin() string  { return filepath.Join(Root(), "build", "healthgate.so") }
func standIn() string { return filepath.Join(Root(), "build", "libstandin.so") }
func backend() string { return filepath.Join(Root(), "build", "backend") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// binary is an Envoy to run.
type binary struct {
	path string
	// It has the golang extension, and loads the plugin itself; where it lacks it, the stand-in does.
	golang bool
}

// envoyBinary finds Envoy, or fetches it.
var envoyBinary = sync.OnceValues(func() (binary, error) {
	fetch := exec.Command(filepath.Join(Root(), "e2e", "fetch-envoy.sh"))
	fetch.Stderr = os.Stderr
	path, err := fetch.Output()
	if err != nil {
		return binary{}, fmt.Errorf("no Envoy to run: %w", err)
	}
	envoy := binary{path: strings.TrimSpace(string(path))}
	program, err := os.ReadFile(envoy.path)
	if err != nil {
		return binary{}, err
	}
	// A function that the extension offers to plugins, by its name.
	envoy.golang = bytes.Contains(program, []byte("envoyGoFilterHttpSendLocalReply"))
	needed := []string{Plugin(), backend()}
	if !envoy.golang {
		needed = append(needed, standIn())
	}
	for _, built := range needed {
		if !exists(built) {
			return binary{}, fmt.Errorf("%s is not there; run `make build` first", built)
		}
	}
	return envoy, nil
})

// HasStandIn says whether the stand-in takes the place of the golang extension in the Envoy that is run. It has faults
// that a test can ask for.
func HasStandIn() bool {
	envoy, err := envoyBinary()
	return err != nil || !envoy.golang // who then starts Envoy is told the error
}

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
	envoy, err := envoyBinary()
	if err != nil {
		return "", err
	}
	// .../envoy  version: <commit>/<version>/<state>/<type>/<TLS library>
	text, err := exec.Command(envoy.path, "--version").Output()
	if err != nil {
		return "", err
	}
	if parts := strings.Split(string(text), "/"); len(parts) >= 4 {
		return parts[len(parts)-4], nil
	}
	return strings.TrimSpace(string(text)), nil
}
