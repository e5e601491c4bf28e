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

// demo is three backends and an Envoy in front of them.
type demo struct {
	*testbed.Testbed
	version string       // of Envoy
	admin   string       // address of the admin interface, as host:port
	server  *http.Server // of the admin interface, if it is not Envoy's own
	client  *http.Client
	tls     *tls.Config
}

// options are the settings of a demo.
type options struct {
	variant              string
	httpsPort, adminPort int    // 0: a free one
	interval             string // of the health checks
}

// referenceFile has the configuration that users of a variant start from.
var referenceFile = map[string]string{"plugin": "envoy/envoy.yaml", "module": "envoy/module.yaml"}

// start starts the backends and Envoy. The caller calls end also after an error.
func start(ctx context.Context, o options) (d *demo, err error) {
	d = &demo{Testbed: &testbed.Testbed{}}
	variant, err := testbed.Named(o.variant)
	if err != nil {
		return d, err
	}
	if d.version, err = testbed.EnvoyVersion(); err != nil {
		return d, err
	}
	config, err := testbed.ReadBootstrap(referenceFile[o.variant])
	if err != nil {
		return d, err
	}
	dir, err := os.MkdirTemp("", "healthgate-demo-")
	if err != nil {
		return d, err
	}
	const loopback = "127.0.0.1:0"
	d.Testbed, err = testbed.Prepare(ctx, dir, testbed.Setup{
		Variant: variant, Config: config, Backends: []string{loopback, loopback, loopback}, CheckEvery: o.interval,
		IngressPort: o.httpsPort, AdminPort: o.adminPort,
	})
	if err != nil {
		return d, err
	}
	config.SetGateKey("response", map[string]any{"details": true}) // only on loopback
	d.tls = &tls.Config{RootCAs: d.Certificate.Pool, ServerName: "localhost"}
	d.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: d.tls}}
	return d, d.startEnvoy(ctx, o)
}

func (d *demo) startEnvoy(ctx context.Context, o options) error {
	// Envoy has read the key once it serves, so the key does not stay on disk.
	defer os.Remove(d.Certificate.KeyFile)
	log, err := os.Create(d.log())
	if err != nil {
		return err
	}
	defer log.Close()
	if d.usesContribHost() {
		d.Config.Listen(o.httpsPort, 0)
	}
	if err := d.Start(ctx, testbed.Options{LogFile: log}); err != nil {
		if ctx.Err() != nil {
			return context.Canceled
		}
		if text, _ := os.ReadFile(d.log()); len(text) > 0 {
			err = fmt.Errorf("%w%s\nthe whole log is in %s", err, testbed.Tail(string(text), 10), d.log())
		}
		return err
	}
	if d.admin = d.Envoy.Admin; d.usesContribHost() {
		return d.serveAdmin(o.adminPort)
	}
	return nil
}

// usesContribHost reports whether the contrib host takes the place of the golang extension.
func (d *demo) usesContribHost() bool { return testbed.HasContribHost(d.Variant) }

// serveAdmin serves Envoy's admin interface with the configuration as it was written, so that explain finds the gate in it.
func (d *demo) serveAdmin(port int) error {
	handler, err := testbed.AdminAsWritten(d.Envoy, d.Config)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return err
	}
	d.admin = listener.Addr().String()
	d.server = &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = d.server.Serve(listener) }()
	return nil
}

func (d *demo) log() string { return filepath.Join(d.Dir, "envoy.log") }

// end ends everything that was started, and removes its files. After a failure Envoy's log stays.
func (d *demo) end(failed error) {
	if d.server != nil {
		_ = d.server.Close()
	}
	_ = d.Close()
	if d.Dir == "" {
		return
	}
	log, err := os.Stat(d.log())
	if failed == nil || errors.Is(failed, context.Canceled) || err != nil || log.Size() == 0 {
		_ = os.RemoveAll(d.Dir)
		return
	}
	files, _ := os.ReadDir(d.Dir)
	for _, file := range files {
		if path := filepath.Join(d.Dir, file.Name()); path != d.log() {
			_ = os.RemoveAll(path)
		}
	}
}

// probe sends a probe, and returns the status and the body of the reply.
func (d *demo) probe() (status int, body string, err error) {
	reply, err := d.client.Get("https://" + d.Envoy.Ingress + "/")
	if err != nil {
		return 0, "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	return reply.StatusCode, strings.TrimSpace(string(text)), err
}

// setServing makes the first n backends report SERVING and the others NOT_SERVING.
func (d *demo) setServing(n int) error {
	for i, backend := range d.Backends {
		if err := backend.SetServing(i < n); err != nil {
			return err
		}
	}
	return nil
}

// title says what runs.
func (d *demo) title() string {
	title := fmt.Sprintf("Envoy %s with %s", d.version, filepath.Base(d.Variant.Object()))
	if d.usesContribHost() {
		title += "\n(e2e/contribhost takes the place of the golang extension, which stock Envoy lacks)"
	}
	return title
}
