package testbed

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Envoy is a running Envoy.
type Envoy struct {
	Admin   string // host:port, or unix:path
	Ingress string // host:port of the first listener
	process *process
	dir     string
	epoch   int // the number of hot restarts before this one started
	sync    func(*Envoy) error
}

// Options are options for starting an Envoy.
type Options struct {
	Workers int      // worker threads; 0: 2
	Env     []string // variables of its environment, as KEY=value
	LogFile *os.File // for its output; nil keeps the output for Log
	Flags   []string // more flags
	// DrainTime is --drain-time-s: after how many seconds draining connections are closed; 0: 1 (Envoy's default is 600). The drain strategy
	// is immediate, as in the image, because a gradual one would close no connection within one second.
	DrainTime int
	// Needs are files that Envoy loads; a missing one is an error that says how to build it.
	Needs []string
	// Sync waits until the variant has read Envoy's current stats, and Envoy has the variant's current stats. It is nil if both always
	// share them. It is called after each POST to admin, and before and after each reading of stats.
	Sync func(*Envoy) error
	// TakeOver is an Envoy that the new one replaces by hot restart: it passes on its listeners and ends.
	TakeOver *Envoy
}

// Configuration is a configuration to start Envoy with.
type Configuration interface{ JSON() []byte }

// RawJSON is a configuration as text, for tests of invalid ones.
type RawJSON []byte

// JSON returns the text.
func (r RawJSON) JSON() []byte { return r }

// StartEnvoy starts an Envoy in a folder with a configuration, and returns when it serves.
func StartEnvoy(ctx context.Context, dir string, config Configuration, options Options) (*Envoy, error) {
	e, err := LaunchEnvoy(dir, config, options)
	if err != nil {
		return nil, err
	}
	living, ended := context.WithCancelCause(ctx)
	go func() {
		<-e.process.ended
		ended(fmt.Errorf("envoy ended: %v", e.process.err))
	}()
	err = WaitFor(living, 60*time.Second, func() error { return e.findAddresses(filepath.Join(dir, "admin")) })
	if cause := context.Cause(living); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		e.Kill()
		return nil, fmt.Errorf("%w; its log:\n%s", err, Tail(e.Log(), 40))
	}
	return e, nil
}

// LaunchEnvoy starts an Envoy and does not wait until it serves. Wait returns the result of one that ends by itself.
func LaunchEnvoy(dir string, config Configuration, options Options) (*Envoy, error) {
	envoy, err := EnvoyPath()
	if err != nil {
		return nil, err
	}
	for _, needed := range append(options.Needs, backend()) {
		if !exists(needed) {
			return nil, fmt.Errorf("%s does not exist; run `make build` first", needed)
		}
	}
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, config.JSON(), 0o600); err != nil {
		return nil, err
	}
	drainTime := cmp.Or(options.DrainTime, 1)
	baseID := filepath.Join(dir, "base-id")
	restart, epoch := []string{"--use-dynamic-base-id", "--base-id-path", baseID}, 0
	if before := options.TakeOver; before != nil {
		id, err := os.ReadFile(filepath.Join(before.dir, "base-id"))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(baseID, id, 0o600); err != nil {
			return nil, err
		}
		epoch = before.epoch + 1
		restart = []string{"--base-id", strings.TrimSpace(string(id)), "--restart-epoch", strconv.Itoa(epoch)}
	}
	cmd := exec.Command(envoy, append(restart,
		"--config-path", file,
		"--admin-address-path", filepath.Join(dir, "admin"),
		"--concurrency", strconv.Itoa(cmp.Or(options.Workers, 2)),
		"--drain-time-s", strconv.Itoa(drainTime), "--parent-shutdown-time-s", strconv.Itoa(drainTime+1),
		"--file-flush-interval-msec", "50",
	)...)
	if !slices.Contains(options.Flags, "--drain-strategy") {
		cmd.Args = append(cmd.Args, "--drain-strategy", "immediate")
	}
	cmd.Args = append(cmd.Args, options.Flags...)
	cmd.Env = append(os.Environ(), options.Env...)
	if options.LogFile != nil {
		cmd.Stdout, cmd.Stderr = options.LogFile, options.LogFile
	}
	p, err := startProcess(cmd)
	if err != nil {
		return nil, err
	}
	return &Envoy{process: p, dir: dir, epoch: epoch, sync: options.Sync}, nil
}

// findAddresses reads Envoy's addresses when it is live.
func (e *Envoy) findAddresses(adminFile string) error {
	admin, err := os.ReadFile(adminFile)
	if err != nil {
		return err
	}
	e.Admin = strings.TrimSpace(string(admin))
	if strings.HasPrefix(e.Admin, "/") {
		e.Admin = "unix:" + e.Admin
	}
	// An Envoy that was started in drain mode serves, too.
	if _, err := e.Get("/ready"); err != nil && !strings.Contains(err.Error(), "DRAINING") {
		return err
	}
	listeners, err := e.listeners()
	if err != nil {
		return err
	}
	if len(listeners) == 0 {
		return errors.New("envoy has no listener yet")
	}
	e.Ingress = joinAddress(listeners[0].GetLocalAddress())
	return nil
}

func (e *Envoy) listeners() ([]*adminv3.ListenerStatus, error) {
	text, err := e.Get("/listeners?format=json")
	if err != nil {
		return nil, err
	}
	listeners := &adminv3.Listeners{}
	if err := unmarshalJSON(text, listeners); err != nil {
		return nil, err
	}
	return listeners.GetListenerStatuses(), nil
}

