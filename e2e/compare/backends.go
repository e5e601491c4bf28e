package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Backends are HTTP servers on one port of several loopback addresses.
type Backends struct {
	port    int
	states  sync.Map // by address
	servers []*http.Server
}

func newBackends() (*Backends, error) {
	b := &Backends{}
	for _, cluster := range []string{ejecting, checked, fresh} {
		for host := range servers {
			at := address(cluster, host)
			b.states.Store(at, firstState(cluster))
			listener, err := net.Listen("tcp", net.JoinHostPort(at, fmt.Sprint(b.port)))
			if err != nil {
				b.Close()
				return nil, err
			}
			b.port = listener.Addr().(*net.TCPAddr).Port
			server := &http.Server{Handler: b}
			b.servers = append(b.servers, server)
			go func() { _ = server.Serve(listener) }() // until it is closed
		}
	}
	return b, nil
}

func (b *Backends) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if strings.HasPrefix(request.URL.Path, "/call/") {
		// The response begins, and lasts until one side hangs up.
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-request.Context().Done()
		return
	}
	at, _, _ := net.SplitHostPort(request.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
	state, _ := b.states.Load(at)
	for state == "waiting" && request.Context().Err() == nil {
		time.Sleep(time.Millisecond)
		state, _ = b.states.Load(at)
	}
	switch state {
	case "down", "failing":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "degraded":
		w.Header().Set("x-envoy-degraded", "")
	}
}

func (b *Backends) Close() {
	for _, server := range b.servers {
		_ = server.Close()
	}
}
