package testbed

import (
	"net"
	"os"
	"syscall"
)

// UnusedAddress returns an address on loopback on which nothing listens. Servers can listen there, one after the other. Until this process
// ends, the kernel does not choose the port for a listener or a connection that asks for any free one.
func UnusedAddress() (*net.TCPAddr, error) {
	// The port of a socket that is bound and does not listen can be bound by name, if both sockets have SO_REUSEADDR. Go's and Envoy's have.
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	address, err := syscall.Getsockname(socket)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	bound := address.(*syscall.SockaddrInet4)
	return &net.TCPAddr{IP: bound.Addr[:], Port: bound.Port}, nil
}
