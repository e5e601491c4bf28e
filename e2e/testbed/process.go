package testbed

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// process is a child process with its output.
type process struct {
	cmd    *exec.Cmd
	output *lines // empty if the output goes to a file
	ended  chan struct{}
	err    error // the result of the process, once it has ended
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, output: &lines{}, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.output
	}
	// It is killed if its parent is killed, and Ctrl-C does not reach it, so that the parent can end it in order.
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

// end sends a signal and waits until the process has ended.
func (p *process) end(signal os.Signal, atMost time.Duration) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !p.hasEnded() {
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

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// lines is a buffer for concurrent writing and reading.
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
