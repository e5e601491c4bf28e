package testbed

import (
	"net"
	"testing"
)

func TestUnusedAddressIsGivenToNobodyElse(t *testing.T) {
	unused := map[int]bool{}
	for range 200 {
		address, err := UnusedAddress()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			listener, err := net.ListenTCP("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			listener.Close()
		}
		unused[address.Port] = true
	}
	// The kernel has some 28,000 ports to choose from.
	for range 3000 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
		if port := listener.Addr().(*net.TCPAddr).Port; unused[port] {
			t.Fatalf("another server got port %d", port)
		}
	}
}
