// Command backend is the gRPC service of the demonstrations and tests: router.Router, with the standard grpc.health.v1 service and
// reflection.
//
// It prints one line of JSON with its addresses when it serves. On SIGTERM or SIGINT it first sets its status to NOT_SERVING, then
// finishes the active calls, and exits with 0.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"healthgate/e2e/backend/router"
)

// drainTimeout limits how long active calls may keep the backend running.
const drainTimeout = 20 * time.Second

func main() {
	listen := flag.String("listen", ":8080", "`address` to serve gRPC on: host:port, or unix:path")
	control := flag.String("control", "", "`address` of the HTTP control port, as host:port; none if empty.\n"+
		"POST /serving and POST /not-serving set the health status, GET / returns it")
	notServing := flag.Bool("not-serving", false, "start with the health status NOT_SERVING")
	delay := flag.Duration("drain-delay", 0, "how long to keep serving with the status NOT_SERVING after SIGTERM, so that clients notice")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("backend: ")
	if err := run(*listen, *control, *notServing, *delay); err != nil {
		log.Fatal(err)
	}
}

func run(listen, control string, notServing bool, delay time.Duration) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()

	own := health.NewServer()
	setServing(own, !notServing)
	// The tests send messages of a few megabytes.
	server := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	router.Register(server, router.Routes)
	grpc_health_v1.RegisterHealthServer(server, own)
	reflection.Register(server)

	grpcListener, err := listenOn(listen)
	if err != nil {
		return err
	}
	ready := map[string]string{"grpc": grpcListener.Addr().String()}
	failed := make(chan error, 2)
	if control != "" {
		controlListener, err := net.Listen("tcp", control)
		if err != nil {
			return err
		}
		ready["control"] = controlListener.Addr().String()
		controlServer := &http.Server{Handler: controlOf(own), ReadHeaderTimeout: 5 * time.Second}
		defer controlServer.Close()
		go func() { failed <- controlServer.Serve(controlListener) }()
	}
	go func() { failed <- server.Serve(grpcListener) }()
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}

	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	cancel() // a second signal ends it at once
	own.Shutdown()
	time.Sleep(delay)
	// A client that never closes its stream must not keep the process running.
	force := time.AfterFunc(drainTimeout, server.Stop)
	defer force.Stop()
	server.GracefulStop()
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

func listenOn(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", address)
}

// setServing sets the status of the service and of the whole server, which are the same here.
func setServing(server *health.Server, serving bool) {
	value := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if serving {
		value = grpc_health_v1.HealthCheckResponse_SERVING
	}
	server.SetServingStatus("", value)
	server.SetServingStatus(router.Name, value)
}

// controlOf serves the HTTP port by which tests and demonstrations set the status.
func controlOf(server *health.Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /serving", func(http.ResponseWriter, *http.Request) { setServing(server, true) })
	mux.HandleFunc("POST /not-serving", func(http.ResponseWriter, *http.Request) { setServing(server, false) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		reply, err := server.Check(r.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, reply.GetStatus())
	})
	return mux
}
