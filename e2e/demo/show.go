package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"healthgate/e2e/testbed"
)

// show is what is shown.
type show struct {
	dir      string
	variant  testbed.Variant
	version  string // Envoy's
	admin    string // where admin is to be asked, as host:port
	envoy    *testbed.Envoy
	server   *http.Server // of admin, where it is not Envoy's own
	backends []*testbed.Backend
	client   *http.Client
	tls      *tls.Config
}

// options are what a show is made with.
type options struct {
	variant              string
	httpsPort, adminPort int    // 0 for one that is free
	interval             string // of the health checks
}

// start starts backends and Envoy. What it started is in the show even where it fails.
func start(ctx context.Context, o options) (s *show, err error) {
	s = &show{}
	if s.variant, err = testbed.Named(o.variant); err != nil {
		return s, err
	}
	if s.version, err = testbed.EnvoyVersion(); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "healthgate-demo-"); err != nil {
		return s, err
	}
	for range 3 {
		backend, err := testbed.StartBackend(ctx, "127.0.0.1:0")
		if err != nil {
			return s, err
		}
		s.backends = append(s.backends, backend)
	}
	if err := s.startEnvoy(ctx, o); err != nil {
		return s, err
	}
	s.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: s.tls}}
	return s, nil
}

// reference is where a variant's configuration is, and where in its filter that of the gate.
var reference = map[string]struct{ file, gate string }{
	"plugin": {"envoy/envoy.yaml", testbed.FilterConfig},
	"module": {"envoy/module.yaml", "typed_config.filter_config.value"},
}

func (s *show) startEnvoy(ctx context.Context, o options) error {
	certificate, err := testbed.NewCertificate(s.dir)
	if err != nil {
		return err
	}
	// Envoy has read the key once it serves. Nobody finds it after that, however the demo ends.
	defer os.Remove(certificate.KeyFile)
	s.tls = &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}
	config, err := s.configuration(o, certificate)
	if err != nil {
		return err
	}
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer log.Close()
	written := config.Clone()
	if s.variant.Name() == "plugin" { // module.yaml is what stock Envoy takes
		s.variant.Prepare(config)
	}
	if s.contribHost() {
		config.Set("admin.address.socket_address.port_value", 0)
	}
	if s.envoy, err = testbed.StartEnvoy(ctx, s.dir, config, s.variant.Options(testbed.Options{LogFile: log})); err != nil {
		if ctx.Err() != nil {
			return context.Canceled
		}
		if text, _ := os.ReadFile(s.log()); len(text) > 0 {
			err = fmt.Errorf("%w%s\nall of it is in %s", err, testbed.Tail(string(text), 10), s.log())
		}
		return err
	}
	if s.admin = s.envoy.Admin; s.contribHost() {
		return s.serveAdmin(written, o.adminPort)
	}
	return nil
}

// configuration is the variant's reference, where it differs from what users have.
func (s *show) configuration(o options, certificate *testbed.Certificate) (*testbed.Config, error) {
	from := reference[s.variant.Name()]
	config, err := testbed.LoadConfig(from.file)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, backend := range s.backends {
		addresses = append(addresses, backend.Address)
	}
	config.UseCertificate(certificate)
	config.Listen(o.httpsPort, o.adminPort)
	config.CheckEvery(o.interval)
	config.SetEndpoints(addresses...)
	config.Set(testbed.Healthgate+"."+from.gate+".response", map[string]any{"details": true}) // on loopback alone
	return config, nil
}

// contribHost says whether the contrib host takes the golang extension's place.
func (s *show) contribHost() bool { return testbed.HasContribHost(s.variant) }

// serveAdmin offers Envoy's admin with the configuration as it was written, so that explain finds the gate in it.
func (s *show) serveAdmin(written *testbed.Config, port int) error {
	handler, err := testbed.AdminAsWritten(s.envoy, written)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return err
	}
	s.admin = listener.Addr().String()
	s.server = &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.server.Serve(listener) }()
	return nil
}

func (s *show) log() string { return filepath.Join(s.dir, "envoy.log") }

// end ends all that was started. Where something went wrong Envoy's log stays, and nothing else.
func (s *show) end(failed error) {
	if s.server != nil {
		_ = s.server.Close()
	}
	if s.envoy != nil {
		_ = s.envoy.Stop()
	}
	for _, backend := range s.backends {
		_ = backend.Stop()
	}
	if s.dir == "" {
		return
	}
	log, err := os.Stat(s.log())
	if failed == nil || errors.Is(failed, context.Canceled) || err != nil || log.Size() == 0 {
		_ = os.RemoveAll(s.dir)
		return
	}
	files, _ := os.ReadDir(s.dir)
	for _, file := range files {
		if path := filepath.Join(s.dir, file.Name()); path != s.log() {
			_ = os.RemoveAll(path)
		}
	}
}

// probe asks as a balancer does, and returns the status and the body.
func (s *show) probe() (status int, body string, err error) {
	reply, err := s.client.Get("https://" + s.envoy.Ingress + "/")
	if err != nil {
		return 0, "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	return reply.StatusCode, strings.TrimSpace(string(text)), err
}

// setServing makes the first n backends SERVING and the others not.
func (s *show) setServing(n int) error {
	for i, backend := range s.backends {
		if err := backend.SetServing(i < n); err != nil {
			return err
		}
	}
	return nil
}

// title says what runs, and what stands in for what.
func (s *show) title() string {
	object := filepath.Base(s.variant.Object())
	if s.contribHost() {
		return fmt.Sprintf("Envoy %s with %s, by the Go plugin\n(e2e/contribhost plays the golang extension, which stock Envoy lacks)", s.version, object)
	}
	return fmt.Sprintf("Envoy %s with %s, by the %s variant", s.version, object, s.variant.Name())
}
