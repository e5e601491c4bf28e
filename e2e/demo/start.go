package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"healthgate/e2e/testbed"
)

// demo is three backends and an Envoy in front of them.
type demo struct {
	*testbed.Testbed
	admin string // address of the admin interface, as host:port
	title string // what runs
	log   string // the file with Envoy's log
}

// options are the settings of a demo.
type options struct {
	variant              string
	httpsPort, adminPort int    // 0: a free one
	interval             string // of the health checks
}

func variantFlag(flags *flag.FlagSet) *string {
	return flags.String("variant", "plugin", "`variant`: plugin or module")
}

// withDemo starts the backends and Envoy, calls use, and ends all of it. Its files are removed, except after a failure of
// Envoy.
func withDemo(ctx context.Context, o options, use func(*demo) error) (err error) {
	variant, err := testbed.VariantNamed(o.variant)
	if err != nil {
		return err
	}
	version, err := testbed.EnvoyVersion()
	if err != nil {
		return err
	}
	d := &demo{title: fmt.Sprintf("Envoy %s with %s", version, filepath.Base(variant.Object()))}
	adminPort := o.adminPort
	if testbed.HasContribHost(variant) {
		d.title += "\n(e2e/contribhost takes the place of the golang extension, which stock Envoy lacks)"
		adminPort = 0 // the port is served below
	}
	// What users of the variant start from.
	config, err := testbed.ReadBootstrap(map[string]string{"plugin": "envoy/envoy.yaml", "module": "envoy/module.yaml"}[o.variant])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "healthgate-demo-")
	if err != nil {
		return err
	}
	d.log = filepath.Join(dir, "envoy.log")
	defer func() {
		_, noLog := os.Stat(d.log)
		if err == nil || errors.Is(err, context.Canceled) || noLog != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	const loopback = "127.0.0.1:0"
	d.Testbed, err = testbed.Prepare(ctx, dir, testbed.Setup{
		Variant: variant, Config: config, Backends: []string{loopback, loopback, loopback}, CheckEvery: o.interval,
		IngressPort: o.httpsPort, AdminPort: adminPort,
	})
	defer d.Close()
	if err != nil {
		return err
	}
	config.SetGateKey("response", map[string]any{"details": true}) // only on loopback
	if err := d.startEnvoy(ctx); err != nil {
		return err
	}
	if d.admin = d.Envoy.Admin; testbed.HasContribHost(variant) {
		// explain finds the gate in the configuration as it was written.
		handler, err := testbed.AdminAsWritten(d.Envoy, config)
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", o.adminPort))
		if err != nil {
			return err
		}
		defer listener.Close()
		d.admin = listener.Addr().String()
		go func() { _ = http.Serve(listener, handler) }()
	}
	return use(d)
}

func (d *demo) startEnvoy(ctx context.Context) error {
	// Envoy has read the key once it serves, so the key does not stay on disk.
	defer os.Remove(d.Certificate.KeyFile)
	log, err := os.Create(d.log)
	if err != nil {
		return err
	}
	defer log.Close()
	err = d.Start(ctx, testbed.Options{LogFile: log})
	if ctx.Err() != nil {
		return context.Canceled
	}
	if text, _ := os.ReadFile(d.log); err != nil && len(text) > 0 {
		err = fmt.Errorf("%w%s\nthe whole log is in %s", err, testbed.Tail(string(text), 10), d.log)
	}
	return err
}

// command returns the path of the command.
func command() string { return filepath.Join(testbed.Root(), "build", "healthgate") }