// Listeners returns the address of each listener by its name.
func (e *Envoy) Listeners() (map[string]string, error) {
	listeners, err := e.listeners()
	addresses := map[string]string{}
	for _, listener := range listeners {
		addresses[listener.GetName()] = joinAddress(listener.GetLocalAddress())
	}
	return addresses, err
}

func joinAddress(address *corev3.Address) string {
	if pipe := address.GetPipe().GetPath(); pipe != "" {
		return "unix:" + pipe
	}
	host := address.GetSocketAddress().GetAddress()
	if host == "::" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(int(address.GetSocketAddress().GetPortValue())))
}

// EnvoyAt returns an Envoy that is already running. It has no process and no log.
func EnvoyAt(ingress, admin string, sync func(*Envoy) error) *Envoy {
	return &Envoy{Ingress: ingress, Admin: admin, sync: sync}
}

// Get sends GET to admin, and returns the body of a 200.
func (e *Envoy) Get(path string) (string, error) { return e.Ask(http.MethodGet, path) }

// Post sends POST to admin, and then calls Sync.
func (e *Envoy) Post(path string) (string, error) {
	reply, err := e.Ask(http.MethodPost, path)
	if err != nil {
		return "", err
	}
	return reply, e.callSync()
}

// callSync calls Sync, unless it is nil.
func (e *Envoy) callSync() error {
	if e.sync == nil {
		return nil
	}
	return e.sync(e)
}

// adminTransport reaches admin wherever it listens, for any host name.
func (e *Envoy) adminTransport() *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		if path, unix := strings.CutPrefix(e.Admin, "unix:"); unix {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", e.Admin)
	}}
}

// Ask sends a request to admin, and does not call Sync.
func (e *Envoy) Ask(method, path string) (string, error) {
	request, err := http.NewRequest(method, "http://admin"+path, nil)
	if err != nil {
		return "", err
	}
	reply, err := (&http.Client{Timeout: 10 * time.Second, Transport: e.adminTransport()}).Do(request)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return "", err
	}
	if reply.StatusCode != http.StatusOK {
		return "", fmt.Errorf("admin %s: %s: %s", path, reply.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// Stats returns Envoy's counters and gauges whose names begin with a prefix.
func (e *Envoy) Stats(prefix string) (map[string]uint64, error) {
	if err := e.callSync(); err != nil {
		return nil, err
	}
	filter := "^" + strings.ReplaceAll(prefix, ".", `\.`)
	text, err := e.Get("/stats?format=json&type=All&filter=" + url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	var reply struct {
		Stats []struct {
			Name  string
			Value json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(text), &reply); err != nil {
		return nil, err
	}
	stats := map[string]uint64{}
	for _, stat := range reply.Stats {
		// A text readout has a string, a histogram nothing.
		if value, err := strconv.ParseUint(string(stat.Value), 10, 64); err == nil {
			stats[stat.Name] = value
		}
	}
	return stats, e.callSync()
}

// Hosts returns the health of each host of a cluster by its address: "healthy", or the reason why not.
func (e *Envoy) Hosts(cluster string) (map[string]string, error) {
	text, err := e.Get("/clusters?format=json")
	if err != nil {
		return nil, err
	}
	clusters := &adminv3.Clusters{}
	if err := unmarshalJSON(text, clusters); err != nil {
		return nil, err
	}
	hosts := map[string]string{}
	for _, status := range clusters.GetClusterStatuses() {
		if status.GetName() != cluster {
			continue
		}
		for _, host := range status.GetHostStatuses() {
			health := host.GetHealthStatus()
			state := "healthy"
			switch {
			case health.GetFailedActiveHealthCheck():
				state = "failed"
			case health.GetFailedOutlierCheck():
				state = "ejected"
			case health.GetEdsHealthStatus() != corev3.HealthStatus_HEALTHY:
				state = health.GetEdsHealthStatus().String()
			}
			hosts[joinAddress(host.GetAddress())] = state
		}
	}
	return hosts, nil
}

// Log returns Envoy's output so far, with its access log.
func (e *Envoy) Log() string { return e.process.output.String() }

// Pid returns the process id.
func (e *Envoy) Pid() int { return e.process.cmd.Process.Pid }

// ResidentMiB returns Envoy's resident memory.
func (e *Envoy) ResidentMiB() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.Pid()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kib); err != nil {
		return 0, err
	}
	return kib / 1024, nil
}

// Stop ends Envoy by SIGTERM, as Kubernetes does, and returns an error unless its exit code is 0.
func (e *Envoy) Stop() error { return e.process.end(syscall.SIGTERM, 30*time.Second) }

// Kill ends Envoy at once.
func (e *Envoy) Kill() { _ = e.process.end(os.Kill, 10*time.Second) }

// Wait waits until Envoy has ended, and returns its result, or an error if it is still running.
func (e *Envoy) Wait(atMost time.Duration) error {
	select {
	case <-e.process.ended:
		return e.process.err
	case <-time.After(atMost):
		return fmt.Errorf("envoy is still running after %v", atMost)
	}
}

// Alive reports whether Envoy is still running.
func (e *Envoy) Alive() bool { return !e.process.hasEnded() }

func unmarshalJSON(text string, message proto.Message) error {
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(text), message)
}

// Tail returns the last lines of a log, without the long ones in which Envoy lists its extensions.
func Tail(log string, lines int) string {
	all := strings.Split(strings.TrimRight(log, "\n"), "\n")
	all = slices.DeleteFunc(all, func(line string) bool { return len(line) > 600 })
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
