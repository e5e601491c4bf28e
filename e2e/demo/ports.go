package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// port is a port that the user can choose.
type port struct {
	number   int
	what     string
	variable string // of make
}

// checkPorts returns an error that names the ports in use, and a command with other ports.
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
			reasons = append(reasons, fmt.Sprintf("port %d (%s) is in use", p.number, p.what))
		case errors.Is(err, syscall.EACCES):
			reasons = append(reasons, fmt.Sprintf("port %d (%s) needs more rights", p.number, p.what))
		default:
			reasons = append(reasons, fmt.Sprintf("port %d (%s): %v", p.number, p.what, err))
		}
		others = append(others, fmt.Sprintf("%s=%d", p.variable, free(p.number, ports)))
	}
	if reasons == nil {
		return nil
	}
	return fmt.Errorf("%s; try: %s %s", strings.Join(reasons, ", "), again, strings.Join(others, " "))
}

// listen returns an error if a port on loopback is in use. Envoy itself would share it with another Envoy.
func listen(number int) error {
	listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", number))
	if err != nil {
		return err
	}
	return listener.Close()
}

// free returns the next free port that is not one of the chosen ports.
func free(number int, ports []port) int {
	start := max(number, 1023) // lower ports need more rights
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
	return 0 // the kernel picks a port
}
