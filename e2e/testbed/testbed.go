// Package testbed starts backends and a real Envoy with either variant of Healthgate, for tests and demonstrations.
//
// Everything listens on loopback, on ports that the kernel chooses unless a caller asks for one, and writes only to folders that the caller
// gives, so any number of testbeds can run at the same time.
//
//	testbed.go                            backends, and an Envoy in front of them
//	envoy.go, process.go                  starting and ending an Envoy; its admin interface
//	backend.go, load.go                   backends, and clients that send probes
//	variant.go, plugin.go, module.go      the differences between the variants
//	convert.go, contribhost.go            a configuration in the form of a variant, or of the contrib host
//	bootstrap.go, message.go, types.go    Envoy's configuration as typed messages
//	example.go, configdump.go             the files of envoy/examples; /config_dump as written
//	checkout.go, environment.go           files of the checkout; an Envoy that already runs
//	certificate.go, free.go, wait.go      a certificate, an unused address, waiting for a condition
package testbed

import (
	"context"
	"errors"
)

// Testbed has backends and an Envoy in front of them.
type Testbed struct {
	Dir         string
	Variant     Variant
	Certificate *Certificate
	Backends    []*Backend
	Config      *Bootstrap // in the Go plugin's form; Start converts a copy
	Envoy       *Envoy     // nil before Start
}

// Setup describes a testbed.
type Setup struct {
	Variant      Variant
	Config       *Bootstrap // nil: envoy/envoy.yaml
	Backends     []string   // the address of each; port 0 is a free one
	BackendFlags []string
	CheckEvery   string // the interval of Envoy's health checks
	// Ports of the first listener and of admin, 0 for a free one.
	IngressPort, AdminPort int
}

// Prepare starts the backends and changes the configuration for the testbed: a certificate if the first listener has TLS, ports on
// loopback, the backends as the first cluster's hosts. The caller may change the configuration further, then calls Start. It must call
// Close, also after an error.
func Prepare(ctx context.Context, dir string, s Setup) (*Testbed, error) {
	t := &Testbed{Dir: dir, Variant: s.Variant, Config: s.Config}
	var err error
	if t.Config == nil {
		if t.Config, err = ReadBootstrap("envoy/envoy.yaml"); err != nil {
			return t, err
		}
	}
	if t.Certificate, err = NewCertificate(dir); err != nil {
		return t, err
	}
	var hosts []string
	for _, address := range s.Backends {
		backend, err := StartBackend(ctx, address, s.BackendFlags...)
		if err != nil {
			return t, err
		}
		t.Backends = append(t.Backends, backend)
		hosts = append(hosts, backend.Address)
	}
	if t.Config.HasTLS() {
		t.Config.UseCertificate(t.Certificate)
	}
	t.Config.Listen(s.IngressPort, s.AdminPort)
	t.Config.SetEndpoints(hosts...)
	t.Config.CheckEvery(s.CheckEvery)
	return t, nil
}

// Start starts Envoy and returns when it serves.
func (t *Testbed) Start(ctx context.Context, options Options) (err error) {
	t.Envoy, err = StartVariant(ctx, t.Variant, t.Dir, t.Config, options)
	return err
}

// Close ends everything that was started, and returns an error if something did not end in order.
func (t *Testbed) Close() error {
	var all []error
	if t.Envoy != nil {
		all = append(all, t.Envoy.Stop())
	}
	for _, backend := range t.Backends {
		all = append(all, backend.Stop())
	}
	return errors.Join(all...)
}
