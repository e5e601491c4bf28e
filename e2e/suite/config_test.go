package suite

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// Each example is started as it is written, but for its addresses, and opens once its clusters have a host.
func TestExamplesRun(t *testing.T) {
	t.Parallel()
	skipWherePointed(t, "it needs configurations of its own")
	examples, err := filepath.Glob(filepath.Join(bed.Root(), "envoy", "examples", "*.yaml"))
	if err != nil || len(examples) < 2 {
		t.Fatalf("found %v, %v", examples, err)
	}
	for _, file := range examples {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runExample(t, name)
		})
	}
}

// runExample starts an example between a backend and probes of all its paths.
func runExample(t *testing.T, name string) {
	t.Helper()
	config, err := bed.LoadConfig("envoy/examples/" + name)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "e2e") // a short path, since a socket's is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	adminSocket := ""
	if config.Get("admin.address.pipe") != nil {
		adminSocket = filepath.Join(dir, "admin.sock")
		config.Set("admin.address.pipe.path", adminSocket)
		config.Set(door.PluginConfig+".admin.address", "unix://"+adminSocket)
	} else {
		config.Set("admin.address.socket_address.port_value", 0)
	}
	config.Set(bed.Listener+".address.socket_address", map[string]any{"address": "127.0.0.1", "port_value": 0})
	if config.Get(door.PluginConfig+".hold.healthy_after") != nil {
		config.Set(door.PluginConfig+".hold.healthy_after", "1s")
	}
	backend, err := bed.StartBackend(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Kill)
	for i := range config.Get("static_resources.clusters").([]any) {
		cluster := fmt.Sprint("static_resources.clusters.", i)
		config.Set(cluster+".load_assignment.endpoints.0.lb_endpoints.0", bed.Endpoint(backend.Address))
	}
	envoy, err := door.Start(t.Context(), theDoor, dir, config, bed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(envoy.Kill)
	paths := []string{"/"}
	if name == "kubelet.yaml" {
		paths = append(paths, "/readyz")
	}
	for _, path := range paths {
		err := bed.WaitFor(t.Context(), settle, func() error {
			reply, err := http.Get("http://" + envoy.Ingress + path)
			if err != nil {
				return err
			}
			defer reply.Body.Close()
			if reply.StatusCode != 200 {
				return fmt.Errorf("%s is answered with %s", path, reply.Status)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%v; envoy's log ends:\n%s", err, bed.Tail(envoy.Log(), 20))
		}
	}
}

// A cluster that has had no traffic is checked as often as any other: without that, Envoy notices after a minute.
func TestIdleClusterIsCheckedAtItsInterval(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.setServing(1)
	s.setServing(0) // waits no longer than settle, far less than a minute
	s.awaitProbe(s.client("h2"), 503, time.Second)
}

// The old way, to compare with: it does what it did.
func TestLuaConfigurationDoesWhatTheOldOneDid(t *testing.T) {
	t.Parallel()
	config, err := bed.LoadConfig("envoy/lua.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(p *plan) {
		p.config, p.gated = config, false
		p.configured = append(p.configured, func(p *plan, _ []string) {
			// The script reaches admin by its port, so that has to be known beforehand.
			port := unusedAddress(t).Port
			config.Listen(0, port)
			config.Set("static_resources.clusters.1.load_assignment.endpoints.0.lb_endpoints.0.endpoint.address.socket_address.port_value", port)
		})
	})
	for _, protocol := range protocols {
		client := s.client(protocol)
		s.setServing(1)
		expect(t, protocol, s.awaitProbe(client, 200, time.Second), 200, "ok\n", nil)
		s.setServing(0)
		expect(t, protocol, s.awaitProbe(client, 503, time.Second), 503, "unavailable\n", nil)
	}
	s.setServing(1)
	callRouter(t, s)
}
