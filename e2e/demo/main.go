// Command demo shows Healthgate at work: three backends, and Envoy in front with the reference configuration.
//
//	demo run     until Ctrl-C; says each time the answer changes
//	demo script  goes through the answers and ends, with 1 where one is not as it should be
//	demo call    makes a gRPC call through a running Envoy
//	demo cert    makes a self-signed certificate for localhost, for a try-out
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"healthgate/e2e/backend/router"
	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

func main() {
	commands := map[string]func(context.Context, []string) error{"run": run, "script": script, "call": call, "cert": cert}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: demo run | script | call | cert [flags]")
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		cancel()
		os.Exit(1)
	}
}

// show is what is shown.
type show struct {
	dir      string
	envoy    *bed.Envoy
	backends []*bed.Backend
	client   *http.Client
	tls      *tls.Config
}

// start starts backends and Envoy. What it started is in the show even where it fails.
func start(ctx context.Context, httpsPort, adminPort int, interval string) (*show, error) {
	s := &show{}
	var err error
	if s.dir, err = os.MkdirTemp("", "healthgate-demo-"); err != nil {
		return s, err
	}
	var addresses []string
	for range 3 {
		backend, err := bed.StartBackend(ctx, "127.0.0.1:0")
		if err != nil {
			return s, err
		}
		s.backends = append(s.backends, backend)
		addresses = append(addresses, backend.Address)
	}
	certificate, err := bed.NewCertificate(s.dir)
	if err != nil {
		return s, err
	}
	config, err := bed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return s, err
	}
	config.UseCertificate(certificate)
	config.Listen(httpsPort, adminPort)
	config.CheckEvery(interval)
	config.SetEndpoints(addresses...)
	config.Set(door.PluginConfig+".response", map[string]any{"details": true}) // on loopback alone
	log, err := os.Create(s.log())
	if err != nil {
		return s, err
	}
	defer log.Close()
	contrib, err := door.Named("contrib")
	if err != nil {
		return s, err
	}
	if s.envoy, err = door.Start(ctx, contrib, s.dir, config, bed.Options{LogFile: log}); err != nil {
		return s, fmt.Errorf("%w (its log is in %s)", err, s.log())
	}
	s.tls = &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}
	s.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: s.tls}}
	return s, nil
}

func (s *show) log() string { return filepath.Join(s.dir, "envoy.log") }

