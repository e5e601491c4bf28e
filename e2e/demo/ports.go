package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// port is one that a user may choose.
type port struct {
	number   int
	what     string
	variable string // of make
}

// checkPorts says which ports can't be listened on, and what to type in their place.
func checkPorts(variant string, ports ...port) error {
	again := "make run"
	if variant != "plugin" {
		again += " VARIANT=module"
	}
	var reasons, others []string
	for _, p := range ports {
		err := listen(p.number)
		switch {
		case err == nil:
			continue
		case errors.Is(err, syscall.EADDRINUSE):
			reasons = append(reasons, fmt.Sprintf("port %d (%s) is taken", p.number, p.what))
		case errors.Is(err, syscall.EACCES):
			reasons = append(reasons, fmt.Sprintf("port %d (%s) is not yours to listen on", p.number, p.what))
		default:
			reasons = append(reasons, fmt.Sprintf("port %d (%s): %v", p.number, p.what, err))
		}
		others = append(others, fmt.Sprintf("%s=%d", p.variable, free(p.number, ports)))
	}
	if reasons == nil {
		return nil
	}
	return fmt.Errorf("%s: %s %s", strings.Join(reasons, ", "), again, strings.Join(others, " "))
}

// listen says why a port on loopback can't be listened on. Envoy itself would not say: it shares one with another Envoy.
func listen(number int) error {
	listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", number))
	if err != nil {
		return err
	}
	return listener.Close()
}

// free is the next port after a taken one that can be had and that nobody asked for.
func free(number int, ports []port) int {
	start := max(number, 1023) // those below need a right of their own
next:
	for next := start + 1; next < 65536; next++ {
		for _, p := range ports {
			if p.number == next {
				continue next
			}
		}
		if listen(next) == nil {
			return next
		}
	}
	return 0 // the kernel picks one
}
