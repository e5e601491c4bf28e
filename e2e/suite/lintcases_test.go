package suite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// lintCase is a case of internal/lint/testdata/cases as a bootstrap for stock Envoy.
type lintCase struct {
	name    string
	text    string
	refused bool
	answer  string // the status of a probe, or closed; "" if the case does not say
}

// lintCases returns the cases that this Envoy can read: not those for the plugin, those that are no bootstrap,
// and those for a later version.
func lintCases(t *testing.T) (all []lintCase) {
	t.Helper()
	version, err := testbed.EnvoyVersion()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(testbed.Root(), "internal/lint/testdata/cases")
	base, err := os.ReadFile(filepath.Join(folder, "module.base"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var some []map[string]string
		if err := yaml.Unmarshal(content, &some); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, one := range some {
			said := one["envoy"]
			_, since, _ := strings.Cut(said, "since ") // as in: takes since 1.40
			if one["base"] != "" || one["file"] != "" || said == "unknown" || since > version {
				continue
			}
			said, before, _ := strings.Cut(said, " before ") // as in: refuses before 1.40
			all = append(all, lintCase{
				name:    strings.TrimSuffix(filepath.Base(file), ".yaml") + "/" + one["case"],
				text:    filled(string(base), one),
				refused: said == "refuses" && (before == "" || version < before),
				answer:  one["answer"],
			})
		}
	}
	return all
}

// Envoy refuses exactly the lint cases that are marked as refused.
func TestLintCasesAreRefusedAsMarked(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	var mutex sync.Mutex
	taken, refused := 0, 0
	atOnce := make(chan struct{}, 2)
	t.Run("cases", func(t *testing.T) {
		for _, one := range lintCases(t) {
			t.Run(one.name, func(t *testing.T) {
				t.Parallel()
				atOnce <- struct{}{}
				defer func() { <-atOnce }()
				file := filepath.Join(t.TempDir(), "envoy.yaml")
				if err := os.WriteFile(file, []byte(one.text), 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := validated(t, file)
				mutex.Lock()
				defer mutex.Unlock()
				if err == nil {
					taken++
				} else {
					refused++
				}
				if one.refused != (err != nil) {
					t.Errorf("Envoy refuses it: %v, want %v\n%s", err != nil, one.refused, testbed.Tail(out, 3))
				}
			})
		}
	})
	if t.Logf("Envoy takes %d and refuses %d", taken, refused); taken < 100 || refused < 40 {
		t.Error("too few cases")
	}
}

// All hosts of the gate are down. A probe gets the status that the case names: 503 if the filter before or after the gate, the route, the
// listener or the mapper is no problem, and another if lint reports it.
func TestLintCasesGiveTheirMarkedAnswers(t *testing.T) {
	t.Parallel()
	skipUnlessModule(t)
	answered := 0
	atOnce := make(chan struct{}, 2)
	t.Run("cases", func(t *testing.T) {
		for _, one := range lintCases(t) {
			if one.answer == "" {
				continue
			}
			answered++
			t.Run(one.name, func(t *testing.T) {
				t.Parallel()
				atOnce <- struct{}{}
				defer func() { <-atOnce }()
				listener := startCase(t, one.text)
				client := &http.Client{Timeout: settle, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
					Transport: &http.Transport{DisableKeepAlives: true}}
				defer client.CloseIdleConnections()
				got := "closed"
				if reply, err := client.Get("http://" + listener + "/"); err == nil {
					_, _ = io.Copy(io.Discard, reply.Body)
					reply.Body.Close()
					got = strconv.Itoa(reply.StatusCode)
				}
				if got != one.answer {
					t.Errorf("the probe gets %s, want %s", got, one.answer)
				}
			})
		}
	})
	if answered < 40 {
		t.Errorf("only %d cases name an answer", answered)
	}
}

// startCase starts Envoy with a configuration, and returns the address of its listener once all hosts were checked.
func startCase(t *testing.T, text string) (listener string) {
	t.Helper()
	path, err := testbed.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	file, adminFile := filepath.Join(folder, "envoy.yaml"), filepath.Join(folder, "admin")
	text += "\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	envoy := exec.CommandContext(t.Context(), path, "--config-path", file, "--admin-address-path", adminFile, "--use-dynamic-base-id",
		"--concurrency", "1", "--log-level", "error")
	envoy.Env = append(os.Environ(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+filepath.Join(testbed.Root(), "build"))
	envoy.Stdout, envoy.Stderr = &log, &log
	if err := envoy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = envoy.Process.Kill()
		_ = envoy.Wait()
		if t.Failed() {
			t.Log(testbed.Tail(log.String(), 5))
		}
	})
	if err := testbed.WaitFor(t.Context(), settle, func() (err error) {
		listener, err = caseIsReady(adminFile)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return listener
}

// caseIsReady returns the listener's address, or an error while Envoy is not ready.
func caseIsReady(adminFile string) (string, error) {
	admin, err := os.ReadFile(adminFile)
	if err != nil {
		return "", err
	}
	get := func(path string) ([]byte, error) {
		reply, err := http.Get("http://" + string(admin) + path)
		if err != nil {
			return nil, err
		}
		defer reply.Body.Close()
		return io.ReadAll(reply.Body)
	}
	if state, err := get("/ready"); err != nil || !strings.HasPrefix(string(state), "LIVE") {
		return "", fmt.Errorf("Envoy is %q, %v", state, err)
	}
	if attempts, err := get("/stats?filter=cluster.service.health_check.failure"); err != nil ||
		!strings.HasSuffix(strings.TrimSpace(string(attempts)), ": 4") {
		return "", fmt.Errorf("the hosts are not checked: %s, %v", attempts, err)
	}
	content, err := get("/listeners?format=json")
	if err != nil {
		return "", err
	}
	var listeners struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(content, &listeners); err != nil || len(listeners.Statuses) == 0 {
		return "", fmt.Errorf("the listeners are %s, %v", content, err)
	}
	socket := listeners.Statuses[0].Address.Socket
	return net.JoinHostPort(socket.Address, strconv.Itoa(socket.Port)), nil
}

// filled puts the parts of a case into its base, as internal/lint's own test does.
func filled(base string, parts map[string]string) string {
	var b strings.Builder
	lines := strings.SplitAfter(base, "\n")
	for i := 0; i < len(lines); i++ {
		trimmed := strings.TrimSpace(lines[i])
		if !strings.HasPrefix(trimmed, "#") {
			b.WriteString(lines[i])
			continue
		}
		indent := lines[i][:strings.Index(lines[i], "#")]
		name, block := strings.CutSuffix(trimmed[1:], "{")
		own, given := parts[name]
		end := i
		if block {
			end = i + slices.Index(lines[i:], indent+"#}\n")
			if !given {
				b.WriteString(filled(strings.Join(lines[i+1:end], ""), parts))
			}
		}
		for line := range strings.Lines(own) {
			b.WriteString(indent + strings.TrimRight(line, "\n") + "\n")
		}
		i = end
	}
	return b.String()
}