// end ends all that was started. The folder stays where something went wrong, for its log.
func (s *show) end(failed error) {
	if s.envoy != nil {
		_ = s.envoy.Stop()
	}
	for _, backend := range s.backends {
		_ = backend.Stop()
	}
	if failed == nil && s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// probe asks as a balancer does, and returns the status and whether the reply says that Envoy is draining.
func (s *show) probe() (status int, draining bool, err error) {
	reply, err := s.client.Get("https://" + s.envoy.Ingress + "/")
	if err != nil {
		return 0, false, err
	}
	reply.Body.Close()
	return reply.StatusCode, reply.Header.Get("x-envoy-immediate-health-check-fail") != "", nil
}

// counts tells Envoy's own numbers.
func (s *show) counts(draining bool) string {
	const prefix = "cluster.service.membership_"
	stats, err := s.envoy.Stats(prefix)
	if err != nil {
		return "counts unknown: " + err.Error()
	}
	counts := fmt.Sprintf("%d of %d hosts healthy", stats[prefix+"healthy"], stats[prefix+"total"])
	if draining {
		counts += ", draining"
	}
	return counts
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	httpsPort := flags.Int("https-port", 8443, "`port` of the listener")
	adminPort := flags.Int("admin-port", 9901, "`port` of admin")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fmt.Println("starting three backends and Envoy")
	s, err := start(ctx, *httpsPort, *adminPort, "1s")
	defer func() { s.end(err) }()
	if err != nil {
		return err
	}
	fmt.Printf(`
  listener  https://%s/
  admin     http://%s/
  log       %s
`, s.envoy.Ingress, s.envoy.Admin, s.log())
	for i, backend := range s.backends {
		fmt.Printf("  backend %d %s, control http://%s/\n", i+1, backend.Address, backend.Control)
	}
	fmt.Printf(`
try, in another terminal:
  curl -ik https://%[1]s/                                the probe
  curl -k -H 'accept: application/json' https://%[1]s/   the same, with a report
  build/demo call -address %[1]s                         a gRPC call through the same listener
  curl -X POST http://%[2]s/not-serving                  make backend 1 unhealthy; /serving brings it back
  curl -X POST http://%[3]s/healthcheck/fail             drain; /healthcheck/ok ends it
  curl -s 'http://%[3]s/stats?filter=healthgate'         the metrics

Ctrl-C ends all of it.

`, s.envoy.Ingress, s.backends[0].Control, s.envoy.Admin)

	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := 0
	for {
		status, draining, err := s.probe()
		switch {
		case ctx.Err() != nil:
			fmt.Println("\nending")
			return nil
		case !s.envoy.Alive():
			return errors.New("envoy has ended; its log is in " + s.log())
		case err != nil:
			return err
		case status != last:
			fmt.Printf("%s  GET / is answered with %d, %s\n", time.Now().Format(time.TimeOnly), status, s.counts(draining))
			last = status
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func script(ctx context.Context, args []string) (err error) {
	if err := flag.NewFlagSet("script", flag.ExitOnError).Parse(args); err != nil {
		return err
	}
	s, err := start(ctx, 0, 0, "0.2s")
	defer func() { s.end(err) }()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func() error
		want int
	}{
		{"all three hosts are up", func() error { return s.setServing(3) }, 200},
		{"a gRPC call, through the same listener", s.call(ctx), 200},
		{"no host is up", func() error { return s.setServing(0) }, 503},
		{"one host is back", func() error { return s.setServing(1) }, 200},
		{"draining, by /healthcheck/fail", func() error { _, err := s.envoy.Post("/healthcheck/fail"); return err }, 503},
		{"no longer, by /healthcheck/ok", func() error { _, err := s.envoy.Post("/healthcheck/ok"); return err }, 200},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		status, draining := 0, false
		err := bed.WaitFor(ctx, 10*time.Second, func() (err error) {
			if status, draining, err = s.probe(); err == nil && status != step.want {
				err = fmt.Errorf("GET / is answered with %d, want %d", status, step.want)
			}
			return err
		})
		verdict := "ok"
		if err != nil {
			verdict = "WRONG"
		}
		fmt.Printf("%-40s GET / %d  %-32s %s\n", step.what, status, s.counts(draining), verdict)
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
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

func (s *show) call(ctx context.Context) func() error {
	return func() error { return recommend(ctx, s.envoy.Ingress, s.tls) }
}

func cert(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("cert", flag.ExitOnError)
	dir := flags.String("dir", ".", "`folder` for tls.crt and tls.key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	certificate, err := bed.NewCertificate(*dir)
	if err != nil {
		return err
	}
	fmt.Printf(`made %[1]s and %[2]s, for localhost and a day; give them to a cluster with
  kubectl create secret tls envoy-tls --cert %[1]s --key %[2]s
`, certificate.CertFile, certificate.KeyFile)
	return nil
}

func call(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	address := flags.String("address", "127.0.0.1:8443", "`host:port` of the listener")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// The certificate of a demo is made when it starts, and known to nobody.
	return recommend(ctx, *address, &tls.Config{InsecureSkipVerify: true})
}

// recommend makes a gRPC call and says what came of it.
func recommend(ctx context.Context, address string, config *tls.Config) error {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	munich := &router.Point{Latitude: 48.137, Longitude: 11.575}
	reply, err := router.NewRouterClient(conn).Recommend(ctx, &router.RecommendRequest{Points: []*router.Point{munich}})
	if err != nil {
		return err
	}
	if len(reply.GetRoutes()) == 0 {
		return errors.New("router.Router/Recommend named no route")
	}
	fmt.Printf("router.Router/Recommend answered with routes %v\n", reply.GetRoutes())
	return nil
}
