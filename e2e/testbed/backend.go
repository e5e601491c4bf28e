package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Backend is a running backend.
type Backend struct {
	Address string // where it serves gRPC: host:port, or unix:path
	Control string // its HTTP control port, as host:port
	process *process
}

// StartBackend starts a backend that serves on an address: host:port, with port 0 for one that is free, or unix:path.
func StartBackend(ctx context.Context, address string, flags ...string) (*Backend, error) {
	// Its output has its addresses, and errors.
	out := &lines{}
	cmd := exec.Command(backend(), append([]string{"-listen", address, "-control", "127.0.0.1:0"}, flags...)...)
	cmd.Stdout = out
	p, err := startProcess(cmd)
	if err != nil {
		return nil, fmt.Errorf("backend (run `make build`): %w", err)
	}
	b := &Backend{process: p}
	err = WaitFor(ctx, 10*time.Second, func() error {
		line, _, whole := strings.Cut(out.String(), "\n")
		if !whole {
			if p.hasEnded() {
				return fmt.Errorf("backend ended (%v): %s", p.err, p.output)
			}
			return fmt.Errorf("backend has not printed its addresses")
		}
		ready := map[string]string{}
		if err := json.Unmarshal([]byte(line), &ready); err != nil {
			return err
		}
		b.Address, b.Control = ready["grpc"], ready["control"]
		return nil
	})
	if err != nil {
		b.Kill()
		return nil, err
	}
	if strings.HasPrefix(address, "unix:") {
		b.Address = address
	}
	return b, nil
}

// BackendAt returns a backend that is already running. It cannot be ended.
func BackendAt(address, control string) *Backend { return &Backend{Address: address, Control: control} }

// SetServing makes the backend answer health checks with SERVING or NOT_SERVING.
func (b *Backend) SetServing(serving bool) error {
	path := "/not-serving"
	if serving {
		path = "/serving"
	}
	reply, err := http.Post("http://"+b.Control+path, "", nil)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("backend: %s: %s", path, reply.Status)
	}
	return nil
}

// Stop ends the backend by SIGTERM, as Kubernetes does, and returns an error unless its exit code is 0.
func (b *Backend) Stop() error { return b.process.end(syscall.SIGTERM, 30*time.Second) }

// Kill ends the backend at once.
func (b *Backend) Kill() { _ = b.process.end(os.Kill, 10*time.Second) }
